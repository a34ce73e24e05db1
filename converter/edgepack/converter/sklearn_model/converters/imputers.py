"""Fills gaps."""

from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.methods import call, writes
from edgepack.converter.sklearn_model.converters.neighbours import weights_of
from edgepack.converter.sklearn_model.converters.writer import Value, Writer


def _is_missing(x: Value, mark: Any) -> Value:  # noqa: ANN401
    if mark is None or (isinstance(mark, float) and np.isnan(mark)):
        return x.is_nan()
    return x.equals(float(mark))


@writes("transform", "MissingIndicator")
def indicator(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """1 where a value is missing."""
    found = _is_missing(x, model.missing_values).floats()
    return found if model.features == "all" else found.columns(model.features_)


def _with_indicator(writer: Writer, model: Any, x: Value, filled: Value) -> Value:  # noqa: ANN401
    if not model.add_indicator:
        return filled
    marks = _is_missing(x, model.missing_values).floats()
    return writer.concat([filled, marks.columns(model.indicator_.features_)])


@writes("transform", "SimpleImputer")
def simple(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """One value for each column."""
    values = np.asarray(model.statistics_, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values)) if not model.keep_empty_features else None
    missing = _is_missing(x, model.missing_values)
    filled = writer.where(missing, writer.const(np.nan_to_num(values).reshape(1, -1)), x)
    if known is not None and len(known) < len(values):
        filled = filled.columns(known)
    return _with_indicator(writer, model, x, filled)


@writes("transform", "KNNImputer")
def by_neighbours(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean of the nearest training rows that have the value; in float64."""
    if not isinstance(model.metric, str) or model.metric != "nan_euclidean":
        raise UnsupportedModelError(f"KNNImputer(metric={model.metric!r}) has no ONNX form here")
    wide = x.cast(np.float64)
    missing = _is_missing(wide, model.missing_values)
    far = _distances(writer, model, wide, missing)
    rows, gaps = np.asarray(model._fit_X, np.float64), np.asarray(model._mask_fit_X)
    valid = np.flatnonzero(model._valid_mask)
    columns = []
    for place in range(rows.shape[1]):
        if place not in valid:
            if model.keep_empty_features:
                columns.append((wide.columns([place]).is_nan()).cast(np.float64) * 0.0)
            continue
        donors = np.flatnonzero(~gaps[:, place])
        found = _mean(writer, model, far.columns(donors), rows[donors, place])
        value = wide.columns([place])
        columns.append(writer.where(missing.columns([place]), found, value))
    return _with_indicator(writer, model, x, writer.concat(columns).floats())


def _distances(writer: Writer, model: Any, wide: Value, missing: Value) -> Value:  # noqa: ANN401
    """Squared distances by the values that both rows have; infinite where there are none."""
    rows, gaps = np.asarray(model._fit_X, np.float64), np.asarray(model._mask_fit_X)
    filled = np.where(gaps, 0.0, rows)
    centre = filled.sum(axis=0) / np.maximum((~gaps).sum(axis=0), 1)
    filled = np.where(gaps, 0.0, rows - centre)
    there = (~gaps).astype(np.float64)
    zero = writer.const(np.array(0.0), np.float64)
    mine = writer.where(missing, zero, wide - writer.const(centre, np.float64))
    have = (~missing).cast(np.float64)
    squares = (mine * mine) @ writer.const(there.T, np.float64)
    squares = squares - (mine @ writer.const(filled.T, np.float64)) * 2.0
    squares = squares + have @ writer.const((filled**2).T, np.float64)
    shared = have @ writer.const(there.T, np.float64)
    none = shared.equals(0.0)
    one = writer.const(np.array(1.0), np.float64)
    scaled = squares.at_least(0.0) * float(rows.shape[1]) / writer.where(none, one, shared)
    return writer.where(none, writer.const(np.array(np.inf), np.float64), scaled)


def _mean(writer: Writer, model: Any, far: Value, known: Any) -> Value:  # noqa: ANN401
    count = min(int(model.n_neighbors), len(known))
    near, places = writer.ops(
        "TopK",
        far,
        writer.const(np.array([count])),
        dtypes=(np.float64, np.int64),
        axis=1,
        largest=0,
        sorted=1,
    )
    there = (near < float("inf")).cast(np.float64)
    one = writer.const(np.array(1.0), np.float64)
    finite = writer.where(near < float("inf"), near, one)
    weights = weights_of(writer, model, finite.sqrt()) * there
    sums = weights.sum(keep=True)
    values = writer.const(known, np.float64).take(places)
    found = (values * weights).sum(keep=True) / writer.where(sums.equals(0.0), one, sums)
    mean = writer.const(np.array(known.mean()), np.float64)
    return writer.where(sums.equals(0.0), mean, found)


@writes("transform", "IterativeImputer")
def iterated(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Each gap by a model of the other columns, as often as the fit went round."""
    if model.sample_posterior:
        raise UnsupportedModelError("IterativeImputer(sample_posterior=True) draws by chance")
    start = call(writer, model.initial_imputer_, "transform", x)
    missing = _is_missing(x, model.missing_values)
    values = np.asarray(model.initial_imputer_.statistics_, dtype=np.float64)
    valid = (
        np.arange(len(values)) if model.keep_empty_features else np.flatnonzero(~np.isnan(values))
    )
    columns = {order: start.columns([order]) for order in range(len(valid))}
    for triplet in model.imputation_sequence_:
        place = int(triplet.feat_idx)
        others = writer.concat([columns[int(item)] for item in triplet.neighbor_feat_idx])
        found = call(writer, triplet.estimator, "value", others).reshape(-1, 1)
        low, high = float(model._min_value[place]), float(model._max_value[place])
        if np.isfinite(low):
            found = found.at_least(low)
        if np.isfinite(high):
            found = found.at_most(high)
        columns[place] = writer.where(missing.columns([int(valid[place])]), found, columns[place])
    return _with_indicator(writer, model, x, writer.concat(list(columns.values())))
