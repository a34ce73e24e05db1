"""Models that number categories themselves: trained on pandas columns of the type category.

The graph gets an encoder before the model, and a copy of the model that takes numbers. What was
no category when the model was trained is missing to it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.gbm_model.library_of import library_of
from edgepack.converter.gbm_model.own_categories import (
    lightgbm_categories,
    without_xgboost_categories,
    xgboost_categories,
)
from edgepack.converter.sklearn_model.first_steps import seeing_columns
from edgepack.runtime.tensors import Array


def own_categories(model: Any) -> dict[int, Array]:  # noqa: ANN401
    """The categories that a model numbers itself, by the position of the caller's column.

    Raises:
        UnsupportedModelError: It holds several models that see the caller's columns, and not all
            of them number the same categories.
    """
    every = [_categories_of(item) for item in seeing_columns(model)]
    found = next((item for item in every if item), {})
    if found and not all(_same(found, other) for other in every):
        raise UnsupportedModelError(
            f"{type(model).__name__} holds models of which each numbers other categories: encode "
            "such columns in a pipeline before it (OrdinalEncoder)"
        )
    return found


def as_categories(frame: Any, model: Any, categories: Mapping[int, Array]) -> Any:  # noqa: ANN401
    """A DataFrame whose columns have the type that XGBoost and LightGBM ask for."""
    if not categories or not any(library_of(item) for item in seeing_columns(model)):
        return frame  # scikit-learn takes text as it is
    from pandas import CategoricalDtype

    types = {
        frame.columns[place]: CategoricalDtype(items.tolist())
        for place, items in categories.items()
    }
    return frame.astype(types)


def number_categories(model: Any, categories: Mapping[int, Array], columns: int) -> Any:  # noqa: ANN401
    """A pipeline of an encoder and the model, which is changed, in place, to take its numbers."""
    if not categories:
        return model
    for item in list(seeing_columns(model)):
        _take_numbers(item)
    return behind_numbers(model, categories, columns, unknown=np.nan)


def behind_numbers(
    model: Any,  # noqa: ANN401
    categories: Mapping[int, Array],
    columns: int,
    *,
    unknown: float,
) -> Any:  # noqa: ANN401
    """A pipeline of an encoder, which gives numbers of categories, and a model that takes them."""
    row = np.zeros((1, columns), dtype=np.object_)
    steps: list[tuple[str, Any, list[int]]] = []
    for place in range(columns):
        step: Any = "passthrough"
        if place in categories:
            items = categories[place]
            row[0, place] = items[0]
            step = encoder_of(items, unknown)
        steps.append((f"column{place}", step, [place]))
    return Pipeline([("categories", ColumnTransformer(steps).fit(row)), ("model", model)])


def encoder_of(categories: Array, unknown: float) -> OrdinalEncoder:
    """A fitted encoder that gives the numbers of categories."""
    encoder = OrdinalEncoder(
        categories=[categories], handle_unknown="use_encoded_value", unknown_value=unknown
    )
    return encoder.fit(categories.reshape(-1, 1))


def _categories_of(model: Any) -> dict[int, Array]:  # noqa: ANN401
    library = library_of(model)
    if library == "xgboost":
        return xgboost_categories(model.get_booster())
    if library == "lightgbm":
        return lightgbm_categories(model.booster_)
    return {
        place: _known(categories)
        for place, categories in _histogram_encoder(model)
        if categories.dtype.kind in "OUT"
    }


def _take_numbers(model: Any) -> None:  # noqa: ANN401
    library = library_of(model)
    if library == "xgboost":
        model._Booster = without_xgboost_categories(model.get_booster())
    elif library == "lightgbm":
        model.booster_.pandas_categorical = None
    elif (pairs := _histogram_encoder(model)) and (step := _encoder_step(model)) is not None:
        step.categories_ = [
            np.arange(float(len(_known(item)))) if item.dtype.kind in "OUT" else item
            for _, item in pairs
        ]


def _histogram_encoder(model: Any) -> Sequence[tuple[int, Array]]:  # noqa: ANN401
    """Position and categories of each column that a HistGradientBoosting model encodes."""
    step = _encoder_step(model)
    if step is None:
        return ()
    places = np.flatnonzero(np.asarray(model.is_categorical_)).tolist()
    return [(p, np.asarray(c)) for p, c in zip(places, step.categories_, strict=True)]


def _encoder_step(model: Any) -> Any:  # noqa: ANN401
    inner = getattr(model, "_preprocessor", None)
    if inner is None or not type(model).__name__.startswith("HistGradientBoosting"):
        return None
    return {name: step for name, step, _ in inner.transformers_}.get("encoder")


def _known(categories: Array) -> Array:
    """The categories without the mark of a missing value, which stands last."""
    texts = [item for item in categories.tolist() if isinstance(item, str)]
    return np.array(texts, dtype=np.object_)


def _same(one: Mapping[int, Array], other: Mapping[int, Array]) -> bool:
    return one.keys() == other.keys() and all(
        one[place].tolist() == other[place].tolist() for place in one
    )
