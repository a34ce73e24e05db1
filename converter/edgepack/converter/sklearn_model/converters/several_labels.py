"""Classifiers that give several labels a row."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.leaves import leaf_values, of_sklearn
from edgepack.converter.sklearn_model.converters.methods import call, writes
from edgepack.converter.sklearn_model.converters.neighbours import (
    nearest,
    shares_of,
    shares_within,
    weights_of,
    within,
)
from edgepack.converter.sklearn_model.converters.pairs import binary_score, score_threshold
from edgepack.converter.sklearn_model.converters.writer import Value, Writer
from edgepack.converter.sklearn_model.several_labels import (
    are_text,
    as_codes,
    probability_names,
    target_classes,
)
from edgepack.runtime.tensors import Array

# Places of the predicted classes, int64 (N,), one for each target; and probabilities, one output
# each, or none.
Targets = tuple[list[Value], list[Value]]
_TARGETS: dict[str, Callable[[Writer, Any, Value], Targets]] = {}
_INNER = {
    "FrozenEstimator": "estimator",
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "RandomizedSearchCV": "best_estimator_",
}
_FORESTS = ("ExtraTreesClassifier", "RandomForestClassifier")
_TREES = ("DecisionTreeClassifier", "ExtraTreeClassifier")
_UNARY = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}


def gives(*estimators: str) -> Callable[[Any], Any]:
    """Say that a function writes the several labels of these classes."""

    def remember(function: Callable[[Writer, Any, Value], Targets]) -> Any:  # noqa: ANN401
        for estimator in estimators:
            _TARGETS[estimator] = function
        return function

    return remember


@writes("labels", "ClassifierChain", "MultiOutputClassifier", "MLPClassifier")
def labels(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The labels alone, int64 or text (N, T)."""
    return several_outputs(writer, model, x)[0]


def several_outputs(writer: Writer, model: Any, x: Value) -> list[Value]:  # noqa: ANN401
    """The labels (N, T), then the probabilities, one output for each of `probability_names`."""
    indices, probabilities = _targets(writer, model, x)
    classes = target_classes(model)
    text = are_text(classes)
    columns = []
    for index, own in zip(indices, classes, strict=True):
        codes = as_codes(own, text=text)
        columns.append(writer.const(codes).take(index).reshape(-1, 1))
    names = probability_names(model)
    return [writer.concat(columns), *[item.floats() for item in probabilities[: len(names)]]]


def _targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    name = type(model).__name__
    if name in _INNER:
        return _targets(writer, getattr(model, _INNER[name]), x)
    if name == "Pipeline":
        for _, step in model.steps[:-1]:
            if step not in (None, "passthrough"):
                x = call(writer, step, "transform", x)
        return _targets(writer, model.steps[-1][1], x)
    if name not in _TARGETS:
        raise UnsupportedModelError(f"{name} with several labels a row has no ONNX form here")
    return _TARGETS[name](writer, model, x)


def _argmax(probabilities: list[Value]) -> Targets:
    return [item.argmax() for item in probabilities], probabilities


@gives("MultiOutputClassifier")
def each_target(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """One classifier for each target."""
    known = hasattr(model, "predict_proba")
    return (
        [call(writer, item, "index", x) for item in model.estimators_],
        [call(writer, item, "proba", x) for item in model.estimators_] if known else [],
    )


@gives("ClassifierChain")
def chained_targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """Each classifier sees what those before it said."""
    method = getattr(model, "chain_method_", "predict")
    known = hasattr(model, "predict_proba")
    # scikit-learn joins them as float64, whatever the rows are.
    seen, indices, probabilities = x, [], []
    for item in model.estimators_:
        index = call(writer, item, "index", seen)
        proba = call(writer, item, "proba", seen).columns([1]) if known else None
        said = _said(writer, item, method, index, seen)
        seen = writer.concat([seen, said.reshape(-1, 1).cast(seen.dtype)])
        indices.append(index)
        probabilities.append(proba)
    places = np.argsort(np.asarray(model.order_))
    columns = [item for place in places if (item := probabilities[place]) is not None]
    joined = [writer.concat(columns)] if columns else []
    return [indices[place] for place in places], joined


def _said(writer: Writer, item: Any, method: str, index: Value, seen: Value) -> Value:  # noqa: ANN401
    if method == "predict":
        return writer.const(np.asarray(item.classes_).astype(float)).take(index)
    if method == "decision_function":
        return call(writer, item, "decision", seen)
    found = call(writer, item, "proba", seen).column(1)
    return found.log() if method == "predict_log_proba" else found


@gives(*_TREES, *_FORESTS)
def forest_targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """The mean of the leaves' shares, target by target."""
    members = [model] if type(model).__name__ in _TREES else list(model.estimators_)
    sizes = [len(own) for own in target_classes(model)]
    trees = [of_sklearn(item.tree_, _all_shares(item.tree_.value, sizes)) for item in members]
    found = leaf_values(writer, x.cast(np.float32), trees)
    mean = found.sum() / float(len(trees))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return _argmax([mean.columns(np.arange(start, stop)) for start, stop in pairwise(starts)])


def _all_shares(counts: Array, sizes: list[int]) -> Array:
    """Shares of each target's classes (nodes, sum of sizes), of counts (nodes, T, most classes)."""
    parts = []
    for target, size in enumerate(sizes):
        own = counts[:, target, :size]
        sums = own.sum(axis=1, keepdims=True)
        parts.append(own / np.where(sums == 0, 1, sums) if (sums > 1.5).any() else own)
    return np.concatenate(parts, axis=1)


@gives("KNeighborsClassifier")
def neighbour_targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """The neighbours' shares of each class."""
    near, places = nearest(writer, model, x, int(model.n_neighbors))
    weights = weights_of(writer, model, near)
    known = np.asarray(model._y, dtype=np.int64)
    return _argmax(
        [
            shares_of(writer, known[:, target], len(own), places, weights)
            for target, own in enumerate(target_classes(model))
        ]
    )


@gives("RadiusNeighborsClassifier")
def radius_targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """The shares of each class within the radius."""
    weights, sums = within(writer, model, x)
    known = np.asarray(model._y, dtype=np.int64)
    outliers = model.outlier_label_
    return _argmax(
        [
            shares_within(
                writer, (weights, sums), known[:, target], own, outliers and outliers[target]
            )
            for target, own in enumerate(target_classes(model))
        ]
    )


@gives("MLPClassifier")
def network_targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """A network with a sigmoid for each label."""
    for place, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        last = place == len(model.coefs_) - 1
        x = x @ writer.const(weights) + writer.const(bias)
        function = model.out_activation_ if last else model.activation
        x = x.unary(_UNARY[function]) if function in _UNARY else x
    return _columns(x > 0.5, len(model.classes_)), [x]


@gives("RidgeClassifier", "RidgeClassifierCV")
def ridge_targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """Each label's decision."""
    coefficients = np.atleast_2d(np.asarray(model.coef_))
    found = x @ writer.const(coefficients.T) + writer.const(np.asarray(model.intercept_, float))
    return _columns(found > 0.0, len(coefficients)), []


@gives("OneVsRestClassifier")
def rest_targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """One model for each label."""
    indices = [
        (binary_score(writer, item, x) > score_threshold(model.estimators_[0])).cast(np.int64)
        for item in model.estimators_
    ]
    if not hasattr(model, "predict_proba"):
        return indices, []
    columns = [call(writer, item, "proba", x).columns([1]) for item in model.estimators_]
    return indices, [writer.concat(columns)]


@gives("DummyClassifier")
def constant_targets(writer: Writer, model: Any, x: Value) -> Targets:  # noqa: ANN401
    """The same for all rows."""
    if model._strategy in ("stratified", "uniform"):
        raise UnsupportedModelError(
            f"DummyClassifier(strategy={model._strategy!r}) draws its answers by chance"
        )
    zeros = x.columns([0]).is_nan().floats() * 0.0
    rows = model.predict_proba(np.zeros((1, 1)))
    return _argmax([zeros + writer.const(np.asarray(row, np.float64)) for row in rows])


def _columns(there: Value, count: int) -> list[Value]:
    index = there.cast(np.int64)
    return [index.column(place) for place in range(count)]
