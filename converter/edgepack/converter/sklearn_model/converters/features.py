"""Transformers of each column by itself: scales, powers, quantiles, bins."""

from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.functions import write_function
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.normal import normal_quantiles
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.runtime.tensors import Array

_ONE_OF_QUANTILES = 1e-7  # scikit-learn's own threshold for the ends of a normal distribution


@writes("transform", "StandardScaler")
def standard(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Less the mean, by the deviation."""
    if model.with_mean:
        x = x - writer.const(model.mean_)
    return x / writer.const(model.scale_) if model.with_std else x


@writes("transform", "MinMaxScaler")
def min_max(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Into the range of the training data."""
    found = x * writer.const(model.scale_) + writer.const(model.min_)
    if not model.clip:
        return found
    low, high = model.feature_range
    clipped = found.at_least(float(low)).at_most(float(high))
    return writer.where(found.is_nan(), found, clipped)


@writes("transform", "MaxAbsScaler")
def max_abs(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """By the largest size."""
    found = x / writer.const(model.scale_)
    if not getattr(model, "clip", False):
        return found
    return writer.where(found.is_nan(), found, found.at_least(-1.0).at_most(1.0))


@writes("transform", "RobustScaler")
def robust(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Less the median, by a range of quantiles."""
    if model.with_centering:
        x = x - writer.const(model.center_)
    return x / writer.const(model.scale_) if model.with_scaling else x


@writes("transform", "Binarizer")
def binary(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """1 above the threshold."""
    return (x > float(model.threshold)).floats()


@writes("transform", "Normalizer")
def normalised(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Rows of length 1."""
    if model.norm == "l2":
        length = (x * x).sum(keep=True).sqrt()
    elif model.norm == "l1":
        length = x.unary("Abs").sum(keep=True)
    else:
        length = x.unary("Abs").max(keep=True)
    return x / writer.where(length.equals(0.0), writer.const(np.array(1.0)), length)


@writes("transform", "PolynomialFeatures")
def polynomial(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Products of columns."""
    powers = np.asarray(model.powers_, dtype=np.int64)
    width = powers.shape[1]
    factors = [np.repeat(np.arange(width), row) for row in powers]
    most = max([1, *(len(row) for row in factors)])
    places = np.full((most, len(factors)), width)  # the column of ones that is put behind
    for column, row in enumerate(factors):
        places[: len(row), column] = row
    ones = writer.where(x.columns([0]).is_nan(), writer.const(np.array(1.0)), 1.0)
    wide = writer.concat([x, ones])
    found = wide.columns(places[0])
    for row in places[1:]:
        found = found * wide.columns(row)
    return found


@writes("transform", "PowerTransformer")
def power(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Yeo and Johnson's (2000) or Box and Cox's (1964) powers, in float64; then scaled."""
    wide = x.cast(np.float64)
    lambdas = np.asarray(model.lambdas_, dtype=np.float64)
    if model.method == "box-cox":
        found = _powers(writer, wide.log(), lambdas)
    else:
        above, below = wide.at_least(0.0), (-wide).at_least(0.0)
        upper = _powers(writer, (above + 1.0).log(), lambdas)
        lower = -_powers(writer, (below + 1.0).log(), 2.0 - lambdas)
        found = writer.where(wide >= 0.0, upper, lower)
    found = writer.where(wide.is_nan(), wide, found)
    if model.standardize:
        scaler = model._scaler
        found = found - writer.const(scaler.mean_, np.float64)
        found = found / writer.const(scaler.scale_, np.float64)
    return found.floats()


def _powers(writer: Writer, logs: Value, lambdas: Array) -> Value:
    """(e**(λ·log) - 1) / λ of each column, the logarithm itself where λ is 0."""
    zero = np.abs(lambdas) < np.finfo(np.float64).eps
    safe = np.where(zero, 1.0, lambdas)
    raised = ((logs * safe).exp() - 1.0) / safe
    return writer.where(writer.const(zero.reshape(1, -1)), logs, raised)


@writes("transform", "QuantileTransformer")
def quantile(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The share of the training data below, even or as of a normal distribution."""
    references = np.asarray(model.references_, dtype=np.float64)
    columns = []
    for place, quantiles in enumerate(np.asarray(model.quantiles_, dtype=np.float64).T):
        value = x.column(place).cast(np.float64)
        forward = steps(writer, value, quantiles, references)
        backward = steps(writer, -value, -quantiles[::-1], -references[::-1])
        share = (forward - backward) * 0.5
        share = _ends(writer, model, value, quantiles, share)
        columns.append(writer.where(value.is_nan(), value, share).reshape(-1, 1))
    found = writer.concat(columns)
    if model.output_distribution == "normal":
        found = normal_quantiles(writer, found, _ONE_OF_QUANTILES)
    return found.floats()


def _ends(writer: Writer, model: Any, value: Value, quantiles: Array, share: Value) -> Value:  # noqa: ANN401
    first, last = float(quantiles[0]), float(quantiles[-1])
    if model.output_distribution == "normal":
        low, high = value - _ONE_OF_QUANTILES < first, value + _ONE_OF_QUANTILES > last
    else:
        low, high = value.equals(first), value.equals(last)
    one, zero = (writer.const(np.array(item), np.float64) for item in (1.0, 0.0))
    return writer.where(low, zero, writer.where(high, one, share))


def steps(writer: Writer, x: Value, places: Array, values: Array) -> Value:
    """`numpy.interp` of (N,) also where places repeat: there the last one counts."""
    widths = np.diff(places)
    slopes = np.divide(np.diff(values), widths, out=np.zeros(len(widths)), where=widths > 0)
    inside = x.at_least(places[0]).at_most(places[-1])
    below = inside.unsqueeze(1) >= places[1:-1].reshape(1, -1)
    piece = below.cast(np.int64).sum()

    def of_piece(table: Array) -> Value:
        return writer.const(table, x.dtype).take(piece)

    found = of_piece(slopes) * (inside - of_piece(places[:-1])) + of_piece(values[:-1])
    # Beyond the ends it is the very first and last value, whatever repeats there.
    found = writer.where(x < places[0], writer.const(values[:1], x.dtype), found)
    return writer.where(x >= places[-1], writer.const(values[-1:], x.dtype), found)


@writes("transform", "KBinsDiscretizer")
def bins(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The number of the bin of each value, or a column for each bin."""
    columns = []
    for place, edges in enumerate(model.bin_edges_):
        value = x.columns([place])
        above = value >= np.asarray(edges[1:-1], dtype=np.float64).reshape(1, -1)
        inner = len(edges) > 2
        number = above.cast(np.int64).sum(keep=True) if inner else value.no().cast(np.int64)
        if model.encode == "ordinal":
            columns.append(number.floats())
            continue
        numbers = np.arange(int(model.n_bins_[place])).reshape(1, -1)
        columns.append(number.equals(numbers).floats())
    return writer.concat(columns)


@writes("transform", "TargetEncoder")
def target_means(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean target of each category; of unknown ones that of all."""
    columns = []
    means = np.ravel(np.asarray(model.target_mean_, dtype=np.float64))
    several = len(means) if model.target_type_ == "multiclass" else 1
    for order, encoding in enumerate(model.encodings_):
        place, mean = order // several, means[order % several]
        categories = np.asarray(model.categories_[place])
        if categories.dtype.kind not in "biuf":
            raise UnsupportedModelError("TargetEncoder of text has no float64 form here")
        value = x.columns([place])
        is_each = value.equals(np.nan_to_num(categories.astype(np.float64)).reshape(1, -1))
        if categories.dtype.kind == "f" and np.isnan(categories).any():
            is_nan = np.isnan(categories).reshape(1, -1)
            is_each = (is_each.both(writer.const(~is_nan))).either(
                value.is_nan().both(writer.const(is_nan))
            )
        known = is_each.floats()
        found = known @ writer.const(np.asarray(encoding, dtype=np.float64).reshape(-1, 1))
        unknown = 1.0 - known.max(keep=True)
        columns.append(found + unknown * mean)
    return writer.concat(columns)


def scaled_back(writer: Writer, transformer: Any, y: Value) -> Value:  # noqa: ANN401
    """The inverse of a transformer of targets, floats (N, T).

    Raises:
        UnsupportedModelError: There is none for it here.
    """
    name = type(transformer).__name__
    if name == "FunctionTransformer":
        return write_function(writer, transformer.inverse_func, y, transformer.inv_kw_args)
    if name == "StandardScaler":
        y = y * writer.const(transformer.scale_) if transformer.with_std else y
        return y + writer.const(transformer.mean_) if transformer.with_mean else y
    if name == "RobustScaler":
        y = y * writer.const(transformer.scale_) if transformer.with_scaling else y
        return y + writer.const(transformer.center_) if transformer.with_centering else y
    if name == "MinMaxScaler":
        return (y - writer.const(transformer.min_)) / writer.const(transformer.scale_)
    if name == "MaxAbsScaler":
        return y * writer.const(transformer.scale_)
    if name == "PowerTransformer":
        return _unpowered(writer, transformer, y)
    if name == "QuantileTransformer" and transformer.output_distribution == "uniform":
        references = np.asarray(transformer.references_, dtype=np.float64)
        parts = [
            steps(writer, y.column(place).cast(np.float64), references, quantiles).reshape(-1, 1)
            for place, quantiles in enumerate(np.asarray(transformer.quantiles_, np.float64).T)
        ]
        return writer.concat(parts).floats()
    raise UnsupportedModelError(f"targets transformed by {name} cannot be turned back here")


def _unpowered(writer: Writer, model: Any, y: Value) -> Value:  # noqa: ANN401
    wide = y.cast(np.float64)
    if model.standardize:
        wide = wide * writer.const(model._scaler.scale_, np.float64)
        wide = wide + writer.const(model._scaler.mean_, np.float64)
    lambdas = np.asarray(model.lambdas_, dtype=np.float64)
    if model.method == "box-cox":
        return _unlogged(writer, wide, lambdas).floats()
    upper = _unlogged(writer, wide.at_least(0.0), lambdas) - 1.0
    lower = 1.0 - _unlogged(writer, (-wide).at_least(0.0), 2.0 - lambdas)
    return writer.where(wide >= 0.0, upper, lower).floats()


def _unlogged(writer: Writer, y: Value, lambdas: Array) -> Value:
    """(1 + λ·y)**(1/λ) of each column, e**y where λ is 0."""
    zero = np.abs(lambdas) < np.finfo(np.float64).eps
    safe = np.where(zero, 1.0, lambdas)
    raised = ((y * safe + 1.0).log() * (1.0 / safe)).exp()
    return writer.where(writer.const(zero.reshape(1, -1)), y.exp(), raised)
