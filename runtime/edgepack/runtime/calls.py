"""The functions that answer a call of known shapes: on bound buffers, or directly.

Each takes the only input, or the list of inputs, with the contract's dtypes and the shapes that
it was made for; it checks that numbers are finite and text is text, and nothing else.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from edgepack.bundle.contract import TensorSpec
from edgepack.runtime.engine import Binding, Session
from edgepack.runtime.inputs import check_finite
from edgepack.runtime.labels import Labeller
from edgepack.runtime.tensors import DTYPES, Array
from edgepack.trust.values import dataclass

Shape: TypeAlias = tuple[int, ...]
Call: TypeAlias = Callable[[Any], dict[str, Array]]  # takes an Array or a Sequence of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one of the contract's outputs is made of what the session gives.

    Attributes:
        name: The contract's name.
        shape: To answer with; the session's own may differ.
        position: Among the session's outputs.
        labeller: Makes labels of the scores there; None where they are the answer itself.
    """

    name: str
    shape: Shape
    position: int
    labeller: Labeller | None = None


class NotForThisCallError(Exception):
    """These values need the plain path; other values of the same shapes may not.

    Never leaves `edgepack.runtime.quick`.
    """


class CallFailedError(Exception):
    """The engine refused the buffers, or the outputs had other shapes than before.

    The plain path finds out whether it is real. Never leaves `edgepack.runtime.quick`.
    """


def bound_call(
    binding: Binding,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[Answer],
    *,
    single: bool,
) -> Call:
    """Make the function that writes the buffers, runs, and copies the outputs.

    Args:
        binding: Buffers of one set of shapes.
        inputs: The contract's.
        outputs: What to answer with.
        single: Whether the function takes the only input instead of a list.
    """
    return (_bound_single if single else _bound_several)(binding, inputs, outputs)


def direct_call(
    session: Session,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[Answer],
    raw_shapes: Sequence[Shape],
    *,
    single: bool,
) -> Call:
    """Make the function that runs on the caller's arrays: for text and for large inputs.

    Args:
        session: The engine's.
        inputs: The contract's.
        outputs: What to answer with.
        raw_shapes: Shapes that the session's outputs had.
        single: Whether the function takes the only input instead of a list.
    """
    reads = [
        (item.name, item.position, raw_shapes[item.position], item.shape, item.labeller)
        for item in outputs
    ]
    run = session.run

    def answer_of(arrays: Sequence[Array]) -> dict[str, Array]:
        raw = run(arrays)
        answer = {}
        for name, position, raw_shape, shape, labeller in reads:
            found = raw[position]
            if found.shape != raw_shape:
                raise CallFailedError
            if labeller is not None:
                found = labeller(found)
            answer[name] = found if found.shape == shape else found.reshape(shape)
        return answer

    checks = [_check(spec) for spec in inputs]
    if single:
        check = checks[0]
        return lambda array: answer_of((check(array),))
    return lambda arrays: answer_of(
        [check(array) for array, check in zip(arrays, checks, strict=True)]
    )


def _check(spec: TensorSpec) -> Callable[[Array], Array]:
    """The function that gives back an input as the engine takes it."""
    kind = DTYPES[spec.datatype].kind
    isfinite = math.isfinite

    def floats(array: Array) -> Array:
        array = np.ascontiguousarray(array)
        flat = array.reshape(-1)
        if not isfinite(flat.dot(flat)):
            check_finite(array, spec)
        return array

    def texts(array: Array) -> Array:
        if any(type(text) is not str for text in array.reshape(-1).tolist()):
            raise NotForThisCallError
        return np.ascontiguousarray(array)

    return {"f": floats, "O": texts}.get(kind, np.ascontiguousarray)


def _bound_single(
    binding: Binding, inputs: Sequence[TensorSpec], outputs: Sequence[Answer]
) -> Call:
    """`_bound_several` without its loop, which costs a tenth of a small model's time."""
    (buffer, flat, dot, spec) = _writes(binding, inputs)[0]
    reads = _reads(binding, outputs)
    run = binding.run
    failures = binding.failures
    isfinite = math.isfinite

    def call(array: Array) -> dict[str, Array]:
        buffer[...] = array
        if dot is not None and not isfinite(dot(flat)):
            check_finite(buffer, spec)
        try:
            run()
        except failures as exc:
            raise CallFailedError from exc
        answer = {}  # a comprehension would be one call more
        for name, copy in reads:
            answer[name] = copy()
        return answer

    return call


def _bound_several(
    binding: Binding, inputs: Sequence[TensorSpec], outputs: Sequence[Answer]
) -> Call:
    writes = _writes(binding, inputs)
    reads = _reads(binding, outputs)
    run = binding.run
    failures = binding.failures
    isfinite = math.isfinite

    def call(arrays: Sequence[Array]) -> dict[str, Array]:
        for array, (buffer, flat, dot, spec) in zip(arrays, writes, strict=True):
            buffer[...] = array
            if dot is not None and not isfinite(dot(flat)):
                check_finite(buffer, spec)
        try:
            run()
        except failures as exc:
            raise CallFailedError from exc
        return {name: copy() for name, copy in reads}

    return call


def _writes(
    binding: Binding, inputs: Sequence[TensorSpec]
) -> list[tuple[Array, Array, Callable[[Array], float] | None, TensorSpec]]:
    """For each input: its buffer, the buffer flat, and the function for a sum of squares.

    A finite sum of squares has finite terms only, and takes a fifth of the time of `isfinite`.
    Where it is not finite one must look closely: it may have overflowed, or NaN be allowed.
    """
    found = []
    for spec, buffer in zip(inputs, binding.inputs, strict=True):
        flat = buffer.reshape(-1)
        dot: Callable[[Array], float] | None = flat.dot if buffer.dtype.kind == "f" else None
        found.append((buffer, flat, dot, spec))
    return found


def _reads(binding: Binding, outputs: Sequence[Answer]) -> list[tuple[str, Callable[[], Array]]]:
    return [(item.name, _read(binding.outputs[item.position], item)) for item in outputs]


def _read(buffer: Array, item: Answer) -> Callable[[], Array]:
    if item.labeller is None:
        return buffer.reshape(item.shape).copy
    labeller, shape = item.labeller, item.shape
    return lambda: labeller(buffer).reshape(shape)
