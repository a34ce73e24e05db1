"""What a ready ONNX file says of itself: its classes, and the precision that it has already."""

from typing import Final

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from edgepack.converter.onnx_graph import nodes_of

_ML: Final = "ai.onnx.ml"
_CLASS_LISTS: Final = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
_DYNAMIC: Final = ("DynamicQuantize", "MatMulInteger", "ConvInteger")
_STATIC: Final = ("QuantizeLinear", "QLinear", "QGemm")
_MATRIX: Final = 2


def class_names(model: ModelProto) -> tuple[str, ...]:
    """The classes in the order of the scores, as ZipMap or a classifier lists them; else empty."""
    nodes = nodes_of(model)
    lists = {_classes(node) for node in nodes if _classes(node)}
    named = {_classes(node) for node in nodes if node.op_type == "ZipMap"}
    chosen = named or lists
    return chosen.pop() if len(chosen) == 1 else ()


def precision(model: ModelProto) -> str:
    """What the file is: see `ModelFacts.precision`."""
    operators = {node.op_type for node in nodes_of(model)}
    if any(operator.startswith(_DYNAMIC) for operator in operators):
        return "int8-dynamic"
    if any(operator.startswith(_STATIC) for operator in operators):
        return "int8"
    if "DequantizeLinear" in operators:
        return "int8-weights"
    tensors = [*model.graph.initializer, *_constants(model)]
    matrices = {item.data_type for item in tensors if len(item.dims) >= _MATRIX}
    for element, name in ((TensorProto.DOUBLE, "fp64"), (TensorProto.FLOAT16, "fp16")):
        if element in matrices and TensorProto.FLOAT not in matrices:
            return name
    return "fp32"


def _classes(node: NodeProto) -> tuple[str, ...]:
    if node.domain != _ML:
        return ()
    for attribute in node.attribute:
        if attribute.name in _CLASS_LISTS:
            texts = [item.decode(errors="replace") for item in attribute.strings]
            return tuple(texts or map(str, attribute.ints))
    return ()


def _constants(model: ModelProto) -> list[TensorProto]:
    return [
        attribute.t
        for node in nodes_of(model)
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.TENSOR
    ]
