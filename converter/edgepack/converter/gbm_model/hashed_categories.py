"""CatBoost's categories, of which a model keeps only hashes: the data gives their texts."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgepack.converter.errors import UnfitDataError
from edgepack.converter.gbm_model.catboost_trees import CatboostModel
from edgepack.converter.gbm_model.library_of import library_of
from edgepack.converter.sources.source import CategoryValues
from edgepack.runtime.tensors import Array

UNKNOWN: Final = -1
_TEXTS: Final = "_edgepack_texts"


def hashed_columns(model: Any) -> tuple[int, ...]:  # noqa: ANN401
    """The columns that a model takes as categories and of which it keeps hashes."""
    if library_of(model) != "catboost":
        return ()
    return tuple(sorted(int(place) for place in model.get_cat_feature_indices()))


def shown(values: Sequence[CategoryValues]) -> dict[int, Array]:
    """The categories that the data shows, by column: texts, or float64 in ascending order."""
    found: dict[int, Array] = {}
    for item in values:
        found[item.column] = (
            np.array(item.numbers, dtype=np.float64)
            if item.numbers
            else np.array(item.texts or ("",), dtype=np.object_)
        )
    return found


def texts_of(categories: Array) -> tuple[str, ...]:
    """Categories as CatBoost hashes them: whole numbers are texts, too."""
    if categories.dtype == np.object_:
        return tuple(str(item) for item in categories.tolist())
    return tuple(str(int(item)) for item in categories.tolist())


def with_whole_numbers(rows: Any, places: Sequence[int]) -> Any:  # noqa: ANN401
    """Rows whose categories are texts or int, as CatBoost asks for: the data's numbers are float.

    Args:
        rows: A DataFrame or an array.
        places: The columns of categories.

    Raises:
        UnfitDataError: A category is a fraction, or missing.
    """
    if not places:
        return rows
    if isinstance(rows, np.ndarray):
        rows = rows.astype(np.object_)
        for place in places:
            rows[:, place] = _whole(rows[:, place], str(place))
        return rows
    rows = rows.copy()
    for place in places:
        name = rows.columns[place]
        rows[name] = _whole(rows[name].to_numpy(dtype=np.object_), str(name))
    return rows


def _whole(values: Array, name: str) -> Array:
    found = values.copy()
    for index, item in enumerate(values.tolist()):
        if isinstance(item, str):
            continue
        if not float(item).is_integer():
            raise UnfitDataError(
                f"CatBoost's categories are texts or whole numbers, got {item} in column {name}"
            )
        found[index] = int(item)
    return found


def name_categories(model: Any, categories: Mapping[int, Array]) -> None:  # noqa: ANN401
    """Tell a model, in place, that its columns hold the numbers of these categories."""
    setattr(model, _TEXTS, {place: texts_of(items) for place, items in categories.items()})


def named_categories(model: Any) -> dict[int, tuple[str, ...]] | None:  # noqa: ANN401
    """What `name_categories` told, or None."""
    found: dict[int, tuple[str, ...]] | None = getattr(model, _TEXTS, None)
    return found


def unseen_message(models: Sequence[CatboostModel]) -> tuple[str, ...]:
    """What a person should know if the data does not show all categories of a model."""
    unseen, known = max((model.unseen for model in models), default=(0, 0))
    if not unseen:
        return ()
    return (
        "category values that the data does not show are answered as unknown: "
        f"{unseen} of {known} entries of the model's tables are not reached (data with all "
        "categories reaches them)",
    )
