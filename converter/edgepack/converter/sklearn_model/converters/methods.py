"""Finds what writes a method of an estimator.

Methods are scikit-learn's, save that labels are numbers inside the graph:

| method | gives |
|---|---|
| index | classifiers: int64 (N,), the place of the predicted class in `classes_` |
| proba | classifiers: floats (N, C), `predict_proba` |
| decision | `decision_function`: floats (N,) or (N, C) |
| value | regressors: floats (N,) or (N, T), `predict` |
| label | outlier detectors and clusterers: int64 (N,), `predict` |
| transform | floats (N, K) |
"""

from collections.abc import Callable
from typing import Any

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.writer import Value, Writer

Method = Callable[[Writer, Any, Value], Value]
_METHODS: dict[tuple[str, str], Method] = {}
_FALLBACK: list[Callable[[Writer, Any, str, Value], Value]] = []
_SKLEARN_NAMES = {
    "index": "predict",
    "proba": "predict_proba",
    "decision": "decision_function",
    "value": "predict",
    "label": "predict",
    "transform": "transform",
}


def writes(method: str, *estimators: str) -> Callable[[Method], Method]:
    """Say that a function writes a method of these classes."""

    def remember(function: Method) -> Method:
        for estimator in estimators:
            _METHODS[estimator, method] = function
        return function

    return remember


def use_fallback(function: Callable[[Writer, Any, str, Value], Value]) -> None:
    """Set what writes a method that no family has."""
    _FALLBACK[:] = [function]


def knows(name: str) -> bool:
    """Tell whether a family writes a method of the class of this name."""
    return any(estimator == name for estimator, _ in _METHODS)


def offers(model: Any, method: str) -> bool:  # noqa: ANN401
    """Tell whether the fitted estimator itself has a method."""
    return hasattr(model, _SKLEARN_NAMES[method])


def call(writer: Writer, model: Any, method: str, x: Value) -> Value:  # noqa: ANN401
    """Write what a method of an estimator gives for x.

    Raises:
        UnsupportedModelError: Neither a family of ours nor skl2onnx can.
    """
    found = _METHODS.get((type(model).__name__, method))
    if found is not None:
        return found(writer, model, x)
    if method == "index":
        return index_of_scores(writer, model, x)
    if not _FALLBACK:
        raise UnsupportedModelError(f"{type(model).__name__} has no ONNX form of {method}")
    return _FALLBACK[0](writer, model, method, x)


def index_of_scores(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """The predicted class by the scores: what nearly all classifiers do."""
    name = type(model).__name__
    own_scores = (name, "decision") in _METHODS and (name, "proba") not in _METHODS
    if not own_scores and offers(model, "proba"):
        return call(writer, model, "proba", x).argmax()
    if offers(model, "decision"):
        return index_of_decision(call(writer, model, "decision", x), len(model.classes_))
    return _FALLBACK[0](writer, model, "index", x)


def index_of_decision(decision: Value, classes: int) -> Value:
    """The class that a decision function prefers."""
    if classes > 2:
        return decision.argmax()
    return (decision.reshape(-1) > 0).cast("int64")
