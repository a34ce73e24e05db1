"""Which columns a fitted estimator takes, and which of them as text."""

from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.own_categories import own_categories

_READERS = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
_NO_TABLE = {
    "DictVectorizer": "takes dictionaries, which no device sends",
    "FeatureHasher": "hashes names with a function that ONNX lacks: use OneHotEncoder",
}
_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


def first_column_transformer(model: Any) -> ColumnTransformer | None:  # noqa: ANN401
    """The ColumnTransformer that sees the caller's own columns, if there is one."""
    while isinstance(model, Pipeline):
        steps = [step for _, step in model.steps if step not in ("passthrough", None)]
        if not steps:
            return None
        model = steps[0]
    return model if isinstance(model, ColumnTransformer) else None


def takes_texts(model: Any) -> bool:  # noqa: ANN401
    """Tell whether the model takes one text a row, as a vector instead of a table.

    Raises:
        UnsupportedModelError: It takes what is no table at all.
    """
    while isinstance(model, Pipeline) and model.steps:
        model = model.steps[0][1]
    if isinstance(model, FeatureUnion):
        return all(takes_texts(step) for _, step in model.transformer_list)
    name = type(model).__name__
    if name in _NO_TABLE:
        raise UnsupportedModelError(f"{name} {_NO_TABLE[name]}")
    return name in _READERS


def needed_columns(model: Any) -> list[int]:  # noqa: ANN401
    """Positions of the columns that matter: what a ColumnTransformer drops is not asked for."""
    transformer = first_column_transformer(model)
    if transformer is None:
        return list(range(_column_count(model)))
    used: set[int] = set()
    for name, step, _ in transformer.transformers_:
        if not (isinstance(step, str) and step == "drop"):
            used.update(_indices(transformer, name))
    return sorted(used)


def caller_steps(model: Any) -> list[tuple[Any, list[int]]]:  # noqa: ANN401
    """What sees the caller's own columns first, each with their positions."""
    transformer = first_column_transformer(model)
    if transformer is not None:
        return [(step, _indices(transformer, name)) for name, step, _ in transformer.transformers_]
    first = model
    while isinstance(first, Pipeline) and first.steps:
        first = first.steps[0][1]
    return [(first, list(range(_column_count(model))))]


def text_columns(model: Any) -> list[int]:  # noqa: ANN401
    """Positions of the columns whose encoder, or model that encodes itself, was fitted on text."""
    if takes_texts(model):
        return [0]
    found = [p for p, items in own_categories(model).items() if items.dtype == np.object_]
    for step, columns in caller_steps(model):
        found += _encoder_texts(step, columns)
    return sorted(set(found))


def renumber(model: Any, kept: list[int]) -> None:  # noqa: ANN401
    """Make the first ColumnTransformer ask for columns by their position among `kept`.

    skl2onnx finds columns by name only among inputs of those names; a matrix has none.
    """
    transformer = first_column_transformer(model)
    if transformer is None:
        return
    place = {column: index for index, column in enumerate(kept)}
    transformer.transformers_ = [
        (name, step, [place[column] for column in _indices(transformer, name) if column in place])
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
