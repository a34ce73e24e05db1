"""Constant arithmetic and transpositions that exporters leave between layers, taken into them.

A framework whose images are (rows, height, width, channels) exports each convolution between two
transpositions, and its normalization as arithmetic. onnxruntime would merge all that each time it
loads the file; quantization sees the file as it is, and needs it merged.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, numpy_helper

from edgepack.runtime.tensors import Array

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
    _compute_before_transposing(prepared)
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


def _compute_before_transposing(model: ModelProto) -> None:
    """T(x) + c as T(x + c'): so that the constant comes next to the convolution behind T."""
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(item.name for item in graph.output)
    transposed: dict[str, NodeProto] = {}
    for index, node in enumerate(graph.node):
        if node.op_type == "Transpose" and not node.domain:
            transposed[node.output[0]] = node
            continue
        if node.op_type not in ("Add", "Mul") or node.domain:
            continue
        sides = [name for name in node.input if name in transposed and readers[name] == 1]
        given = [name for name in node.input if name in constants]
        if len(sides) != 1 or len(given) != 1:
            continue
        before = transposed.pop(sides[0])
        moved = _as_before(numpy_helper.to_array(constants[given[0]]), before)
        if moved is None:
            continue
        name = f"before_{index}_{given[0]}"
        graph.initializer.append(numpy_helper.from_array(moved, name))
        # The two change places: the earlier node computes, the later one transposes.
        source, between, result = before.input[0], before.output[0], node.output[0]
        later = NodeProto()
        later.CopyFrom(before)
        later.input[0], later.output[0] = between, result
        before.CopyFrom(node)
        del before.input[:]
        before.input.extend([source, name])
        before.output[0] = between
        node.CopyFrom(later)
        transposed[result] = node


def _as_before(constant: Array, transpose: NodeProto) -> Array | None:
    """A constant for the axes that a transposition takes; None if it has more axes."""
    order = next((list(item.ints) for item in transpose.attribute if item.name == "perm"), None)
    if order is None or constant.ndim > len(order) or constant.dtype.kind != "f":
        return None
    whole = constant.reshape((1,) * (len(order) - constant.ndim) + constant.shape)
    return np.ascontiguousarray(whole.transpose(np.argsort(order)))
