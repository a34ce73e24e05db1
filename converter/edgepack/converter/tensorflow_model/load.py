"""From a SavedModel folder to a model with its exports."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.onnx_fuse import fused
from edgepack.converter.sources.source import LoadOptions
from edgepack.converter.tensor_model import TensorModel
from edgepack.converter.tensor_shapes import OpenShape, close_shapes
from edgepack.converter.tensorflow_model.exports import FrozenGraph, Tensor, to_onnx, to_tflite
from edgepack.converter.tensorflow_model.running import RunningGraph
from edgepack.converter.tensorflow_model.saved import SavedGraph, read_saved_model

_FRAMEWORK = "TensorFlow"
_PACKAGE = "tensorflow"


def load_model(path: Path, options: LoadOptions) -> TensorModel:
    """Load a SavedModel and export it to ONNX.

    Raises:
        ModelFileError: The folder is damaged.
        UnsafeModelError: Its graph reaches outside the model.
        RequestError: The shapes that were given do not do.
        UnfitDataError: The data does not tell the inputs' shapes.
        UnsupportedModelError: It has no signature, takes text, or has no ONNX form.
    """
    saved = read_saved_model(path)
    inputs = _closed(_tensors(saved.inputs, "input"), options)
    outputs = _tensors(saved.outputs, "output")
    running = RunningGraph(path, saved)
    frozen = FrozenGraph(graph=running.frozen(), inputs=inputs, outputs=outputs)
    rows = inputs[0].shape[0]
    return TensorModel(
        framework=_FRAMEWORK,
        description=_described(saved, frozen),
        packages={_PACKAGE: tf.__version__, "tf2onnx": version("tf2onnx")},
        onnx=fused(to_onnx(frozen)),
        call=running.answer,
        to_tflite=(lambda: to_tflite(frozen)) if rows in (None, 1) else None,
    )


def _tensors(described: dict[str, Any], kind: str) -> list[Tensor]:
    found = []
    for key, item in described.items():
        dtype = tf.dtypes.as_dtype(item.dtype)
        if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
            raise UnsupportedModelError(
                f"{kind} {key!r} must be numbers, got {dtype.name} (a signature that takes "
                "serialized examples or text cannot be converted)"
            )
        if item.tensor_shape.unknown_rank and kind == "input":
            raise UnsupportedModelError(f"input {key!r} must have a known number of dimensions")
        shape = tuple(size.size if size.size >= 0 else None for size in item.tensor_shape.dim)
        if kind == "input" and not shape:
            raise UnsupportedModelError(f"input {key!r} must have rows, got a single value")
        found.append(Tensor(name=key, tensor=item.name, shape=shape, dtype=dtype))
    return found


def _closed(inputs: list[Tensor], options: LoadOptions) -> list[Tensor]:
    """Inputs of which only the number of rows is open."""
    opened = [OpenShape(name=item.name, shape=item.shape) for item in inputs]
    if len({item.shape[0] for item in inputs}) > 1:
        raise UnsupportedModelError("the signature's inputs must have the same number of rows")
    return [
        Tensor(
            name=item.name,
            tensor=item.tensor,
            shape=(item.shape[0], *shape),
            dtype=item.dtype,
        )
        for item, shape in zip(inputs, close_shapes(opened, options), strict=True)
    ]


def _described(saved: SavedGraph, frozen: FrozenGraph) -> str:
    weights = sum(
        int(np.prod([size.size for size in node.attr["value"].tensor.tensor_shape.dim]))
        for node in frozen.graph.node
        if node.op == "Const" and tf.dtypes.as_dtype(node.attr["value"].tensor.dtype).is_floating
    )
    return (
        f"SavedModel written by TensorFlow {saved.version}, signature {saved.signature}, "
        f"{weights:,} weights"
    )
