"""Constant arithmetic and transpositions that exporters leave between layers, taken into them.

A framework whose images are (rows, height, width, channels) exports each convolution between two
transpositions, and its normalization as arithmetic. onnxruntime would merge all that each time it
loads the file; quantization sees the file as it is, and needs it merged.
"""

import tempfile
from pathlib import Path
from typing import Final

import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper

_ERROR_SEVERITY: Final = 3
_STANDARD: Final = ("", "ai.onnx", "ai.onnx.ml")


def fused(model: ModelProto) -> ModelProto:
    """The model as onnxruntime's basic optimization leaves it, in ONNX's own operators.

    Args:
        model: With all weights inside; it is not changed.

    Returns:
        The merged model; the given one where onnxruntime cannot.
    """
    prepared = ModelProto()
    prepared.CopyFrom(model)
    _subtract_by_adding(prepared)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR_SEVERITY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(
                prepared.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            found = onnx.load_model(path)
        except Exception:  # noqa: BLE001  (only an optimization: the model itself is as good)
            return model
    if any(node.domain not in _STANDARD for node in found.graph.node):
        return model
    found.ir_version = model.ir_version
    found.producer_name, found.producer_version = model.producer_name, model.producer_version
    del found.graph.value_info[:]
    return found


def _subtract_by_adding(model: ModelProto) -> None:
    """X - c as x + (-c), which is the same number: onnxruntime merges additions only."""
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    for index, node in enumerate(graph.node):
        if node.op_type != "Sub" or node.domain or node.input[1] not in constants:
            continue
        value = numpy_helper.to_array(constants[node.input[1]])
        if value.dtype.kind != "f":
            continue
        name = f"negative_{index}_{node.input[1]}"
        graph.initializer.append(numpy_helper.from_array(-value, name))
        node.op_type = "Add"
        node.input[1] = name
