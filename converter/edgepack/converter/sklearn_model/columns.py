"""Which columns a fitted estimator takes, and which of them as text."""

from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.first_steps import holds_others, seeing_columns
from edgepack.converter.sklearn_model.own_categories import own_categories

_READERS = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
_NO_TABLE = {
    "DictVectorizer": "takes dictionaries, which no device sends",
    "FeatureHasher": "hashes names with a function that ONNX lacks: use OneHotEncoder",
}
_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


def _column_transformers(model: Any) -> list[ColumnTransformer]:  # noqa: ANN401
    """The ColumnTransformers that see the caller's own columns, if nothing else does."""
    first = list(seeing_columns(model))
    return first if all(isinstance(item, ColumnTransformer) for item in first) else []


def takes_texts(model: Any) -> bool:  # noqa: ANN401
    """Tell whether the model takes one text a row, as a vector instead of a table.

    Raises:
        UnsupportedModelError: It takes what is no table at all.
    """
    names = [type(item).__name__ for item in seeing_columns(model)]
    for name in names:
        if name in _NO_TABLE:
            raise UnsupportedModelError(f"{name} {_NO_TABLE[name]}")
    return bool(names) and all(name in _READERS for name in names)


def needed_columns(model: Any) -> list[int]:  # noqa: ANN401
    """Positions of the columns that matter: what a ColumnTransformer drops is not asked for."""
    transformers = _column_transformers(model)
    if not transformers or holds_others(model):
        return list(range(_column_count(model)))
    used: set[int] = set()
    for transformer in transformers:
        for name, step, _ in transformer.transformers_:
            if not (isinstance(step, str) and step == "drop"):
                used.update(_indices(transformer, name))
    return sorted(used)


def caller_steps(model: Any) -> list[tuple[Any, list[int]]]:  # noqa: ANN401
    """What sees the caller's own columns first, each with their positions."""
    found: list[tuple[Any, list[int]]] = []
    for first in seeing_columns(model):
        if isinstance(first, ColumnTransformer):
            found += [(step, _indices(first, name)) for name, step, _ in first.transformers_]
        else:
            found.append((first, list(range(_column_count(model)))))
    return found


def text_columns(model: Any) -> list[int]:  # noqa: ANN401
    """Positions of the columns whose encoder, or model that encodes itself, was fitted on text."""
    if takes_texts(model):
        return [0]
    found = [p for p, items in own_categories(model).items() if items.dtype == np.object_]
    for step, columns in caller_steps(model):
        found += _encoder_texts(step, columns)
    return sorted(set(found))


def renumber(model: Any, kept: list[int]) -> None:  # noqa: ANN401
    """Make the first ColumnTransformers ask for columns by their position among `kept`.

    skl2onnx finds columns by name only among inputs of those names; a matrix has none.
    """
    place = {column: index for index, column in enumerate(kept)}
    for transformer in _column_transformers(model):
        transformer.transformers_ = [
            (name, step, [place[item] for item in _indices(transformer, name) if item in place])
            for name, step, _ in transformer.transformers_
        ]


def _column_count(model: Any) -> int:  # noqa: ANN401
    return 1 if takes_texts(model) else int(getattr(model, "n_features_in_", 0) or 0)


def _indices(transformer: ColumnTransformer, name: str) -> list[int]:
    found = transformer._transformer_to_input_indices.get(name, [])
    return [int(index) for index in found]


def _encoder_texts(step: Any, columns: list[int]) -> list[int]:  # noqa: ANN401
    while isinstance(step, Pipeline) and step.steps:
        # An imputer keeps the columns' order and kind; whatever else comes first does not.
        inner = [item for _, item in step.steps if type(item).__name__ != "SimpleImputer"]
        if not inner:
            return []
        step = inner[0]
    if type(step).__name__ in _READERS:
        return columns
    if type(step).__name__ not in _ENCODERS or not hasattr(step, "categories_"):
        return []
    return [
        column
        for column, categories in zip(columns, step.categories_, strict=False)
        if categories.dtype.kind in "OU" and any(isinstance(item, str) for item in categories)
    ]
