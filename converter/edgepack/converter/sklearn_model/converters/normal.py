"""The quantiles of the normal distribution, which ONNX has no operator for."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from edgepack.converter.sklearn_model.converters.writer import Value, Writer

# Wichura (1988), "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied
# Statistics 37, routine PPND16: accurate to about 1e-16. Highest power first.
_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_MIDDLE = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
     1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055,
     4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966,
     0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494,
     2.05319162663775882187, 1.0),
)  # fmt: skip
_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
     0.026532189526576123093, 0.29656057182850489123, 1.7848265399172913358,
     5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
     7.868691311456132591e-4, 0.0148753612908506148525, 0.13692988092273580531,
     0.59983220655588793769, 1.0),
)  # fmt: skip


def normal_quantiles(writer: Writer, shares: Value, least: float) -> Value:
    """`scipy.stats.norm.ppf`, cut as scikit-learn's QuantileTransformer cuts it.

    Args:
        writer: Of the graph.
        shares: float64, from 0 to 1.
        least: Shares nearer to 0 or 1 are cut to the quantile of this one.
    """
    spacing = np.spacing(1)
    low, high = float(norm.ppf(least - spacing)), float(norm.ppf(1 - (least - spacing)))
    offset = shares - 0.5
    squared = 0.180625 - offset * offset
    centre = offset * _ratio(squared, _CENTRE)
    tiny = float(np.finfo(np.float64).tiny)
    nearer = shares.at_most(1.0 - shares).at_least(tiny)
    root = (-(nearer.log())).sqrt()
    sides = writer.where(root <= 5.0, _ratio(root - 1.6, _MIDDLE), _ratio(root - 5.0, _TAIL))
    outer = offset.unary("Sign") * sides
    found = writer.where(offset.unary("Abs") <= 0.425, centre, outer)
    return writer.where(shares.is_nan(), shares, found.at_least(low).at_most(high))


def _ratio(x: Value, terms: tuple[Sequence[float], Sequence[float]]) -> Value:
    above, below = (_polynomial(x, side) for side in terms)
    return above / below


def _polynomial(x: Value, terms: Sequence[float]) -> Value:
    found = x * terms[0] + terms[1]
    for term in terms[2:]:
        found = found * x + term
    return found
