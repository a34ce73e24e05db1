"""An ONNX graph as the quantizers want it: folded, fused, typed, every node with a name.

The names are what `rank-onnx` gives and what `Quantization.keep_float` takes: the same file always
gets the same names.
"""

import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper, shape_inference, version_converter

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.onnx_graph import clean

_ERROR_SEVERITY = 4
_LEAST_OPSET = 13  # DequantizeLinear with one scale for each channel


def prepare(data: bytes) -> ModelProto:
    """Fold constants and batch normalization into the weights, and infer the tensors' types.

    onnxruntime's basic optimizations are used: they are exact up to the rounding of folded
    weights, and the same on every processor.

    Raises:
        UnsupportedModelError: onnxruntime or onnx cannot take the model.
    """
    try:
        model = clean(onnx.load_model_from_string(_optimized(data)))
        version = next(item.version for item in model.opset_import if not item.domain)
        if version < _LEAST_OPSET:
            model = version_converter.convert_version(model, _LEAST_OPSET)
        _flatten_biases(model)
        model = _typed(model)
    except Exception as exc:
        raise UnsupportedModelError(f"the model cannot be prepared: {one_line(exc)}") from exc
    _name_nodes(model)
    return model


def run_session(data: bytes) -> onnxruntime.InferenceSession:
    """A session that computes as the file says, without optimizations and without logging."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _ERROR_SEVERITY
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def optimized_by(data: bytes, level: onnxruntime.GraphOptimizationLevel) -> ModelProto:
    """The model after onnxruntime's own optimizations for this processor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(path)
        options.log_severity_level = _ERROR_SEVERITY
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _optimized(data: bytes) -> bytes:
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    optimized: bytes = optimized_by(data, level).SerializeToString()
    return optimized


def _typed(model: ModelProto) -> ModelProto:
    """With value_info for every tensor whose type can be told."""
    del model.graph.value_info[:]
    try:
        return shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001  (a graph that it cannot infer still runs)
        return model


def _flatten_biases(model: ModelProto) -> None:
    """Give a Gemm whose bias is one row (1, N) the same as (N,), in place.

    scikit-learn's networks have such rows, and onnxruntime's quantizer fails on one with a scale
    for each channel.
    """
    constants = {item.name: item for item in model.graph.initializer}
    taken = set(constants) | {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Gemm" and node.input[2:] else None
        if bias is None or len(bias.dims) != 2 or bias.dims[0] != 1:
            continue
        name = f"{bias.name}_flat"
        while name in taken and name not in constants:
            name += "_"
        if name not in constants:
            flat = model.graph.initializer.add()
            flat.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).reshape(-1), name))
            constants[name] = flat
        node.input[2] = name


def _name_nodes(model: ModelProto) -> None:
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        name = node.name or f"{node.op_type}_{index}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)
