"""The fast path: calls of the shapes that come again, prepared once.

A bare `InferenceSession.run` spends a third of a small model's time on making its arguments.
Here the input is copied into a buffer that the engine already knows, and the outputs are copied
out, so that a later call never changes what a caller holds. Where buffers do not work (text,
which crashes onnxruntime when it is bound) or do not pay (large inputs), the session runs on the
caller's arrays, and only the checks that cannot fail any more are left out.

A set of buffers serves one caller at a time: it is taken from its shape's pool and put back (both
are atomic), so that a second thread, or a signal handler in the middle of a call, gets another
set or the plain path. One set shared by threads gives wrong answers.

The plain path takes everything else: the first call of a shape, dtypes or names that need a cast
or an error, and models whose outputs do not have the shape they had before.
"""

import threading
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from edgepack.bundle.contract import Contract, Variant
from edgepack.runtime.adapter import to_open
from edgepack.runtime.calls import (
    Answer,
    Call,
    CallFailedError,
    NotForThisCallError,
    Shape,
    bound_call,
    direct_call,
)
from edgepack.runtime.engine import Session
from edgepack.runtime.errors import EngineError, InputError
from edgepack.runtime.labels import labeller_of
from edgepack.runtime.tensors import DTYPES, Array

MAX_SHAPES: Final = 8
MAX_CALLS_PER_SHAPE: Final = 16
MAX_BINDING_BYTES: Final = 1 << 17  # at twice that, copying costs more than binding saves
MAX_BYTES: Final = 1 << 21  # of all bindings of a model
_MAX_SEEN_SHAPES: Final = 256

_Key: TypeAlias = Shape | tuple[Shape, ...]  # of the only input, or of each input


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
        self._batch = variant.inputs[0].batch
        tensors = [binding.tensor for binding in to_open(variant).outputs]
        self._makers = [
            (tensors.index(binding.tensor), labeller_of(spec, binding, contract.class_names))
            for spec, binding in zip(contract.outputs, variant.outputs, strict=True)
        ]
        self._lock = threading.Lock()  # held to decide on new calls, never to make them
        self._pools: dict[_Key, list[Call]] = {}
        self._made: dict[_Key, int] = {}
        self._bytes = 0
        self._seen: set[_Key] = set()
        self.answer = self._answer_single if self._single else self._answer_several

    def learn(
        self, arrays: Sequence[Array], outputs: Sequence[Array], raw: Sequence[Array]
    ) -> None:
        """Look at a call of the plain path, and prepare for its shapes if they come again.

        Args:
            arrays: Its inputs, checked, in the contract's order.
            outputs: What the model answered.
            raw: The session's own outputs, of which the answer was made.

        Raises:
            EngineError: The engine failed.
        """
        if not self._usable or any(array.size == 0 for array in (*arrays, *outputs)):
            return
        if self._batch is not None and any(len(array) != self._batch for array in arrays):
            return  # the plain path runs the file several times, or fills its batch up
        size_bytes = _binding_bytes([*arrays, *raw])
        key = self._key(arrays)
        with self._lock:
            if not self._has_room(key) or self._bytes + size_bytes > MAX_BYTES:
                return
            self._made[key] = self._made.get(key, 0) + 1
            self._bytes += size_bytes
            pool = self._pools.setdefault(key, [])
        call = self._bind(arrays, outputs, raw) if size_bytes else self._direct(outputs, raw)
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

    def _run(
        self, pool: list[Call], key: _Key, given: Array | Sequence[Array]
    ) -> dict[str, Array] | None:
        try:
            call = pool.pop()
        except IndexError:  # another thread was faster
            return None
        try:
            outputs = call(given)
        except (InputError, EngineError):
            pool.append(call)
            raise
        except NotForThisCallError:
            pool.append(call)
            return None
        except CallFailedError:
            self._give_up(key)
            return None
        pool.append(call)
        return outputs

    def _key(self, arrays: Sequence[Array]) -> _Key:
        return arrays[0].shape if self._single else tuple([array.shape for array in arrays])

    def _has_room(self, key: _Key) -> bool:
        if key in self._made:
            return self._made[key] < MAX_CALLS_PER_SHAPE
        if key not in self._seen:
            if len(self._seen) < _MAX_SEEN_SHAPES:
                self._seen.add(key)
            return False
        return len(self._made) < MAX_SHAPES

    def _give_up(self, key: _Key) -> None:
        with self._lock:
            self._made[key] = MAX_CALLS_PER_SHAPE
            self._pools[key] = []

    def _bind(
        self, arrays: Sequence[Array], outputs: Sequence[Array], raw: Sequence[Array]
    ) -> Call | None:
        binding = self._session.bind(arrays, raw)
        if binding is None:
            return self._direct(outputs, raw)
        call = bound_call(binding, self._inputs, self._answers(outputs), single=self._single)
        try:
            answers = call(arrays[0] if self._single else arrays)
        except CallFailedError:
            return None
        # A model that gives other bits for the same input cannot be checked: it stays plain.
        same = all(
            _same_bits(answers[spec.name], output)
            for spec, output in zip(self._outputs, outputs, strict=True)
        )
        return call if same else None

    def _direct(self, outputs: Sequence[Array], raw: Sequence[Array]) -> Call:
        return direct_call(
            self._session,
            self._inputs,
            self._answers(outputs),
            [array.shape for array in raw],
            single=self._single,
        )

    def _answers(self, outputs: Sequence[Array]) -> list[Answer]:
        # Shapes may differ from the session's: (N, 1) for (N,).
        return [
            Answer(name=spec.name, shape=output.shape, position=position, labeller=labeller)
            for spec, output, (position, labeller) in zip(
                self._outputs, outputs, self._makers, strict=True
            )
        ]


def _needs_no_conversion(contract: Contract, variant: Variant) -> bool:
    pairs = [
        *zip(contract.inputs, variant.inputs, strict=True),
        *zip(contract.outputs, variant.outputs, strict=True),
    ]
    return all(
        binding.derive is not None or (binding.scale is None and binding.dtype is spec.datatype)
        for spec, binding in pairs
    )


def _same_bits(one: Array, other: Array) -> bool:
    if one.dtype == object:  # text that is made of numbers in the buffers
        return bool(np.array_equal(one, other))
    return one.tobytes() == other.tobytes()


def _binding_bytes(arrays: Sequence[Array]) -> int:
    """Memory that buffers for these arrays take; 0 where they are not to be bound."""
    if any(array.dtype == object for array in arrays):
        return 0
    size_bytes = sum(array.nbytes for array in arrays)
    return size_bytes if size_bytes <= MAX_BINDING_BYTES else 0
