"""The range of every activation on calibration rows: min and max, percentile, or entropy.

Rows go through the model in pieces, so that memory does not grow with their number: a first pass
finds the extremes, and the methods that need a histogram make a second pass with fixed bins.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.onnx_graph import datatype_of_element
from edgepack.converter.onnx_quantizer.prepare import run_session
from edgepack.runtime.tensors import DTYPES, Array

MINMAX: Final = "minmax"
ENTROPY: Final = "entropy"
PERCENTILE: Final = "percentile"
METHODS: Final = (MINMAX, ENTROPY, PERCENTILE)
_BINS: Final = 2048
_KEPT_PART: Final = 0.9999  # of the values, by the percentile method
_LEVELS: Final = 256
_STEPS: Final = 96  # clippings that entropy compares
_KEPT_BY_ENTROPY: Final = 0.999  # of the values; histograms with few values mislead it
_PIECE_BYTES: Final = 64 << 20  # of activations at once
_TINY: Final = 1e-12

Ranges = dict[str, tuple[float, float]]


def find_ranges(
    model: ModelProto, tensors: Sequence[str], rows: Mapping[str, Array], method: str
) -> Ranges:
    """The range that each tensor is to be quantized with.

    Args:
        model: The float model.
        tensors: Of its graph, float32.
        rows: Input → calibration rows (N, …).
        method: "minmax", "percentile" (99.99 % of the values) or "entropy" (the clipping that
            loses least information; S. Migacz, 8-bit inference with TensorRT, 2017).

    Raises:
        UnsupportedModelError: There are no rows, or fewer than the model's fixed batch.
    """
    probe = Probe(model, tensors)
    lows = dict.fromkeys(tensors, np.inf)
    highs = dict.fromkeys(tensors, -np.inf)
    for piece in probe.pieces(rows):
        for name, array in piece.items():
            if array.size:
                lows[name] = min(lows[name], float(np.nanmin(array)))
                highs[name] = max(highs[name], float(np.nanmax(array)))
    whole = {name: (lows[name], highs[name]) for name in tensors if np.isfinite(lows[name])}
    unbounded = [name for name, bounds in whole.items() if not np.isfinite(bounds[1])]
    if unbounded:
        raise UnsupportedModelError(f"tensor {unbounded[0][:80]!r} is infinite on calibration rows")
    if method == MINMAX:
        return whole
    counts = {name: np.zeros(_BINS, np.int64) for name in whole}
    for piece in probe.pieces(rows):
        for name, bounds in whole.items():
            counts[name] += _histogram(piece[name], *_spread(bounds))
    clip = _percentile if method == PERCENTILE else _entropy
    return {name: clip(counts[name], *_spread(bounds)) for name, bounds in whole.items()}


class Probe:
    """A float model whose inner tensors can be read, in pieces of bounded size."""

    def __init__(self, model: ModelProto, tensors: Sequence[str]) -> None:
        """Make a session that gives `tensors`."""
        inputs = {item.name: item for item in model.graph.input}
        self._given = [name for name in tensors if name in inputs]
        self._asked = [name for name in tensors if name not in inputs]
        shown = ModelProto()
        shown.CopyFrom(model)
        have = {item.name for item in shown.graph.output}
        shown.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in self._asked
            if name not in have
        )
        self._session = run_session(shown.SerializeToString())
        self._dtypes = {
            name: DTYPES[datatype_of_element(item.type.tensor_type.elem_type)]
            for name, item in inputs.items()
        }
        self._batch = fixed_batch(inputs.values())

    def pieces(self, rows: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """The tensors' values, some rows at a time; the last rows of an odd count are repeated."""
        count = next((array.shape[0] for array in rows.values()), 0)
        if count == 0:
            raise UnsupportedModelError("static int8 needs calibration rows, got none")
        size, begin = self._batch or 1, 0
        while begin < count:
            feeds = {name: self._filled(name, a[begin : begin + size]) for name, a in rows.items()}
            answers = self._session.run(self._asked, feeds) if self._asked else []
            piece = dict(zip(self._asked, answers, strict=True))
            piece |= {name: feeds[name] for name in self._given}
            yield piece
            begin += size
            if self._batch is None and size == 1:
                row_bytes = sum(array.nbytes for array in piece.values()) or 1
                size = max(1, _PIECE_BYTES // row_bytes)

    def _filled(self, name: str, rows: Array) -> Array:
        rows = rows.astype(self._dtypes[name], copy=False)
        missing = (self._batch or len(rows)) - len(rows)
        return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def fixed_batch(inputs: Iterable[ValueInfoProto]) -> int | None:
    """The batch size that the inputs are fixed to, or None."""
    for item in inputs:
        dimensions = item.type.tensor_type.shape.dim
        if dimensions and dimensions[0].dim_value > 0:
            return int(dimensions[0].dim_value)
    return None


def _spread(bounds: tuple[float, float]) -> tuple[float, float]:
    """Bounds that a histogram can be made of."""
    low, high = bounds
    return (low, high) if high > low else (low, low + max(abs(low), 1.0) * 1e-6)


def _histogram(values: Array, low: float, high: float) -> NDArray[np.int64]:
    """Counts in bins of equal width: five times as fast as numpy's, which looks for the edges."""
    places = (values.ravel() - np.float32(low)) * np.float32(_BINS / (high - low))
    bins = np.clip(places, 0, _BINS - 1).astype(np.int32)
    return np.bincount(bins, minlength=_BINS)


def _percentile(counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    edges = np.linspace(low, high, len(counts) + 1)
    shares = np.cumsum(counts) / max(1, counts.sum())
    cut = (1 - _KEPT_PART) / 2
    first = int(np.searchsorted(shares, cut, side="right"))
    last = int(np.searchsorted(shares, 1 - cut))
    return float(edges[first]), float(edges[min(last + 1, len(counts))])


def _entropy(counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The clipping whose 256 levels are nearest to the values in Kullback-Leibler divergence.

    Both ends are clipped at the same magnitude, so that the range of a tensor after ReLU stays
    [0, t]. Unlike in the source, at most 0.1 % of the values may be clipped, and zeros do not
    count: they are exact whatever the scale.
    """
    total = counts.sum()
    edges = np.linspace(low, high, len(counts) + 1)
    largest = max(abs(low), abs(high))
    weights = counts.copy()
    if low <= 0 <= high:
        zero = int(np.searchsorted(edges, 0.0, side="right")) - 1
        weights[min(max(zero, 0), len(counts) - 1)] = 0
    best, found = np.inf, (low, high)
    for step in range(_STEPS, 0, -1):
        limit = largest * step / _STEPS
        first = int(np.searchsorted(edges, max(low, -limit), side="right")) - 1
        last = int(np.searchsorted(edges, min(high, limit), side="left"))
        if counts[first:last].sum() < _KEPT_BY_ENTROPY * total or not weights[first:last].any():
            break
        divergence = _divergence(weights, first, last)
        if divergence < best * (1 - 1e-9):
            best, found = divergence, (float(edges[first]), float(edges[last]))
    return found


def _divergence(counts: NDArray[np.int64], first: int, last: int) -> float:
    inside = counts[first:last].astype(np.float64)
    wanted = inside.copy()
    wanted[0] += counts[:first].sum()
    wanted[-1] += counts[last:].sum()
    levels = np.arange(last - first) * _LEVELS // (last - first)
    filled = inside > 0
    sums = np.bincount(levels, weights=inside, minlength=_LEVELS)
    sizes = np.bincount(levels, weights=filled, minlength=_LEVELS)
    got = np.where(filled, (sums / np.maximum(sizes, 1))[levels], 0.0)
    p, q = wanted / wanted.sum(), got / got.sum()
    return float(np.sum(np.where(p > 0, p * np.log((p + _TINY) / (q + _TINY)), 0.0)))
