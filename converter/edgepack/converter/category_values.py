"""The categories that the data shows, for models that keep only hashes of theirs (CatBoost)."""

from collections.abc import Iterator, Mapping

import numpy as np

from edgepack.converter.errors import UnfitDataError
from edgepack.converter.sources.source import CategoryValues, ModelFacts
from edgepack.runtime.tensors import Array

MOST_VALUES = 1 << 16


def category_values(facts: ModelFacts, arrays: Mapping[str, Array]) -> tuple[CategoryValues, ...]:
    """The distinct values of every column whose categories the model cannot name itself.

    Args:
        facts: Of the model.
        arrays: The model's inputs: one matrix, or one column (N, 1) each.

    Raises:
        UnfitDataError: A column has too many.
    """
    columns = list(_columns(arrays)) if facts.category_features else []
    found = []
    for place in facts.category_features:
        name, values = columns[place]
        # What is no whole number is no category: the original refuses it.
        values = values if values.dtype == np.object_ else values[values == np.floor(values)]
        distinct = sorted(set(values.tolist()))
        if len(distinct) > MOST_VALUES:
            raise UnfitDataError(
                f"column {name!r} has {len(distinct)} categories, at most {MOST_VALUES} do"
            )
        if values.dtype == np.object_:
            found.append(CategoryValues(column=place, texts=tuple(distinct)))
        else:
            numbers = tuple(int(item) for item in distinct)
            found.append(CategoryValues(column=place, numbers=numbers))
    return tuple(found)


def _columns(arrays: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    for name, array in arrays.items():
        for index in range(array.shape[1]):
            yield (name if array.shape[1] == 1 else f"{name}[{index}]"), array[:, index]
