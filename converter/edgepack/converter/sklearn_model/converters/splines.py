"""B-splines as the polynomials that they are between two knots."""

from typing import Any

import numpy as np
from scipy.interpolate import PPoly

from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.runtime.tensors import Array


@writes("transform", "SplineTransformer")
def splines(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The value of each spline, a group of columns for each of x; in float64."""
    columns = []
    for place, spline in enumerate(model.bsplines_):
        value = x.column(place).cast(np.float64)
        found = _column(writer, model, spline, value)
        if getattr(model, "handle_missing", "error") == "zeros":
            zero = writer.const(np.array(0.0), np.float64)
            found = writer.where(value.is_nan().unsqueeze(1), zero, found)
        if not model.include_bias:
            found = found.columns(np.arange(spline.c.shape[1] - 1))
        columns.append(found)
    return writer.concat(columns).floats()


def _column(writer: Writer, model: Any, spline: Any, value: Value) -> Value:  # noqa: ANN401
    knots, degree = np.asarray(spline.t), int(spline.k)
    count = len(knots) - degree - 1
    first, last = float(knots[degree]), float(knots[count])
    pieces = _pieces(spline)[:, degree:count]
    inner = knots[degree : count + 1]
    if model.extrapolation == "periodic":
        width = last - first
        if width <= 0:
            value = value * 0.0
        else:
            turns = ((value - first) / width).unary("Floor")
            value = value - turns * width
        return _between(writer, value, inner, pieces)
    if model.extrapolation in ("continue", "error"):
        return _between(writer, value, inner, pieces)
    clipped = value.at_least(first).at_most(last)
    found = _between(writer, clipped, inner, pieces)
    if model.extrapolation == "constant":
        return found
    # scikit-learn takes the splines' slopes at the ends; those of degree 0 and 1 it
    # takes a little inside, where they have one.
    slopes = spline.derivative()
    beyond = (value - clipped).reshape(-1, 1)
    step = 1e-10 if degree <= 1 else 0.0
    low = np.asarray(slopes(first + step)).reshape(1, -1)
    high = np.asarray(slopes(last - step)).reshape(1, -1)
    zero = writer.const(np.array(0.0), np.float64)
    below = writer.where(beyond < 0.0, beyond, zero) * low
    above = writer.where(beyond > 0.0, beyond, zero) * high
    return found + below + above


def _pieces(spline: Any) -> Array:  # noqa: ANN401
    """Coefficients, highest power first: (degree + 1, pieces, splines)."""
    parts = [
        PPoly.from_spline((spline.t, spline.c[:, column], spline.k)).c
        for column in range(spline.c.shape[1])
    ]
    return np.stack(parts, axis=2)


def _between(writer: Writer, value: Value, knots: Array, pieces: Array) -> Value:
    """The polynomials of the piece that a value lies in, float64 (N, splines)."""
    if len(knots) > 2:
        above = value.unsqueeze(1) >= knots[1:-1].reshape(1, -1)
        piece = above.cast(np.int64).sum()
    else:
        piece = value.no().cast(np.int64)
    gap = (value - writer.const(knots[:-1], np.float64).take(piece)).reshape(-1, 1)
    found = writer.const(pieces[0], np.float64).take(piece)
    for table in pieces[1:]:
        found = found * gap + writer.const(table, np.float64).take(piece)
    return found
