"""Static int8: QuantizeLinear and DequantizeLinear around what is to run with 8 bits."""

from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgepack.converter.onnx_graph import QUANTIZABLE
from edgepack.converter.onnx_quantizer.layers import (
    PASSING,
    activations_of,
    before_activations,
    chosen_layers,
    passing_nodes,
)
from edgepack.converter.onnx_quantizer.quiet import quiet
from edgepack.converter.onnx_quantizer.ranges import Ranges
from edgepack.converter.tools.tool import Quantization

_SELF_QUANTIZED: Final = ("Conv", "ConvTranspose", "Gemm")
_TYPES: Final = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}


def calibrated_tensors(model: ModelProto) -> list[str]:
    """Names of the activations whose ranges are needed, whatever is kept in float."""
    layers = chosen_layers(model, ())
    before = before_activations(model)
    found = activations_of(model, [*layers, *passing_nodes(model, layers, ())])
    return [name for name in found if name not in before]


def quantize_static(model: ModelProto, ranges: Ranges, wish: Quantization) -> ModelProto:
    """The model with QDQ pairs and 8-bit weights; `model` is not changed.

    Args:
        model: As `prepare` gives it.
        ranges: Of the tensors that `calibrated_tensors` names.
        wish: How.

    Raises:
        UnsupportedModelError: Nothing is left to quantize.
    """
    layers = chosen_layers(model, wish.keep_float)
    chosen = layers + passing_nodes(model, layers, wish.keep_float)
    copy = ModelProto()
    copy.CopyFrom(model)
    before = before_activations(model)
    known = {**ranges, **{name: ranges[after] for name, after in before.items() if after in ranges}}
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in known.items()
    }
    with quiet():
        quantizer = QDQQuantizer(
            copy,
            wish.per_channel,
            wish.reduce_range,
            _TYPES[wish.weight],
            _TYPES[wish.activation],
            TensorsData(CalibrationMethod.MinMax, data),
            chosen,
            [],
            [*QUANTIZABLE, *PASSING],
            # the kernels take one zero point for all channels
            {"WeightSymmetric": wish.weight == "s8" or wish.per_channel},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantized: ModelProto = quantizer.model.model
    _give_floats(quantized, set(chosen), set(before.values()))
    _guard_floats(quantized)
    return quantized


def _guard_floats(model: ModelProto) -> None:
    """Keep in float what is meant to stay, in place.

    From 1.20 on, onnxruntime quantizes the weights of a float layer between 8-bit tensors by
    itself. It does not look through a sum of one tensor.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    floats = {item.name for item in graph.initializer if item.data_type == TensorProto.FLOAT}
    nodes: list[NodeProto] = []
    for node in graph.node:
        before = makers.get(node.input[0]) if node.input else None
        widened = before is not None and before.op_type == "DequantizeLinear"
        if widened and node.op_type in _SELF_QUANTIZED and node.input[1] in floats:
            guarded = f"{node.name}_guarded"
            nodes.append(helper.make_node("Sum", [node.input[0]], [guarded]))
            node.input[0] = guarded
        nodes.append(node)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _give_floats(model: ModelProto, quantized: set[str], clipped: set[str]) -> None:
    """Take back the QDQ pair behind a matrix product that only floats follow, in place.

    The engine has kernels for 8-bit products with float answers: logits and regressions keep
    their resolution, and the model has two operators less. The pairs of tensors in `clipped` stay:
    the quantizer drops the Relu that gave them, and their range does its work.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {item.name for item in graph.output}
    for pair in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        quantize = makers.get(pair.input[0])
        layer = None if quantize is None else makers.get(quantize.input[0])
        if quantize is None or layer is None or layer.op_type not in ("Gemm", "MatMul"):
            continue
        if quantize.input[0] in clipped:
            continue
        lonely = len(readers[quantize.input[0]]) == 1 == len(readers[pair.input[0]])
        shown = quantize.input[0] in outputs or pair.input[0] in outputs
        if not lonely or shown or any(n.name in quantized for n in readers.get(pair.output[0], [])):
            continue
        layer.output[0] = pair.output[0]
        graph.node.remove(quantize)
        graph.node.remove(pair)
