"""The fast path: buffers bound to the session once, for the shapes that come again.

A bare `InferenceSession.run` spends a third of a small model's time on making its arguments.
Here the input is copied into a buffer that the engine already knows, and the outputs are copied
out, so that a later call never changes what a caller holds.

A set of buffers serves one caller at a time: it is taken from its shape's pool and put back (both
are atomic), so that a second thread, or a signal handler in the middle of a call, gets another
set or the plain path. One set shared by threads gives wrong answers.

The plain path takes everything else: text, the first call of a shape, large inputs, dtypes or
names that need a cast or an error, and models whose outputs do not have the shape they had before.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from edgepack.bundle.contract import Contract, TensorSpec, Variant
from edgepack.runtime.engine import Binding, Session
from edgepack.runtime.errors import InputError
from edgepack.runtime.inputs import check_finite
from edgepack.runtime.tensors import DTYPES, Array

MAX_SHAPES: Final = 8
MAX_BINDINGS_PER_SHAPE: Final = 16
MAX_BINDING_BYTES: Final = 1 << 19  # at 1 MiB, copying in costs more than binding saves
MAX_BYTES: Final = 1 << 22  # of all bindings of a model
_MAX_SEEN_SHAPES: Final = 256

_Shape: TypeAlias = tuple[int, ...]
_Key: TypeAlias = _Shape | tuple[_Shape, ...]  # of the only input, or of each input
_Given: TypeAlias = Array | Sequence[Array]  # the only input, or each input
_Call: TypeAlias = Callable[[Any], dict[str, Array]]  # takes _Given


class QuickPath:
    """Answers the calls that need neither a cast nor an error; None means "take the plain path".

    Args:
        contract: What callers use.
        variant: Its bindings in the contract's order, as the session was opened with.
        session: The engine's.
    """

    def __init__(self, contract: Contract, variant: Variant, session: Session) -> None:
        self._session = session
        self._inputs = contract.inputs
        self._outputs = contract.outputs
        self._wanted = [(spec.name, DTYPES[spec.datatype]) for spec in contract.inputs]
        self._name, self._dtype = self._wanted[0]
        self._single = len(self._wanted) == 1
        self._usable = _needs_no_conversion(contract, variant)
        self._lock = threading.Lock()  # held to decide on new buffers, never to use them
        self._pools: dict[_Key, list[_Call]] = {}
        self._made: dict[_Key, int] = {}
        self._bytes = 0
        self._seen: set[_Key] = set()
        self.answer = self._answer_single if self._single else self._answer_several

    def learn(self, arrays: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Look at a call of the plain path and make buffers if its shapes come again.

        Args:
            arrays: Its inputs, checked, in the contract's order.
            outputs: What the model answered.

        Raises:
            EngineError: The engine failed.
        """
        every = [*arrays, *outputs]
        if not self._usable or any(array.dtype == object for array in every):
            return
        size_bytes = sum(array.nbytes for array in every)
        if size_bytes > MAX_BINDING_BYTES or any(array.size == 0 for array in every):
            return
        key = self._key(arrays)
        with self._lock:
            if not self._has_room(key) or self._bytes + size_bytes > MAX_BYTES:
                return
            self._made[key] = self._made.get(key, 0) + 1
            self._bytes += size_bytes
            pool = self._pools.setdefault(key, [])
        call = self._bind(arrays, outputs)
        if call is None:
            self._give_up(key)
        else:
            pool.append(call)

    def close(self) -> None:
        """Drop all buffers."""
        self._usable = False
        self._pools.clear()

    def _answer_single(self, inputs: dict[str, object]) -> dict[str, Array] | None:
        array = inputs.get(self._name)
        # numpy gives every array of a native dtype the same dtype object.
        if type(array) is not np.ndarray or array.dtype is not self._dtype or len(inputs) != 1:
            return None
        key = array.shape
        pool = self._pools.get(key)
        return self._run(pool, key, array) if pool else None

    def _answer_several(self, inputs: dict[str, object]) -> dict[str, Array] | None:
        if len(inputs) != len(self._wanted):
            return None
        arrays: list[Array] = []
        for name, dtype in self._wanted:
            array = inputs.get(name)
            if type(array) is not np.ndarray or array.dtype is not dtype:
                return None
            arrays.append(array)
        key = self._key(arrays)
        pool = self._pools.get(key)
        return self._run(pool, key, arrays) if pool else None

    def _run(self, pool: list[_Call], key: _Key, given: _Given) -> dict[str, Array] | None:
        try:
            call = pool.pop()
        except IndexError:  # another thread was faster
            return None
        try:
            outputs = call(given)
        except InputError:
            pool.append(call)
            raise
        except _BindingFailedError:
            self._give_up(key)
            return None
        pool.append(call)
        return outputs

    def _key(self, arrays: Sequence[Array]) -> _Key:
        return arrays[0].shape if self._single else tuple([array.shape for array in arrays])

    def _has_room(self, key: _Key) -> bool:
        if key in self._made:
            return self._made[key] < MAX_BINDINGS_PER_SHAPE
        if key not in self._seen:
            if len(self._seen) < _MAX_SEEN_SHAPES:
                self._seen.add(key)
            return False
        return len(self._made) < MAX_SHAPES

    def _give_up(self, key: _Key) -> None:
        with self._lock:
            self._made[key] = MAX_BINDINGS_PER_SHAPE
            self._pools[key] = []

    def _bind(self, arrays: Sequence[Array], outputs: Sequence[Array]) -> _Call | None:
        # The file's own output shapes may differ from the contract's: (N, 1) for (N,).
        raw = self._session.run(arrays)
        if any(
            array.dtype != output.dtype or array.size != output.size
            for array, output in zip(raw, outputs, strict=True)
        ):
            return None
        binding = self._session.bind(arrays, raw)
        if binding is None:
            return None
        shapes = [
            (spec.name, output.shape) for spec, output in zip(self._outputs, outputs, strict=True)
        ]
        call = (_call_single if self._single else _call_several)(binding, self._inputs, shapes)
        try:
            answers = call(arrays[0] if self._single else arrays)
        except _BindingFailedError:
            return None
        # A model that gives other bits for the same input cannot be checked: it stays plain.
        same = all(
            answers[spec.name].tobytes() == output.tobytes()
            for spec, output in zip(self._outputs, outputs, strict=True)
        )
        return call if same else None


class _BindingFailedError(Exception):
    """The engine refused to run on the buffers; the plain path finds out whether it is real.

    Never leaves this module.
    """


def _call_single(
    binding: Binding, specs: Sequence[TensorSpec], outputs: Sequence[tuple[str, _Shape]]
) -> _Call:
    """Make the function that writes the only input, runs, and copies the outputs.

    It is `_call_several` without its loop: the loop costs a tenth of a small model's time.
    """
    (buffer, flat, dot, spec) = _writes(binding, specs)[0]
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
            raise _BindingFailedError from exc
        answer = {}  # a comprehension would be one call more
        for name, copy in reads:
            answer[name] = copy()
        return answer

    return call


def _call_several(
    binding: Binding, specs: Sequence[TensorSpec], outputs: Sequence[tuple[str, _Shape]]
) -> _Call:
    """Make the function that writes the inputs, runs, and copies the outputs."""
    writes = _writes(binding, specs)
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
            raise _BindingFailedError from exc
        return {name: copy() for name, copy in reads}

    return call


def _writes(
    binding: Binding, specs: Sequence[TensorSpec]
) -> list[tuple[Array, Array, Callable[[Array], float] | None, TensorSpec]]:
    """For each input: its buffer, the buffer flat, and the function for a sum of squares.

    A finite sum of squares has finite terms only, and takes a fifth of the time of `isfinite`.
    Where it is not finite one must look closely: it may have overflowed, or NaN be allowed.
    """
    found = []
    for spec, buffer in zip(specs, binding.inputs, strict=True):
        flat = buffer.reshape(-1)
        dot: Callable[[Array], float] | None = flat.dot if buffer.dtype.kind == "f" else None
        found.append((buffer, flat, dot, spec))
    return found


def _reads(
    binding: Binding, outputs: Sequence[tuple[str, _Shape]]
) -> list[tuple[str, Callable[[], Array]]]:
    return [
        (name, buffer.reshape(shape).copy)
        for (name, shape), buffer in zip(outputs, binding.outputs, strict=True)
    ]


def _needs_no_conversion(contract: Contract, variant: Variant) -> bool:
    pairs = [
        *zip(contract.inputs, variant.inputs, strict=True),
        *zip(contract.outputs, variant.outputs, strict=True),
    ]
    return all(
        binding.scale is None and binding.batch is None and binding.dtype is spec.datatype
        for spec, binding in pairs
    )
