"""Outlier detectors by distance and density."""

from typing import Any

import numpy as np

from edgepack.converter.sklearn_model.converters.linear import signs
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.neighbours import nearest
from edgepack.converter.sklearn_model.converters.writer import Value, Writer


def _envelope(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Negative squared Mahalanobis distances less the offset, float64."""
    centred = x.cast(np.float64) - writer.const(np.asarray(model.location_), np.float64)
    turned = centred @ writer.const(np.asarray(model.get_precision()), np.float64)
    return -(turned * centred).sum() - float(model.offset_)


@writes("decision", "EllipticEnvelope")
def envelope_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """How far inside the ellipse."""
    return _envelope(writer, model, x).floats()


@writes("label", "EllipticEnvelope")
def envelope_label(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Inside or outside."""
    return signs(_envelope(writer, model, x))


def _outlier_factor(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    distances, places = nearest(writer, model, x, int(model.n_neighbors_))
    kth = writer.const(model._distances_fit_X_[:, model.n_neighbors_ - 1], np.float64)
    reach = distances.at_least(kth.take(places))
    density = 1.0 / (reach.mean() + 1e-10)
    ratios = writer.const(np.asarray(model._lrd), np.float64).take(places)
    return -(ratios / density.reshape(-1, 1)).mean() - float(model.offset_)


@writes("decision", "LocalOutlierFactor")
def factor_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The density about a row against that about its neighbours."""
    return _outlier_factor(writer, model, x).floats()


@writes("label", "LocalOutlierFactor")
def factor_label(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Inside or outside."""
    return signs(_outlier_factor(writer, model, x))
