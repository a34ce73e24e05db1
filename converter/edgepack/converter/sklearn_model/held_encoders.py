"""Text columns of models that hold pipelines: voting, stacking, calibration and so on.

Such a model hands all its columns to each pipeline as one matrix, which in ONNX has one type. The
texts become numbers before it, and each pipeline's encoders get those numbers for categories.
"""

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.columns import caller_steps, takes_texts
from edgepack.converter.sklearn_model.first_steps import holds_others
from edgepack.converter.sklearn_model.own_categories import behind_numbers
from edgepack.runtime.tensors import Array

_UNKNOWN = -1
_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


def number_held_texts(model: Any, texts: list[int], columns: int) -> Any:  # noqa: ANN401
    """A pipeline of an encoder and the model, whose encoders are changed in place.

    Args:
        model: A copy that may be changed.
        texts: Positions of its columns of text.
        columns: How many columns it takes.

    Raises:
        UnsupportedModelError: Something else than an encoder sees a text.
    """
    if not texts or not holds_others(model) or takes_texts(model):
        return model
    return behind_numbers(model, number_encoders(model, texts), columns, unknown=_UNKNOWN)


def number_encoders(model: Any, texts: list[int]) -> dict[int, Array]:  # noqa: ANN401
    """Make the encoders of a model's texts take numbers, in place.

    Returns:
        The texts in the order of their numbers, by column.

    Raises:
        UnsupportedModelError: Something else than an encoder sees a text.
    """
    known: dict[int, dict[str, float]] = {place: {} for place in texts}
    for step, places in caller_steps(model):
        for encoder in _of_texts(step, places, texts):
            for place, items in zip(places, encoder.categories_, strict=True):
                if place in known:
                    for item in items.tolist():
                        known[place].setdefault(item, float(len(known[place])))
            encoder.categories_ = [
                _numbers(items, known[place]) if place in known else items
                for place, items in zip(places, encoder.categories_, strict=True)
            ]
    categories = {place: _texts(items) for place, items in known.items() if items}
    unread = sorted(set(texts) - set(categories))
    return {**categories, **{place: np.array([""], np.object_) for place in unread}}


def _of_texts(step: Any, places: list[int], texts: list[int]) -> list[Any]:  # noqa: ANN401
    """The encoder that a step begins with, if it sees a text."""
    if isinstance(step, str) or not set(places) & set(texts):
        return []
    while isinstance(step, Pipeline):
        step = step.steps[0][1]
    if type(step).__name__ in _ENCODERS:
        return [step]
    raise UnsupportedModelError(
        f"{type(step).__name__} of text has no ONNX form inside a model that holds several: put "
        "the encoding of text before that model, in one pipeline"
    )


def _numbers(items: Array, known: dict[str, float]) -> Array:
    return np.array([known[item] for item in items.tolist()])


def _texts(items: dict[str, float]) -> Array:
    if not all(isinstance(item, str) for item in items):
        raise UnsupportedModelError(
            "missing texts as a category have no ONNX form inside a model that holds several: put "
            "the encoding of text before that model, in one pipeline"
        )
    found = np.empty(len(items), dtype=np.object_)
    found[:] = list(items)
    return found
