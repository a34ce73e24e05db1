"""Which layers suffer most from static int8: each is quantized alone, and the answers compared."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto

from edgepack.converter.onnx_graph import float_outputs
from edgepack.converter.onnx_quantizer.layers import chosen_layers
from edgepack.converter.onnx_quantizer.prepare import prepare
from edgepack.converter.onnx_quantizer.ranges import Probe, find_ranges
from edgepack.converter.onnx_quantizer.static import calibrated_tensors, quantize_static
from edgepack.converter.tools.tool import Quantization
from edgepack.runtime.tensors import Array

MOST_LAYERS: Final = 64
_MOST_ROWS: Final = 128
_BEST_DB: Final = 200.0  # no difference at all
_PROBABILITIES: Final = ("Softmax", "LogSoftmax", "Sigmoid", "Identity", "Reshape", "Squeeze")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer and what 8 bits in it alone do to the model's answers.

    Attributes:
        name: As `Quantization.keep_float` takes it.
        sqnr_db: Signal to quantization noise of the worst output; smaller is worse.
    """

    name: str
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The layers, worst first, and how many the time did not suffice for."""

    layers: tuple[Layer, ...]
    not_measured: int


def rank_layers(
    data: bytes, rows: Mapping[str, Array], wish: Quantization, *, limit_s: float
) -> Ranking:
    """Quantize one layer at a time and compare the answers with the float model's.

    Probabilities are compared before their softmax, where they are not squeezed.

    Args:
        data: The float model.
        rows: Input → calibration rows; at most 128 of them are compared.
        wish: A static one; the layers that it keeps in float are left out.
        limit_s: When to stop; what was measured by then is ranked.

    Raises:
        UnsupportedModelError: There are no layers or rows, or the model cannot be prepared.
    """
    ends_s = time.monotonic() + limit_s
    model = prepare(data)
    names = chosen_layers(model, wish.keep_float)
    ranges = find_ranges(model, calibrated_tensors(model), rows, wish.calibration)
    some = {name: array[:_MOST_ROWS] for name, array in rows.items()}
    expected = _answers(model, some)
    found: list[Layer] = []
    for name in names[:MOST_LAYERS]:
        if found and time.monotonic() > ends_s:
            break
        others = tuple(other for other in names if other != name)
        alone = replace(wish, keep_float=(*wish.keep_float, *others))
        got = _answers(quantize_static(model, ranges, alone), some)
        found.append(Layer(name=name, sqnr_db=_worst_db(expected, got)))
    found.sort(key=lambda layer: layer.sqnr_db)
    return Ranking(layers=tuple(found), not_measured=len(names) - len(found))


def _answers(model: ModelProto, rows: Mapping[str, Array]) -> list[Array]:
    tensors = _compared(model)
    pieces = list(Probe(model, tensors).pieces(rows))
    return [np.concatenate([piece[name] for piece in pieces]) for name in tensors]


def _compared(model: ModelProto) -> list[str]:
    """The float outputs, or what their softmax takes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for output in float_outputs(model):
        tensor = output
        while (node := _maker(tensor, makers)) is not None and node.op_type in _PROBABILITIES:
            tensor = node.input[0]
        found.append(tensor)
    return list(dict.fromkeys(found))


def _maker(tensor: str, makers: Mapping[str, NodeProto]) -> NodeProto | None:
    """What makes a tensor, a QDQ pair aside: so the same place is found with and without pairs."""
    node = makers.get(tensor)
    if node is not None and node.op_type == "DequantizeLinear":
        quantize = makers.get(node.input[0])
        return None if quantize is None else makers.get(quantize.input[0])
    return node


def _worst_db(expected: Sequence[Array], got: Sequence[Array]) -> float:
    worst = _BEST_DB
    for before, after in zip(expected, got, strict=True):
        signal = float(np.sum(np.square(before, dtype=np.float64)))
        noise = float(np.sum(np.square(before.astype(np.float64) - after)))
        if noise > 0:
            worst = min(worst, 10 * np.log10(max(signal, 1e-300) / noise))
    return round(float(worst), 3)
