"""Puts an encoder before a model in which CatBoost hashes categories of the caller's."""

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.compose import ColumnTransformer

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.gbm_model.hashed_categories import UNKNOWN, hashed_columns
from edgepack.converter.sklearn_model.columns import caller_steps, renumber
from edgepack.converter.sklearn_model.first_steps import holds_others, seeing_columns
from edgepack.converter.sklearn_model.hashed_models import HashedModel, passes, tell_categories
from edgepack.converter.sklearn_model.held_encoders import number_encoders
from edgepack.converter.sklearn_model.own_categories import behind_numbers, encoder_of
from edgepack.runtime.tensors import Array


def number_hashed(
    model: Any,  # noqa: ANN401
    hashed: Sequence[HashedModel],
    shown: Mapping[int, Array],
    texts: Sequence[int],
    kept: Sequence[int],
) -> tuple[Any, tuple[str, ...]]:
    """The model behind encoders, changed in place to take their numbers.

    Where a pipeline begins with a ColumnTransformer, that one encodes what it passes through.

    Args:
        model: A copy that may be changed.
        hashed: The CatBoost models in it.
        shown: The categories that the data shows, by position among `kept`.
        texts: The inputs that are text, by position among `kept`.
        kept: Positions of the columns that the inputs hold, among the caller's.

    Returns:
        The model, which asks for columns by their position among `kept` unless it is the same
        object, and what a person should know.

    Raises:
        UnsupportedModelError: Something else looks at a category, too.
    """
    categories = {kept[place]: items for place, items in shown.items()}
    _check_alone(model, set(categories))
    messages = tell_categories(hashed, categories)
    first = [item for item in seeing_columns(model) if isinstance(item, ColumnTransformer)]
    if first and not holds_others(model):
        for item in first:
            _encode_passed(item, categories)
        return model, messages
    others = [kept[place] for place in texts if kept[place] not in categories]
    if others:
        categories |= number_encoders(model, others)
    renumber(model, list(kept))
    places = {column: place for place, column in enumerate(kept)}
    numbered = {places[column]: items for column, items in categories.items()}
    return behind_numbers(model, numbered, len(kept), unknown=UNKNOWN), messages


def _encode_passed(transformer: ColumnTransformer, categories: Mapping[int, Array]) -> None:
    steps: list[tuple[str, Any, Any]] = []
    for name, step, columns in transformer.transformers_:
        places = [int(i) for i in transformer._transformer_to_input_indices.get(name, ())]
        if not passes(step) or not set(places) & set(categories):
            steps.append((name, step, columns))
            continue
        for place in places:
            inner = encoder_of(categories[place], UNKNOWN) if place in categories else step
            steps.append((f"{name}_{place}", inner, [place]))
            transformer._transformer_to_input_indices[f"{name}_{place}"] = [place]
    transformer.transformers_ = steps


def _check_alone(model: Any, columns: set[int]) -> None:  # noqa: ANN401
    for item in seeing_columns(model):
        if not isinstance(item, ColumnTransformer) and not hashed_columns(item):
            _refuse(item)
    for step, places in caller_steps(model):
        if columns & set(places) and not (passes(step) or step == "drop" or hashed_columns(step)):
            _refuse(step)


def _refuse(step: Any) -> None:  # noqa: ANN401
    raise UnsupportedModelError(
        f"{type(step).__name__} looks at a column that CatBoost takes as a category, which has no "
        "ONNX form here: give it another column, or encode categories in a pipeline "
        "(OrdinalEncoder)"
    )
