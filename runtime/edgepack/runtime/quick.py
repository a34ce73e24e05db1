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
from typing import Final, TypeAlias

import numpy as np

from edgepack.bundle.contract import Contract, TensorSpec, Variant
from edgepack.runtime.engine import Binding, Session
from edgepack.runtime.errors import InputError
from edgepack.runtime.inputs import check_finite
from edgepack.runtime.tensors import DTYPES, Array

MAX_SHAPES: Final = 8
MAX_BINDINGS_PER_SHAPE: Final = 16
MAX_BINDING_BYTES: Final = 1 << 16  # beyond it copying in costs more than binding saves
_MAX_SEEN_SHAPES: Final = 256

_Key: TypeAlias = tuple[tuple[int, ...], ...]
_Call: TypeAlias = Callable[[Sequence[Array]], dict[str, Array]]


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
        self._names = tuple(spec.name for spec in contract.inputs)
        self._dtypes = tuple(DTYPES[spec.datatype] for spec in contract.inputs)
        self._usable = _needs_no_conversion(contract, variant)
        self._lock = threading.Lock()  # held to make a set of buffers, never to use one
        self._pools: dict[_Key, list[_Call]] = {}
        self._made: dict[_Key, int] = {}
        self._seen: set[_Key] = set()

    def answer(self, inputs: dict[str, object]) -> dict[str, Array] | None:
        """Answer if buffers for these shapes are free.

        Raises:
            InputError: A value is not finite.
        """
        if len(inputs) != len(self._names):
            return None
        arrays = []
        for name, dtype in zip(self._names, self._dtypes, strict=True):
            array = inputs.get(name)
            # numpy gives every array of a native dtype the same dtype object.
            if type(array) is not np.ndarray or array.dtype is not dtype:
                return None
            arrays.append(array)
        key = tuple([array.shape for array in arrays])
        pool = self._pools.get(key)
        if not pool:
            return None
        try:
            call = pool.pop()
        except IndexError:  # another thread was faster
            return None
        try:
            outputs = call(arrays)
        except InputError:
            pool.append(call)
            raise
        except _BindingFailed:
            self._give_up(key)
            return None
        pool.append(call)
        return outputs

    def learn(self, arrays: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Look at a call of the plain path and make buffers if its shapes come again.

        Args:
            arrays: Its inputs, checked, in the contract's order.
            outputs: What the model answered.

        Raises:
            EngineError: The engine failed.
        """
        if not self._usable or not _worth_binding(arrays, outputs):
            return
        key = tuple([array.shape for array in arrays])
        with self._lock:
            if not self._room(key):
                return
            self._made[key] = self._made.get(key, 0) + 1
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

    def _room(self, key: _Key) -> bool:
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
        # The session is asked for the shapes that its own run gave; the contract's may differ.
        raw = self._session.run(arrays)
        if any(not _same_kind(*pair) for pair in zip(raw, outputs, strict=True)):
            return None
        binding = self._session.bind(arrays, raw)
        if binding is None:
            return None
        shapes = [(spec.name, out.shape) for spec, out in zip(self._outputs, outputs, strict=True)]
        call = _call(binding, self._inputs, shapes)
        try:
            answers = call(arrays)
        except _BindingFailed:
            return None
        # A model that gives other bits for the same input must not be judged: it stays plain.
        same = all(
            answer.tobytes() == output.tobytes()
            for answer, output in zip(answers.values(), outputs, strict=True)
        )
        return call if same else None


class _BindingFailed(Exception):  # noqa: N818  (never leaves this module)
    """The engine refused to run on the buffers; the plain path finds out whether it is real."""


def _call(
    binding: Binding, specs: Sequence[TensorSpec], outputs: Sequence[tuple[str, tuple[int, ...]]]
) -> _Call:
    """Make the function that writes the buffers, runs, and copies the outputs."""
    writes = []
    for spec, buffer in zip(specs, binding.inputs, strict=True):
        flat = buffer.reshape(-1)
        dot = flat.dot if buffer.dtype.kind == "f" else None
        writes.append((buffer, flat, dot, spec))
    reads = [
        (name, buffer.reshape(shape))
        for (name, shape), buffer in zip(outputs, binding.outputs, strict=True)
    ]
    run = binding.run
    failures = binding.failures
    isfinite = math.isfinite

    def call(arrays: Sequence[Array]) -> dict[str, Array]:
        for array, (buffer, flat, dot, spec) in zip(arrays, writes, strict=True):
            buffer[...] = array
            # A finite sum of squares has finite terms. Otherwise look closely: the sum may have
            # overflowed, and NaN may be allowed.
            if dot is not None and not isfinite(dot(flat)):
                check_finite(buffer, spec)
        try:
            run()
        except failures as exc:
            raise _BindingFailed from exc
        return {name: view.copy() for name, view in reads}

    return call


def _needs_no_conversion(contract: Contract, variant: Variant) -> bool:
    pairs = [
        *zip(contract.inputs, variant.inputs, strict=True),
        *zip(contract.outputs, variant.outputs, strict=True),
    ]
    return all(
        binding.scale is None and binding.batch is None and binding.dtype is spec.datatype
        for spec, binding in pairs
    )


def _worth_binding(arrays: Sequence[Array], outputs: Sequence[Array]) -> bool:
    every = [*arrays, *outputs]
    if any(array.dtype == object or array.size == 0 for array in every):
        return False
    return sum(array.nbytes for array in every) <= MAX_BINDING_BYTES


def _same_kind(raw: Array, output: Array) -> bool:
    return raw.dtype == output.dtype and raw.size == output.size
