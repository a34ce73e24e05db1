"""Estimators that ask another one, and change what goes in or comes out."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.features import scaled_back
from edgepack.converter.sklearn_model.converters.functions import write_function
from edgepack.converter.sklearn_model.converters.methods import call, offers, writes
from edgepack.converter.sklearn_model.converters.writer import Value, Writer

_METHODS = ("index", "label", "value", "transform", "decision", "proba")
_INNER = {
    "FrozenEstimator": "estimator",
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "RANSACRegressor": "estimator_",
    "RandomizedSearchCV": "best_estimator_",
    "SelfTrainingClassifier": "estimator_",
}


def _asks(attribute: str, method: str) -> Callable[[Writer, Any, Value], Value]:
    def write(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
        return call(writer, getattr(model, attribute), method, x)

    return write


for _name, _attribute in _INNER.items():
    for _method in _METHODS:
        writes(_method, _name)(_asks(_attribute, _method))


def _thresholded(model: Any) -> Any:  # noqa: ANN401
    return getattr(model, "estimator_", None) or model.estimator


for _method in ("proba", "decision"):

    def _scores(writer: Writer, model: Any, x: Value, method: str = _method) -> Value:  # noqa: ANN401
        return call(writer, _thresholded(model), method, x)

    writes(_method, "FixedThresholdClassifier", "TunedThresholdClassifierCV")(_scores)


@writes("index", "FixedThresholdClassifier", "TunedThresholdClassifierCV")
def thresholded_index(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The positive class from a score on."""
    inner = _thresholded(model)
    wanted = model.response_method
    methods = {"predict_proba": "proba", "decision_function": "decision"}
    method = methods.get(wanted) or ("proba" if offers(inner, "proba") else "decision")
    positive, threshold = _threshold(model, method)
    place = int(np.flatnonzero(np.asarray(model.classes_) == positive)[0])
    if method == "proba":
        score = call(writer, inner, "proba", x).column(place)
    else:
        score = call(writer, inner, "decision", x).reshape(-1)
        score = score if place == 1 else -score
    is_positive = (score >= threshold).cast(np.int64)
    return is_positive if place == 1 else 1 - is_positive


def _threshold(model: Any, method: str) -> tuple[Any, float]:  # noqa: ANN401
    positive = getattr(model, "pos_label", None)
    if hasattr(model, "best_threshold_"):
        positive = model._curve_scorer._get_pos_label()
        threshold = float(model.best_threshold_)
    elif model.threshold == "auto":
        threshold = 0.5 if method == "proba" else 0.0
    else:
        threshold = float(model.threshold)
    return (model.classes_[1] if positive is None else positive), threshold


@writes("value", "TransformedTargetRegressor")
def transformed_target(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The inner regressor's answer, turned back."""
    found = call(writer, model.regressor_, "value", x)
    inner = model.transformer_
    vector = getattr(model, "_training_dim", 1) == 1
    if type(inner).__name__ == "FunctionTransformer":
        found = write_function(writer, inner.inverse_func, found, inner.inv_kw_args)
    else:
        found = scaled_back(writer, inner, found.reshape(-1, 1) if vector else found)
    return found.reshape(-1) if vector else found


@writes("value", "MultiOutputRegressor")
def each_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """One regressor for each column."""
    return writer.concat(
        [call(writer, item, "value", x).reshape(-1, 1) for item in model.estimators_]
    )


@writes("value", "RegressorChain")
def chained_value(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Each regressor sees the answers of those before it."""
    seen, found = x, []
    for item in model.estimators_:
        answer = call(writer, item, "value", seen).reshape(-1, 1)
        found.append(answer)
        seen = writer.concat([seen, answer.cast(seen.dtype)])
    order = np.argsort(np.asarray(model.order_))
    return writer.concat([found[place] for place in order])


def _kept(model: Any) -> Any:  # noqa: ANN401
    return np.flatnonzero(model.get_support())


for _method in ("index", "value", "proba", "decision"):

    def _selected(writer: Writer, model: Any, x: Value, method: str = _method) -> Value:  # noqa: ANN401
        return call(writer, model.estimator_, method, x.columns(_kept(model)))

    writes(_method, "RFE", "RFECV")(_selected)


for _method in _METHODS:

    def _piped(writer: Writer, model: Any, x: Value, method: str = _method) -> Value:  # noqa: ANN401
        for _, step in model.steps[:-1]:
            if step not in (None, "passthrough"):
                x = call(writer, step, "transform", x)
        last = model.steps[-1][1]
        return x if last in (None, "passthrough") else call(writer, last, method, x)

    writes(_method, "Pipeline")(_piped)


@writes("transform", "FeatureUnion")
def united(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """All transformers' columns, side by side."""
    weights = model.transformer_weights or {}
    parts = []
    for name, step in model.transformer_list:
        if step == "drop":
            continue
        part = x if step == "passthrough" else call(writer, step, "transform", x)
        parts.append(part.floats() * float(weights[name]) if name in weights else part.floats())
    return writer.concat(parts)


@writes("transform", "ColumnTransformer")
def by_columns(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Each transformer's columns, side by side."""
    parts = []
    for name, step, _ in model.transformers_:
        places = [int(item) for item in model._transformer_to_input_indices.get(name, [])]
        if not places or (isinstance(step, str) and step == "drop"):
            continue
        part = x.columns(places)
        is_plain = isinstance(step, str) and step == "passthrough"
        parts.append((part if is_plain else call(writer, step, "transform", part)).floats())
    if not parts:
        raise UnsupportedModelError("the ColumnTransformer drops all columns")
    return writer.concat(parts)
