"""Dynamic int8: 8-bit weights, and activations that are quantized while the model runs."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import onnx
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic

from edgepack.converter.onnx_graph import QUANTIZABLE
from edgepack.converter.onnx_quantizer.layers import chosen_layers
from edgepack.converter.onnx_quantizer.quiet import quiet
from edgepack.converter.tools.tool import Quantization

_TYPES: Final = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
_PRODUCTS: Final = ("MatMul", "Gemm")
_CONVOLUTIONS: Final = ("Conv",)
_RECURRENT: Final = ("LSTM",)  # the engine has no 8-bit form of the others
_UNPACKED: Final = "_MatMul"  # what onnxruntime appends to the name of a Gemm that it takes apart


def quantize_dynamic(model: ModelProto, wish: Quantization) -> ModelProto:
    """The model with 8-bit weights; `model` is not changed.

    Convolutions get unsigned weights whatever is wished: engines of 2024 have no other kernel.
    Recurrent layers get 7 bits: theirs is signed inside, and with 8 it saturates without VNNI.

    Raises:
        UnsupportedModelError: Nothing is left, or `keep_float` names what is no node.
    """
    chosen = set(chosen_layers(model, wish.keep_float, (*QUANTIZABLE, *_RECURRENT)))
    kept = [node.name for node in model.graph.node if node.name not in chosen]
    kept += [name + _UNPACKED for name in kept]
    quantized = model
    for operators, part in (
        (_PRODUCTS, wish),
        (_CONVOLUTIONS, replace(wish, weight="u8")),
        (_RECURRENT, replace(wish, reduce_range=True)),
    ):
        if any(node.name in chosen and node.op_type in operators for node in model.graph.node):
            quantized = _quantize(quantized, operators, kept, part)
    return quantized


def _quantize(
    model: ModelProto,
    operators: tuple[str, ...],
    kept: list[str],
    wish: Quantization,
) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]  # of recurrent layers onnx infers another shape the second time
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "dynamic.onnx")
        ort_quantize_dynamic(
            copy,
            path,
            op_types_to_quantize=list(operators),
            per_channel=wish.per_channel,
            reduce_range=wish.reduce_range,
            weight_type=_TYPES[wish.weight],
            nodes_to_exclude=kept,
            # Shape inference does not know what operators of other domains (ai.onnx.ml) give.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
        return onnx.load(path)
