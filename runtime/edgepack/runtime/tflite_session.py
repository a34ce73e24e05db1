"""TFLite interpreters, LiteRT's and tflite-runtime's, behind the engine Protocol's Session.

An interpreter serves one caller at a time and keeps the shape of its last call. A session has
one for each caller at the same moment, up to the number of processors: they share the file's
bytes, and a waiting caller costs less memory than one more interpreter, which packs the weights
again (0.3 MB for a model of 50 kB, 1.5 MB for one of 0.9 MB). Giving one another shape costs
5 to 20 µs, making one 0.5 to 2 ms, so they are not kept by shape. Buffers are not bound: copying
in and out costs about a microsecond either way.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from edgepack.bundle.contract import TensorBinding, Variant
from edgepack.runtime.engine import Binding
from edgepack.runtime.errors import EngineError, UnsupportedModelError, one_line
from edgepack.runtime.stderr_filter import without_line
from edgepack.runtime.tensors import DTYPES, Array, datatype_of

Interpreter: TypeAlias = Any
MakeInterpreter: TypeAlias = Callable[[], Interpreter]

FAILURES: Final = (RuntimeError, ValueError, TypeError)
_WAIT_S: Final = 0.0005
_LONGEST_WAIT_S: Final = 60.0
_ANNOUNCEMENT: Final = b"Created TensorFlow Lite XNNPACK delegate"
_MISSING_OPERATOR: Final = ("Didn't find op", "Encountered unresolved custom op", "not supported")


class TfliteSession:
    """Interpreters of one file; several threads may run it at once."""

    def __init__(self, make: MakeInterpreter, variant: Variant) -> None:
        """Open the first interpreter.

        Raises:
            UnsupportedModelError: The file does not have what the variant binds.
            EngineError: The engine does not load the file.
        """
        self._make = make
        self._variant = variant
        self._closed = False
        first = self._open()  # what is wrong with the file is found here
        # Lists of which single items are taken and put back: atomic, also for a signal handler.
        self._idle = [first]
        self._unborn = [None] * (max(2, len(_processors())) - 1)

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Run once: see `Session`."""
        runner = self._take()
        try:
            outputs = runner.run(feeds)
        except FAILURES as exc:
            self._unborn.append(None)  # it may be left half resized: the next caller gets another
            raise EngineError(f"variant {self._variant.name!r} failed: {one_line(exc)}") from exc
        except EngineError:
            self._idle.append(runner)
            raise
        self._idle.append(runner)
        return outputs

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Binding | None:
        """There are no buffers to bind: see `Session`."""
        return None

    def close(self) -> None:
        """Let the interpreters go; those that run end first."""
        self._closed = True
        self._idle.clear()

    def _open(self) -> "_Runner":
        return _Runner(self._make, self._variant)

    def _take(self) -> "_Runner":
        deadline = None
        while not self._closed:
            try:
                return self._idle.pop()
            except IndexError:
                pass
            try:
                self._unborn.pop()
            except IndexError:
                deadline = deadline or time.monotonic() + _LONGEST_WAIT_S
                if time.monotonic() > deadline:
                    raise EngineError(
                        f"variant {self._variant.name!r} was busy for {_LONGEST_WAIT_S:g} s"
                    ) from None
                time.sleep(_WAIT_S)
            else:
                return self._open()
        raise EngineError(f"variant {self._variant.name!r} is closed")


class _Runner:
    """One interpreter, and the shapes that it is ready for."""

    def __init__(self, make: MakeInterpreter, variant: Variant) -> None:
        path = variant.files[0]
        try:
            with without_line(_ANNOUNCEMENT):
                self._interpreter = make()
                self._interpreter.allocate_tensors()
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
        except FAILURES as exc:
            text = one_line(exc)
            kind = EngineError
            if any(words in text for words in _MISSING_OPERATOR):
                kind = UnsupportedModelError
            raise kind(f"{variant.engine.engine} cannot load {path}: {text}") from exc
        self._inputs = _bound(inputs, variant.inputs, f"{path}: input")
        unfed = {item["name"] for item in inputs} - {item.tensor for item in variant.inputs}
        if unfed:
            raise UnsupportedModelError(f"{path}: nothing is bound to input {min(unfed)!r}")
        self._outputs = [
            item["index"] for item in _bound(outputs, variant.outputs, f"{path}: output")
        ]
        self._places = [item["index"] for item in self._inputs]
        self._shapes = [tuple(item["shape"].tolist()) for item in self._inputs]

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Run once.

        Raises:
            EngineError: A feed has not the shape that the file fixes.
            RuntimeError, ValueError, TypeError: The engine failed.
        """
        interpreter = self._interpreter
        shapes = [feed.shape for feed in feeds]
        if shapes != self._shapes:
            self._resize(shapes)
        for place, feed in zip(self._places, feeds, strict=True):
            interpreter.set_tensor(place, feed)
        interpreter.invoke()
        return [interpreter.get_tensor(place) for place in self._outputs]

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        for item, shape in zip(self._inputs, shapes, strict=True):
            _check_shape(item, shape)
        self._shapes = []  # until it is done
        for place, shape in zip(self._places, shapes, strict=True):
            self._interpreter.resize_tensor_input(place, shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def _check_shape(item: dict[str, Any], shape: tuple[int, ...]) -> None:
    # The interpreter would take any shape and read its weights wrongly. The first size is the
    # batch, which old files fix without meaning it.
    fixed = item["shape_signature"].tolist() or item["shape"].tolist()
    right = len(shape) == len(fixed) and all(
        size in (-1, got) for got, size in zip(shape[1:], fixed[1:], strict=True)
    )
    if not right:
        raise EngineError(f"tensor {item['name']!r} must have shape {fixed}, got {list(shape)}")


def _bound(
    details: Sequence[dict[str, Any]], bindings: Sequence[TensorBinding], where: str
) -> list[dict[str, Any]]:
    found = []
    for binding in bindings:
        named = [item for item in details if item["name"] == binding.tensor]
        if len(named) != 1:
            names = ", ".join(sorted(item["name"] for item in details))[:200]
            raise UnsupportedModelError(
                f"{where} must be one of {names}, got {binding.tensor!r}"
                + (" (which is there twice)" if named else "")
            )
        dtype = np.dtype(named[0]["dtype"])
        if dtype.kind in "OSU":
            raise UnsupportedModelError(f"{where} {binding.tensor!r} must be of numbers, got text")
        if dtype != DTYPES[binding.dtype]:
            got = datatype_of(np.empty(0, dtype)) or dtype
            raise UnsupportedModelError(
                f"{where} {binding.tensor!r} must be {binding.dtype}, got {got}"
            )
        found.append(named[0])
    return found


def _processors() -> Sequence[int] | set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)
