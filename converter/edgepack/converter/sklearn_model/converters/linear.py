"""Models that are a product with coefficients."""

from typing import Any

import numpy as np

from edgepack.converter.sklearn_model.converters.methods import (
    call,
    index_of_decision,
    writes,
)
from edgepack.converter.sklearn_model.converters.writer import Value, Writer

_CLASSIFIERS = (
    "LinearSVC",
    "LinearDiscriminantAnalysis",
    "LogisticRegression",
    "LogisticRegressionCV",
    "PassiveAggressiveClassifier",
    "Perceptron",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "SGDClassifier",
)


@writes("decision", *_CLASSIFIERS)
def decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """`x @ coef_.T + intercept_`; of two classes the second one's as a vector."""
    coefficients = np.atleast_2d(np.asarray(model.coef_))
    found = x @ writer.const(coefficients.T) + writer.const(np.asarray(model.intercept_, float))
    return found.reshape(-1) if len(coefficients) == 1 else found


def two_columns(writer: Writer, second: Value) -> Value:
    """Probabilities (N, 2) of those of the second class (N,)."""
    column = second.reshape(-1, 1)
    return writer.concat([1.0 - column, column])


@writes("proba", "LinearDiscriminantAnalysis", "LogisticRegression", "LogisticRegressionCV")
def proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Logistic function of the decision, or softmax."""
    scores = decision(writer, model, x)
    if len(np.atleast_2d(model.coef_)) == 1:
        return two_columns(writer, scores.unary("Sigmoid"))
    if getattr(model, "solver", "") == "liblinear":
        each = scores.unary("Sigmoid")
        return each / each.sum(keep=True)
    return scores.softmax()


@writes("index", *_CLASSIFIERS)
def index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """By the decision, also where there are probabilities."""
    scores = decision(writer, model, x)
    return index_of_decision(scores, len(np.atleast_2d(model.coef_)) + 1)


@writes("transform", "LinearDiscriminantAnalysis")
def discriminants(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The projection that tells the classes apart best."""
    axes = model.scalings_[:, : model._max_components]
    if model.solver == "svd":
        x = x - writer.const(model.xbar_)
    return x @ writer.const(axes)


@writes("value", "CCA", "PLSCanonical", "PLSRegression")
def partial_least_squares(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Centred rows times coefficients."""
    centred = x - writer.const(model._x_mean)
    found = centred @ writer.const(model.coef_.T) + writer.const(model.intercept_)
    return found.reshape(-1) if model._predict_1d else found


@writes("transform", "CCA", "PLSCanonical", "PLSRegression", "PLSSVD")
def x_scores(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Standardised rows, rotated."""
    axes = model.x_weights_ if type(model).__name__ == "PLSSVD" else model.x_rotations_
    scaled = (x - writer.const(model._x_mean)) / writer.const(model._x_std)
    return scaled @ writer.const(axes)


@writes("value", "IsotonicRegression")
def isotonic(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Straight lines between the fitted steps."""
    if x.dtype == writer.dtype and len(model.X_thresholds_) == 1:
        return x.reshape(-1) * 0.0 + float(model.y_thresholds_[0])
    clipped = x.reshape(-1)
    found = interpolate(writer, clipped, model.X_thresholds_, model.y_thresholds_)
    if model.out_of_bounds == "clip":
        return found
    outside = (clipped < float(model.X_min_)).either(clipped > float(model.X_max_))
    return writer.where(outside, writer.const(np.array(np.nan)), found)


def interpolate(writer: Writer, x: Value, places: Any, values: Any) -> Value:  # noqa: ANN401
    """`numpy.interp`: constant outside.

    Args:
        writer: Of the graph.
        x: Floats (N,).
        places: Ascending, (M,), M at least 2.
        values: At the places, (M,).
    """
    places, values = np.asarray(places, np.float64), np.asarray(values, np.float64)
    widths = np.diff(places)
    slopes = np.divide(np.diff(values), widths, out=np.zeros(len(widths)), where=widths > 0)
    inside = x.at_least(places[0]).at_most(places[-1])
    # How many of the inner places lie below: which piece a value is on.
    above = inside.unsqueeze(1) > writer.const(places[1:-1].reshape(1, -1))
    piece = above.cast("int64").sum() if len(places) > 2 else (inside < places[0]).cast("int64")
    start = writer.const(places[:-1]).take(piece)
    return writer.const(slopes).take(piece) * (inside - start) + writer.const(values[:-1]).take(
        piece
    )


@writes("label", "SGDOneClassSVM")
def sgd_label(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Inside where the decision is not negative."""
    return signs(call(writer, model, "decision", x).reshape(-1))


@writes("decision", "SGDOneClassSVM")
def sgd_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """`x @ coef_ - offset_`."""
    found = x @ writer.const(model.coef_.reshape(-1, 1))
    return found.reshape(-1) - writer.const(np.asarray(model.offset_, float).reshape(-1))


def signs(decision: Value) -> Value:
    """1 where the decision is at least 0, else -1."""
    return (decision >= 0.0).cast("int64") * 2 - 1
