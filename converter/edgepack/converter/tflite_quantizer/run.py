"""Runs a TFLite file on rows, in LiteRT, as devices do."""

import contextlib
from collections.abc import Mapping

import numpy as np

from edgepack.bundle.contract import (
    EngineRequirements,
    Parity,
    TensorBinding,
    Variant,
)
from edgepack.converter.errors import UnfitDataError, UnsupportedModelError
from edgepack.converter.tflite_graph import TfliteTensor, tensors_of
from edgepack.runtime.engine import Session
from edgepack.runtime.engines import engine_named
from edgepack.runtime.errors import EngineError
from edgepack.runtime.options import SessionOptions
from edgepack.runtime.tensors import Array

_PATH = "model.tflite"


class TfliteRunner:
    """A file, loaded; rows go in by tensor name, and come out by tensor name."""

    def __init__(self, data: bytes) -> None:
        """Load a file.

        Raises:
            ModelFileError: It is damaged.
            UnsupportedModelError: LiteRT does not load it.
        """
        self.inputs, self.outputs = tensors_of(data)
        variant = Variant(
            name="tflite",
            files=(_PATH,),
            precision="fp32",
            size_bytes=len(data),
            engine=EngineRequirements(engine="litert"),
            inputs=tuple(map(_binding, self.inputs)),
            outputs=tuple(map(_binding, self.outputs)),
            parity=Parity(rows=0, metric="none", value=0.0, bound=0.0),
        )
        batches = {tensor.batch for tensor in self.inputs}
        if len(batches) != 1:
            raise UnsupportedModelError(
                "every input of the TFLite file must have the same batch, got "
                + ", ".join(str(list(tensor.shape)) for tensor in self.inputs)
            )
        self.batch = batches.pop()
        try:
            self._session: Session = engine_named("litert").open(
                {_PATH: data}, variant, SessionOptions()
            )
        except EngineError as exc:
            raise UnsupportedModelError(str(exc)) from exc

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Answer for rows, in the order of the file's outputs.

        Raises:
            UnfitDataError: LiteRT refuses the rows, or gives another number of them.
        """
        rows = min(len(array) for array in feeds.values())
        size = self.batch or rows
        parts: list[list[Array]] = []
        for begin in range(0, rows, size):
            taken = min(size, rows - begin)
            chunk = [_filled(feeds[item.name][begin : begin + size], size) for item in self.inputs]
            try:
                found = self._session.run([np.ascontiguousarray(array) for array in chunk])
            except EngineError as exc:
                raise UnfitDataError(f"the model refuses the data: {exc}") from exc
            for item, array in zip(self.outputs, found, strict=True):
                if array.shape[:1] != (size,):
                    raise UnsupportedModelError(
                        f"output {item.name!r} must have a row for each of {size} rows, "
                        f"got shape {list(array.shape)}"
                    )
            parts.append([array[:taken] for array in found])
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def close(self) -> None:
        """Free the engine's memory."""
        self._session.close()


def answers(data: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    """A file's outputs for rows, in its order: see `TfliteRunner`."""
    with contextlib.closing(TfliteRunner(data)) as runner:
        return runner.run(feeds)


def _binding(tensor: TfliteTensor) -> TensorBinding:
    return TensorBinding(name=tensor.name, tensor=tensor.name, dtype=tensor.datatype)


def _filled(rows: Array, size: int) -> Array:
    missing = size - len(rows)
    return rows if missing <= 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
