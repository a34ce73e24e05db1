"""Support vector machines: decisions as scikit-learn makes them of libsvm's."""

from itertools import combinations
from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.fallback import by_skl2onnx
from edgepack.converter.sklearn_model.converters.kernels import kernel
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.runtime.tensors import Array


def _kernels(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    if getattr(model, "_sparse", False):
        raise UnsupportedModelError(f"{type(model).__name__} was fitted on a sparse matrix")
    if model.kernel == "precomputed":
        return x.cast(np.float64).columns(model.support_)
    return kernel(
        writer,
        x,
        model.support_vectors_,
        model.kernel,
        gamma=model._gamma,
        degree=model.degree,
        coef0=model.coef0,
    )


def _one_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    weights = np.asarray(model.dual_coef_, dtype=np.float64)
    found = _kernels(writer, model, x) @ writer.const(weights.T, np.float64)
    return found.reshape(-1) + float(np.ravel(model.intercept_)[0])


@writes("value", "SVR", "NuSVR")
def value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The weighted kernels."""
    return _one_decision(writer, model, x).floats()


@writes("decision", "OneClassSVM")
def one_class_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The weighted kernels."""
    return _one_decision(writer, model, x).floats()


@writes("label", "OneClassSVM")
def one_class_label(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Inside where the decision is positive."""
    inside = _one_decision(writer, model, x) > 0.0
    return inside.cast("int64") * 2 - 1


def pair_matrices(classes: int) -> tuple[Array, Array]:
    """For each pair of classes its first and its second one, as float64 (pairs, classes)."""
    pairs = list(combinations(range(classes), 2))
    first, second = np.zeros((2, len(pairs), classes))
    for place, (one, other) in enumerate(pairs):
        first[place, one] = second[place, other] = 1.0
    return first, second


def _pair_decisions(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """One decision for each pair of classes, positive for the first, float64."""
    classes = len(model.classes_)
    ends = np.concatenate([[0], np.cumsum(model.n_support_)])
    dual = np.asarray(model._dual_coef_, dtype=np.float64)
    weights = np.zeros((dual.shape[1], classes * (classes - 1) // 2))
    for place, (one, other) in enumerate(combinations(range(classes), 2)):
        weights[ends[one] : ends[one + 1], place] = dual[other - 1, ends[one] : ends[one + 1]]
        weights[ends[other] : ends[other + 1], place] = dual[one, ends[other] : ends[other + 1]]
    found = _kernels(writer, model, x) @ writer.const(weights, np.float64)
    return found + writer.const(np.asarray(model._intercept_), np.float64)


def votes(writer: Writer, second_wins: Value, confidences: Value, classes: int) -> Value:
    """One score for each class of the decisions for each pair, float64 (N, C).

    Args:
        writer: Of the graph.
        second_wins: Whether the second of a pair is preferred, bool (N, P).
        confidences: How much, float64 (N, P).
        classes: C.
    """
    first, second = pair_matrices(classes)
    other = second_wins.cast(np.float64)
    counts = (1.0 - other) @ writer.const(first, np.float64)
    counts = counts + other @ writer.const(second, np.float64)
    sums = confidences @ writer.const(second - first, np.float64)
    return counts + sums / ((sums.unary("Abs") + 1.0) * 3.0)


@writes("decision", "SVC", "NuSVC")
def decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Of two classes the second one's; of more, votes or each pair's."""
    classes = len(model.classes_)
    if classes == 2:
        return _one_decision(writer, model, x).floats()
    pairs = _pair_decisions(writer, model, x)
    if model.decision_function_shape != "ovr":
        return pairs.floats()
    return votes(writer, pairs < 0.0, -pairs, classes).floats()


@writes("index", "SVC", "NuSVC")
def index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The class with most votes, the first of equals."""
    classes = len(model.classes_)
    if classes == 2:
        return (_one_decision(writer, model, x) > 0.0).cast("int64")
    if model.break_ties and model.decision_function_shape == "ovr":
        return decision(writer, model, x).argmax()
    first, second = pair_matrices(classes)
    wins = (_pair_decisions(writer, model, x) > 0.0).cast(np.float64)
    counts = wins @ writer.const(first, np.float64)
    return (counts + (1.0 - wins) @ writer.const(second, np.float64)).argmax()


@writes("proba", "SVC", "NuSVC")
def proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """By skl2onnx's operator: it iterates from Platt's logistic functions as coarsely as libsvm."""
    return by_skl2onnx(writer, model, "proba", x)
