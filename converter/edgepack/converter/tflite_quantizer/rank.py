"""Which layers of a TFLite file suffer most from static int8, measured: one at a time in int8."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.tflite_graph import operator_name, read
from edgepack.converter.tflite_quantizer.calibrate import ranges_of
from edgepack.converter.tflite_quantizer.quantize import apply, check, scope_of
from edgepack.converter.tflite_quantizer.rewrite import (
    layer_names,
    with_float_weights,
    with_plain_names,
)
from edgepack.converter.tflite_quantizer.run import answers
from edgepack.converter.tools.tool import Quantization
from edgepack.runtime.tensors import Array

_ROWS: Final = 64
_MOST_DB: Final = 200.0
# They move numbers and compute none: in int8 they lose what the layers beside them lose anyway.
_MOVERS: Final = frozenset(
    {
        "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "GATHER", "PACK", "PAD", "PADV2", "QUANTIZE",
        "RESHAPE", "SHAPE", "SLICE", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer, and the signal-to-quantization-noise ratio of the file when it alone is int8."""

    name: str
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The layers, worst first, and how many the time did not suffice for."""

    layers: tuple[Layer, ...]
    not_measured: int


def rank_layers(
    data: bytes, feeds: Mapping[str, Array], wish: Quantization, *, limit_s: float
) -> Ranking:
    """Measure every layer that computes; those with weights first, in case time runs out.

    Raises:
        ModelFileError: The file is damaged.
        UnfitDataError: There are no rows that it takes.
        UnsupportedModelError: The wish is not one for TFLite.
    """
    check(wish)
    deadline = time.monotonic() + limit_s
    wide = with_float_weights(data)
    plain = with_plain_names(wide)
    ranges = ranges_of(plain, feeds, wish.calibration)
    rows = {name: _spread(array) for name, array in feeds.items()}
    expected = answers(plain, rows)
    names = layer_names(wide)
    graph = read(wide).graphs[0]
    computing = [
        place
        for place, item in enumerate(graph.operators)
        if item.outputs and operator_name(item) not in _MOVERS
    ]
    weighted = [
        sum(graph.tensors[item].constant_bytes for item in operator.inputs if item >= 0)
        for operator in graph.operators
    ]
    computing.sort(key=lambda place: -weighted[place])
    found: list[Layer] = []
    left = 0
    for place in computing:
        if time.monotonic() > deadline:
            left += 1
            continue
        try:
            alone = apply(plain, wish, ranges, only=scope_of(plain, place))
        except UnsupportedModelError:
            continue  # it has no int8 form, and stays in float in any case
        if alone != plain:
            ratio = sqnr_db(expected, answers(alone, rows))
            found.append(Layer(name=names[place], sqnr_db=ratio))
    found.sort(key=lambda layer: (layer.sqnr_db, layer.name))
    return Ranking(layers=tuple(found), not_measured=left)


def sqnr_db(expected: list[Array], got: list[Array]) -> float:
    """The signal-to-quantization-noise ratio of the worst output, in dB, at most 200.

    >>> round(sqnr_db([np.array([1.0, 2.0])], [np.array([1.1, 2.0])]))
    27
    """
    worst = _MOST_DB
    for right, other in zip(expected, got, strict=True):
        if right.dtype.kind != "f":
            continue
        signal = float(np.square(right, dtype=np.float64).sum())
        noise = float(np.square(right.astype(np.float64) - other).sum())
        if noise > 0:
            worst = min(worst, 10 * float(np.log10(max(signal, 1e-300) / noise)))
    return worst


def _spread(array: Array) -> Array:
    return array[:: max(1, len(array) // _ROWS)][:_ROWS]
