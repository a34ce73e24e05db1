"""Where CatBoost sees categories that it hashes: alone, in other models, behind passed columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.gbm_model.catboost_trees import read_catboost
from edgepack.converter.gbm_model.hashed_categories import (
    hashed_columns,
    name_categories,
    texts_of,
    unseen_message,
)
from edgepack.converter.gbm_model.library_of import library_of
from edgepack.converter.sklearn_model.first_steps import held
from edgepack.runtime.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashedModel:
    """One CatBoost model, and of its columns of categories which column of the caller each is."""

    model: Any
    sources: Mapping[int, int]


def hashed_models(model: Any) -> tuple[HashedModel, ...]:  # noqa: ANN401
    """The CatBoost models that hash categories of the caller's.

    Raises:
        UnsupportedModelError: Such a model is given a category that a step has made.
    """
    return tuple(_models(model, None))


def hashed_categories(model: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Positions of the caller's columns that CatBoost hashes.

    Raises:
        UnsupportedModelError: See `hashed_models`.
    """
    found = hashed_models(model)
    return tuple(sorted({column for item in found for column in item.sources.values()}))


def tell_categories(
    models: Sequence[HashedModel], categories: Mapping[int, Array]
) -> tuple[str, ...]:
    """Tell models, in place, the categories by the caller's column.

    Returns:
        What a person should know.
    """
    read = []
    for item in models:
        own = {place: categories[column] for place, column in item.sources.items()}
        name_categories(item.model, own)
        texts = {place: texts_of(items) for place, items in own.items()}
        read.append(read_catboost(item.model._serialize_model(), texts))
    return unseen_message(read)


def _models(model: Any, origins: list[int | None] | None) -> Iterator[HashedModel]:  # noqa: ANN401
    """The models behind columns of which each comes from one of the caller's, or is made."""
    if isinstance(model, Pipeline):
        steps = [step for _, step in model.steps if step is not None and not isinstance(step, str)]
        for step in steps[:-1]:
            origins = _after(step, origins)
        if steps:
            yield from _models(steps[-1], origins)
        return
    columns = hashed_columns(model) if library_of(model) else ()
    if columns:
        sources = {place: _source(place, origins) for place in columns}
        yield HashedModel(model=model, sources=sources)
    for item in held(model):
        yield from _models(item, origins)


def _source(place: int, origins: list[int | None] | None) -> int:
    found = place if origins is None else origins[place] if place < len(origins) else None
    if found is None:
        raise UnsupportedModelError(
            f"CatBoost's category {place} is made by a step before it, which has no ONNX form "
            "here: let the ColumnTransformer pass that column through"
        )
    return found


def _after(step: Any, origins: list[int | None] | None) -> list[int | None]:  # noqa: ANN401
    """The origins of what a step gives."""
    if not isinstance(step, ColumnTransformer):
        return []  # all are made
    found: dict[int, int | None] = {}
    for name, inner, _ in step.transformers_:
        given = [int(index) for index in step._transformer_to_input_indices.get(name, ())]
        places = range(*step.output_indices_[name].indices(1 << 31))
        passed = passes(inner) and len(places) == len(given)
        for index, place in enumerate(places):
            before = given[index] if passed else None
            if before is not None and origins is not None:
                before = origins[before] if before < len(origins) else None
            found[place] = before
    return [found.get(place) for place in range(len(found))]


def passes(step: Any) -> bool:  # noqa: ANN401
    """Whether a ColumnTransformer's step gives what it takes."""
    if isinstance(step, str):
        return step == "passthrough"
    return type(step).__name__ == "FunctionTransformer" and step.func is None
