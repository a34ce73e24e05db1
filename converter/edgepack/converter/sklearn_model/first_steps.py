"""Which estimators inside a model see the caller's own columns."""

from collections.abc import Iterator
from typing import Any

from sklearn.pipeline import FeatureUnion, Pipeline

from edgepack.converter.gbm_model.library_of import library_of

_HOLDERS = ("estimator_", "best_estimator_", "regressor_", "estimator")
_LISTS = ("estimators_", "calibrated_classifiers_")


def seeing_columns(model: Any) -> Iterator[Any]:  # noqa: ANN401
    """The estimators that are given what the caller gives: those that hold no others."""
    if isinstance(model, Pipeline):
        first = _first(model)
        yield from () if first is None else seeing_columns(first)
        return
    if isinstance(model, FeatureUnion):
        for _, step in model.transformer_list:
            if not isinstance(step, str):
                yield from seeing_columns(step)
        return
    inner = held(model)
    if not inner:
        yield model
    for item in inner:
        yield from seeing_columns(item)


def holds_others(model: Any) -> bool:  # noqa: ANN401
    """Tell whether a CalibratedClassifierCV or its like sees the columns, and hands them on."""
    while isinstance(model, Pipeline):
        model = _first(model)
    return not isinstance(model, FeatureUnion) and bool(held(model))


def _first(model: Pipeline) -> Any:  # noqa: ANN401
    steps = [step for _, step in model.steps if step is not None and not isinstance(step, str)]
    return steps[0] if steps else None


def held(model: Any) -> list[Any]:  # noqa: ANN401
    """The fitted estimators that an estimator asks, each with all columns."""
    if library_of(model) or getattr(model, "estimators_features_", None) is not None:
        return []
    for name in _LISTS:
        inner = getattr(model, name, ())
        if isinstance(inner, list) and inner:
            return [item for item in inner if not isinstance(item, str)]
    inner = next((getattr(model, name) for name in _HOLDERS if hasattr(model, name)), None)
    return [inner] if hasattr(inner, "predict") else []
