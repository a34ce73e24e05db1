# ruff: noqa: ANN401  (the interpreter ships no types)
"""The range of every activation of a TFLite file, on rows that calibration may see.

LiteRT runs the float file and keeps all tensors. litert-quantizer's own calibration needs a
signature, which older files do not have, and averages the rows' ranges: on keyword spotting that
scored up to 2 points less than the plain minimum and maximum, and never more.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgepack.converter.errors import UnfitDataError, UnsupportedModelError, one_line
from edgepack.converter.tflite_graph import read
from edgepack.converter.tflite_quantizer.clip import clip_entropy, clip_percentile
from edgepack.runtime.tensors import Array
from edgepack.runtime.tflite_file import Graph

METHODS: Final = ("minmax", "percentile", "entropy")
_LARGEST_CHUNK: Final = 64
_CHUNK_BYTES: Final = 64 << 20
_SAMPLES: Final = 1 << 17  # values that are kept of a tensor, for what clips


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Smallest and largest value that a tensor is to hold."""

    low: float
    high: float


def ranges_of(data: bytes, feeds: Mapping[str, Array], method: str) -> dict[str, Range]:
    """Tensor name → range, of each float tensor that is computed from the feeds.

    Args:
        data: A float file with a name of its own for each tensor.
        feeds: Tensor → rows, float32 (N, …).
        method: "minmax", "percentile" (clips 1 value in 10,000 at each end) or "entropy".

    Raises:
        UnfitDataError: There are no rows, or the file refuses them.
        UnsupportedModelError: The method is unknown.
    """
    if method not in METHODS:
        raise UnsupportedModelError(
            f"calibration must be one of {', '.join(METHODS)}, got {method!r}"
        )
    found: dict[str, list[Array]] = {}
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    for values in activations(data, feeds):
        for name, array in values.items():
            lows[name] = min(lows.get(name, np.inf), float(array.min()))
            highs[name] = max(highs.get(name, -np.inf), float(array.max()))
            if method != "minmax":
                found.setdefault(name, []).append(_sampled(array))
    clip = {"percentile": clip_percentile, "entropy": clip_entropy}.get(method)
    result = {}
    for name, low in lows.items():
        ends = (low, highs[name])
        if clip is not None:
            ends = clip(_sampled(np.concatenate(found[name])), *ends)
        result[name] = Range(low=ends[0], high=ends[1])
    return result


def activations(data: bytes, feeds: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Run a file over rows and give the float tensors that it computes, some rows at a time.

    Inputs are among them.

    Raises:
        UnfitDataError: There are no rows, or the file refuses them.
    """
    graph = read(data).graphs[0]
    rows = min((len(array) for array in feeds.values()), default=0)
    if not rows:
        raise UnfitDataError("static int8 needs rows to calibrate with, got none")
    _check_shapes(graph, feeds)
    inputs = [(place, graph.tensors[place].name) for place in graph.inputs]
    places = [
        place
        for place, tensor in enumerate(graph.tensors)
        if not tensor.constant_bytes and str(tensor.datatype) == "FP32"
    ]
    chunk, free = _chunk(graph, rows)
    interpreter = _interpreter(data)
    try:
        for begin in range(0, rows, chunk):
            parts = {name: _filled(feeds[name][begin : begin + chunk], chunk) for _, name in inputs}
            if begin == 0:
                if free:
                    for place, name in inputs:
                        interpreter.resize_tensor_input(place, parts[name].shape)
                interpreter.allocate_tensors()
            for place, name in inputs:
                interpreter.set_tensor(place, np.ascontiguousarray(parts[name]))
            interpreter.invoke()
            taken = {}
            for place in places:
                array = _tensor(interpreter, place)
                if array is not None and array.size and np.isfinite(array).all():
                    taken[graph.tensors[place].name] = array
            yield taken
    except (RuntimeError, ValueError, KeyError) as exc:
        raise UnfitDataError(f"LiteRT cannot run the rows: {one_line(exc)}") from exc


def _check_shapes(graph: Graph, feeds: Mapping[str, Array]) -> None:
    # The interpreter takes any shape, and reads its weights wrongly.
    for tensor in (graph.tensors[place] for place in graph.inputs):
        got = feeds[tensor.name].shape if tensor.name in feeds else ()
        if len(got) != len(tensor.shape) or any(
            size not in (-1, real) for size, real in zip(tensor.shape[1:], got[1:], strict=True)
        ):
            raise UnfitDataError(
                f"rows for {tensor.name!r} must have shape {list(tensor.shape)}, got {list(got)}"
            )


def _chunk(graph: Graph, rows: int) -> tuple[int, bool]:
    """How many rows to run at once, and whether the file lets us choose."""
    fixed = {graph.tensors[place].shape[:1] for place in graph.inputs}
    sizes = {size for shape in fixed for size in shape}
    if len(sizes) == 1 and (only := sizes.pop()) > 0:
        return only, False
    row_bytes = 4 * sum(
        int(np.prod([max(size, 1) for size in tensor.shape], dtype=np.int64))
        for tensor in graph.tensors
        if not tensor.constant_bytes
    )
    return max(1, min(rows, _LARGEST_CHUNK, _CHUNK_BYTES // max(row_bytes, 1))), True


def _interpreter(data: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Delegates fuse operators, and would leave their tensors unwritten.
    return Interpreter(
        model_content=data,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        num_threads=1,
    )


def _tensor(interpreter: Any, place: int) -> Array | None:
    try:
        found: Array = interpreter.get_tensor(place)
    except ValueError:  # a tensor without memory: it is never computed
        return None
    return found


def _filled(rows: Array, size: int) -> Array:
    missing = size - len(rows)
    return rows if missing <= 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])


def _sampled(array: Array) -> Array:
    flat = array.reshape(-1)
    if flat.size <= _SAMPLES:
        return flat.astype(np.float32, copy=True)
    # At random: every n-th value would be of the same few channels.
    places = np.random.default_rng(flat.size).integers(0, flat.size, _SAMPLES)
    found: Array = flat[places].astype(np.float32, copy=False)
    return found
