"""A frozen graph as ONNX (tf2onnx) and as TFLite (TensorFlow's own converter)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import tensorflow as tf
import tf2onnx
from onnx import ModelProto

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.onnx_constants import settle_constants
from edgepack.converter.tensor_model import TfliteFile
from edgepack.converter.tensorflow_model.erfc import without_erfc
from edgepack.converter.tensorflow_model.one_row import with_one_row

_OPSET: Final = 17
_MISSING: Final = re.compile(r"(?:TF Select ops|Flex ops|Custom ops): ([^\n]*)")
_UNSUPPORTED: Final = re.compile(r"Tensorflow op \[[^:\]]*: (\w+)\] is not supported")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output.

    Attributes:
        name: In the signature, and the contract's.
        tensor: In the graph.
        shape: Rows first; None where any number goes, for the rows alone.
        dtype: TensorFlow's.
    """

    name: str
    tensor: str
    shape: tuple[int | None, ...]
    dtype: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenGraph:
    """A graph without variables.

    Attributes:
        graph: As a protobuf.
        inputs, outputs: Of its signature.
    """

    graph: Any = field(repr=False)
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]


def to_onnx(frozen: FrozenGraph) -> ModelProto:
    """Convert to ONNX, under the signature's names.

    Raises:
        UnsupportedModelError: tf2onnx does not take it.
    """
    tensors = (*frozen.inputs, *frozen.outputs)
    try:
        model, _ = tf2onnx.convert.from_graph_def(
            without_erfc(frozen.graph),
            input_names=[item.tensor for item in frozen.inputs],
            output_names=[item.tensor for item in frozen.outputs],
            opset=_OPSET,
            shape_override={item.tensor: list(item.shape) for item in frozen.inputs},
            tensors_to_rename={item.tensor: item.name for item in tensors},
        )
    except Exception as exc:
        found = sorted(set(_UNSUPPORTED.findall(str(exc))))
        reason = f"it has no {', '.join(found[:5])}" if found else one_line(exc)
        raise UnsupportedModelError(f"tf2onnx cannot convert the graph: {reason}") from exc
    converted: ModelProto = model
    return settle_constants(converted)


def to_tflite(frozen: FrozenGraph) -> TfliteFile:
    """Convert to TFLite's own operators, one row at a time.

    Raises:
        UnsupportedModelError: TensorFlow's converter does not take it.
    """
    graph = tf.Graph()
    with graph.as_default():
        given = [
            tf.compat.v1.placeholder(item.dtype, [1, *item.shape[1:]], name=f"input_{index}")
            for index, item in enumerate(frozen.inputs)
        ]
        names = [item.tensor for item in frozen.inputs]
        answers = tf.import_graph_def(
            with_one_row(frozen.graph),
            input_map=dict(zip(names, given, strict=True)),
            return_elements=[item.tensor for item in frozen.outputs],
            name="model",
        )
        answers = [tf.identity(item, name=f"output_{i}") for i, item in enumerate(answers)]
        with tf.compat.v1.Session(graph=graph) as session:
            converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, given, answers)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            try:
                data = bytes(converter.convert())
            except Exception as exc:
                raise UnsupportedModelError(_refusal(exc)) from exc
    return TfliteFile(
        data=data,
        inputs=tuple(f"input_{index}" for index in range(len(given))),
        outputs=tuple(f"output_{index}" for index in range(len(answers))),
    )


def _refusal(exc: Exception) -> str:
    found = [" ".join(text.split()) for text in _MISSING.findall(str(exc))]
    if found:
        return (
            f"TFLite has no {', '.join(found)[:160]}: the file would need TensorFlow on the device"
        )
    return f"TensorFlow cannot convert it to TFLite: {one_line(exc)}"
