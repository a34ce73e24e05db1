"""Missing text: NaN for scikit-learn, empty text in ONNX, which has nothing else for it.

Only columns of which the model knows that values may be missing are concerned: those that an
imputer or an encoder was fitted on with gaps in mind. For all others empty text is a text.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from edgepack.converter.sklearn_model.columns import caller_steps
from edgepack.runtime.tensors import Array


def missing_marks(model: Any) -> dict[int, Any]:  # noqa: ANN401
    """What the model takes for a missing text, by the position of the column."""
    found: dict[int, Any] = {}
    for step, columns in caller_steps(model):
        first = _first_part(step)
        if _is_text_imputer(first):
            found |= dict.fromkeys(columns, first.missing_values)
        elif type(first).__name__ == "OneHotEncoder":
            for column, categories in zip(columns, _categories(first), strict=False):
                marks = [item for item in categories.tolist() if _is_mark(item)]
                if marks and categories.dtype == np.object_:
                    found[column] = marks[0]
    return found


def with_missing(inputs: Mapping[str, Array], marks: Mapping[int, Any]) -> dict[str, Array]:
    """The inputs with the model's own mark for empty text.

    Args:
        inputs: One matrix, or one column (N, 1) each.
        marks: What stands for a missing text, by the position of the column.
    """
    arrays = dict(inputs)
    names = list(arrays)
    for column, mark in marks.items():
        name, place = (names[0], column) if len(names) == 1 else (names[column], 0)
        array = arrays[name]
        empty = array[:, place] == "" if array.dtype == np.object_ else np.zeros(len(array), bool)
        if empty.any():
            arrays[name] = array = array.copy()
            array[empty, place] = mark
    return arrays


def missing_is_empty_text(model: Any) -> None:  # noqa: ANN401
    """Make the model take empty text for missing text, in place: for the export."""
    for step, _ in caller_steps(model):
        first = _first_part(step)
        if _is_text_imputer(first):
            first.missing_values = ""
        elif type(first).__name__ == "OneHotEncoder":
            first.categories_ = [_with_empty_text(item) for item in _categories(first)]


def _first_part(step: Any) -> Any:  # noqa: ANN401
    while isinstance(step, Pipeline) and step.steps:
        step = step.steps[0][1]
    return step


def _categories(encoder: Any) -> list[Array]:  # noqa: ANN401
    return list(getattr(encoder, "categories_", ()))  # none before it is fitted


def _is_mark(item: object) -> bool:
    return item is None or (isinstance(item, float) and item != item)  # noqa: PLR0124  (NaN)


def _is_text_imputer(step: Any) -> bool:  # noqa: ANN401
    return (
        type(step).__name__ == "SimpleImputer"
        and np.asarray(getattr(step, "statistics_", 0.0)).dtype == np.object_
        and _is_mark(step.missing_values)
    )


def _with_empty_text(categories: Array) -> Array:
    if categories.dtype != np.object_ or not any(isinstance(c, str) for c in categories.tolist()):
        return categories
    changed = categories.copy()
    changed[:] = ["" if _is_mark(item) else item for item in categories.tolist()]
    return changed
