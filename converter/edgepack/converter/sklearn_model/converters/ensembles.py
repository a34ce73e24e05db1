"""Ensembles of any estimators."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.linear import interpolate, two_columns
from edgepack.converter.sklearn_model.converters.methods import (
    call,
    index_of_decision,
    offers,
    writes,
)
from edgepack.converter.sklearn_model.converters.writer import Value, Writer

_STACKED = {"predict_proba": "proba", "decision_function": "decision", "predict": "value"}


def total(values: list[Value]) -> Value:
    """The sum, in order, as scikit-learn adds."""
    found = values[0]
    for value in values[1:]:
        found = found + value
    return found


def one_hot(writer: Writer, index: Value, classes: int) -> Value:
    """1 in the column of the class, floats (N, C)."""
    numbers = writer.const(np.arange(classes).reshape(1, -1))
    return index.reshape(-1, 1).equals(numbers).floats()


def _seen(model: Any, place: int, x: Value) -> Value:  # noqa: ANN401
    columns = np.asarray(model.estimators_features_[place])
    if np.array_equal(columns, np.arange(model.n_features_in_)):
        return x
    return x.columns(columns)


@writes("proba", "BaggingClassifier")
def bagged_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean of the members' probabilities, or their votes."""
    classes = len(model.classes_)
    parts = []
    for place, item in enumerate(model.estimators_):
        seen = _seen(model, place, x)
        if not offers(item, "proba"):
            own = writer.const(np.asarray(item.classes_).astype(np.int64))
            parts.append(one_hot(writer, own.take(call(writer, item, "index", seen)), classes))
            continue
        found = call(writer, item, "proba", seen)
        if len(item.classes_) != classes:
            spread = np.eye(classes)[np.asarray(item.classes_).astype(int)]
            found = found @ writer.const(spread)
        parts.append(found)
    return total(parts) / float(len(parts))


@writes("value", "BaggingRegressor")
def bagged_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean of the members."""
    parts = [
        call(writer, item, "value", _seen(model, place, x))
        for place, item in enumerate(model.estimators_)
    ]
    return total(parts) / float(len(parts))


@writes("decision", "BaggingClassifier")
def bagged_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean of the members' decisions."""
    parts = [
        call(writer, item, "decision", _seen(model, place, x))
        for place, item in enumerate(model.estimators_)
    ]
    return total(parts) / float(len(parts))


@writes("index", "BaggingClassifier")
def bagged_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The class of the largest share."""
    return bagged_proba(writer, model, x).argmax()


@writes("decision", "AdaBoostClassifier")
def boosted_decision(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Votes by the members' weights."""
    classes = int(model.n_classes_)
    parts = []
    for item, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        places = np.searchsorted(model.classes_, item.classes_)
        index = writer.const(places).take(call(writer, item, "index", x))
        chosen = one_hot(writer, index, classes)
        low = -float(weight) / (classes - 1)
        parts.append(chosen * (float(weight) - low) + low)
    found = total(parts) / float(model.estimator_weights_.sum())
    return found.column(1) - found.column(0) if classes == 2 else found


@writes("proba", "AdaBoostClassifier")
def boosted_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Softmax of the decision."""
    found = boosted_decision(writer, model, x)
    classes = int(model.n_classes_)
    if classes == 2:
        column = found.reshape(-1, 1) / 2.0
        return writer.concat([-column, column]).softmax()
    return (found / float(classes - 1)).softmax()


@writes("index", "AdaBoostClassifier")
def boosted_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """By the decision."""
    return index_of_decision(boosted_decision(writer, model, x), int(model.n_classes_))


@writes("value", "AdaBoostRegressor")
def boosted_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The weighted median of the members."""
    members = model.estimators_
    each = writer.concat([call(writer, item, "value", x).reshape(-1, 1) for item in members])
    ordered, places = writer.ops(
        "TopK",
        each,
        writer.const(np.array([len(members)])),
        dtypes=(each.dtype, np.int64),
        axis=1,
        largest=0,
        sorted=1,
    )
    weights = np.asarray(model.estimator_weights_[: len(members)], dtype=np.float64)
    sums = writer.op(
        "CumSum", writer.const(weights, np.float64).take(places), writer.const(np.array(1))
    )
    enough = (sums >= sums.columns([-1]) * 0.5).cast(np.int64)
    middle = one_hot(writer, enough.argmax(), len(members))
    return (ordered * middle).sum()


@writes("proba", "VotingClassifier")
def voted_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The weighted mean of the members' probabilities."""
    return _weighted(model, [call(writer, item, "proba", x) for item in model.estimators_])


def _weighted(model: Any, parts: list[Value]) -> Value:  # noqa: ANN401
    weights = model._weights_not_none
    if weights is None:
        return total(parts) / float(len(parts))
    scaled = [part * float(weight) for part, weight in zip(parts, weights, strict=True)]
    return total(scaled) / float(sum(weights))


@writes("index", "VotingClassifier")
def voted_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """By the mean probability, or by the most votes."""
    if model.voting == "soft":
        return voted_proba(writer, model, x).argmax()
    classes = len(model.classes_)
    parts = [one_hot(writer, call(writer, item, "index", x), classes) for item in model.estimators_]
    return _weighted(model, parts).argmax()


@writes("value", "VotingRegressor")
def voted_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The weighted mean of the members."""
    return _weighted(model, [call(writer, item, "value", x) for item in model.estimators_])


def _stacked(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """What the final estimator gets."""
    parts = []
    for item, name in zip(
        [item for item in model.estimators_ if item != "drop"], model.stack_method_, strict=False
    ):
        method = _STACKED[name]
        if method == "value" and is_classifier(item):
            labels = np.asarray(item.classes_)
            if labels.dtype.kind not in "biuf":
                raise UnsupportedModelError("stacked labels must be numbers, got text")
            found = writer.const(labels.astype(float)).take(call(writer, item, "index", x))
        else:
            found = call(writer, item, method, x)
        if method == "proba" and len(model.classes_) == 2:
            found = found.columns([1])
        elif method == "proba":
            pass
        else:
            classes = len(getattr(model, "classes_", ()))
            wide = method == "decision" and classes > 2
            found = found if wide else found.reshape(-1, 1)
        parts.append(found.floats())
    return writer.concat([*parts, x.floats()] if model.passthrough else parts)


def _finish(method: str) -> Any:  # noqa: ANN401
    def write(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
        return call(writer, model.final_estimator_, method, _stacked(writer, model, x))

    write.__doc__ = f"The final estimator's {method} of what the members give."
    return write


for _method in ("index", "proba", "decision"):
    writes(_method, "StackingClassifier")(_finish(_method))
writes("value", "StackingRegressor")(_finish("value"))


@writes("proba", "CalibratedClassifierCV")
def calibrated_proba(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The mean of the calibrated members' probabilities."""
    members = model.calibrated_classifiers_
    return total([_calibrated(writer, item, x) for item in members]) / float(len(members))


def _calibrated(writer: Writer, member: Any, x: Value) -> Value:  # noqa: ANN401
    classes = len(member.classes)
    inner = member.estimator
    decided = offers(inner, "decision")
    scores = call(writer, inner, "decision" if decided else "proba", x)
    if classes == 2:
        scores = scores.reshape(-1, 1) if decided else scores.columns([1])
    if member.method == "temperature":
        return _tempered(writer, member, scores, decided=decided, classes=classes)
    places = np.searchsorted(member.classes, inner.classes_)
    columns: dict[int, Value] = {}
    for order, calibrator in enumerate(member.calibrators):
        place = 1 if classes == 2 else int(places[order])
        columns[place] = _curve(writer, calibrator, scores.column(order))
    if classes == 2:
        return two_columns(writer, columns[1])
    zero = columns[int(places[0])] * 0.0
    found = writer.concat([columns.get(item, zero).reshape(-1, 1) for item in range(classes)])
    sums = found.sum(keep=True)
    none = sums.equals(0.0)
    even = writer.const(np.full((1, classes), 1 / classes))
    return writer.where(none, even, found / writer.where(none, writer.const(np.array(1.0)), sums))


def _curve(writer: Writer, calibrator: Any, scores: Value) -> Value:  # noqa: ANN401
    if hasattr(calibrator, "a_"):
        return (-(scores * float(calibrator.a_) + float(calibrator.b_))).unary("Sigmoid")
    if len(calibrator.X_thresholds_) == 1:
        return scores * 0.0 + float(calibrator.y_thresholds_[0])
    return interpolate(writer, scores, calibrator.X_thresholds_, calibrator.y_thresholds_)


def _tempered(writer: Writer, member: Any, scores: Value, *, decided: bool, classes: int) -> Value:  # noqa: ANN401
    if classes == 2 and not decided:
        scores = writer.concat([1.0 - scores, scores])
    if decided:
        logits = writer.concat([-scores, scores]) if classes == 2 else scores
    else:
        logits = (scores + float(np.finfo(np.float64).tiny)).log()
    return (logits * float(member.calibrators[0].beta_)).softmax()
