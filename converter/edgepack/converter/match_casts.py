"""Whole numbers that go into a model of floats: said where they fit, refused where they do not."""

from collections.abc import Iterator, Sequence

import numpy as np

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.converter.errors import UnfitDataError
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.tensors import DTYPES, Array

_FLOATS = (Datatype.FP16, Datatype.FP32, Datatype.FP64)


def casts(specs: Sequence[TensorSpec], dataset: Dataset) -> list[str]:
    """What is cast, one line an array; a CSV file's numbers have no type, so nothing is said.

    Raises:
        UnfitDataError: A whole number is none of the input's floats.
    """
    messages = []
    for spec in specs:
        if spec.datatype not in _FLOATS:
            continue
        for name, array in _taken(spec, specs, dataset):
            if array.dtype.kind not in "iu":
                continue
            _check_exact(name, array, spec)
            if dataset.format != "CSV":
                messages.append(
                    f"{name!r} is {array.dtype} and the model takes {spec.datatype}: cast, every "
                    "value exactly"
                )
    return messages


def _taken(
    spec: TensorSpec, specs: Sequence[TensorSpec], dataset: Dataset
) -> Iterator[tuple[str, Array]]:
    """The arrays that an input is made of; by order that may be all."""
    names = (spec.name,) if spec.name in dataset.arrays else spec.feature_names
    if names and all(name in dataset.arrays for name in names):
        yield from ((name, dataset.arrays[name]) for name in names)
    elif all(other.datatype in _FLOATS for other in specs):
        tensors = [(name, array) for name, array in dataset.arrays.items() if array.ndim > 1]
        yield from tensors if len(tensors) == 1 else dataset.arrays.items()


def _check_exact(name: str, array: Array, spec: TensorSpec) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        back = array.astype(DTYPES[spec.datatype]).astype(array.dtype)
    wrong = (back != array).reshape(len(array), -1)
    if wrong.any():
        row, column = (int(place) for place in np.argwhere(wrong)[0])
        value = array.reshape(len(array), -1)[row, column]
        where = name if wrong.shape[1] == 1 else f"{name}[{column}]"
        raise UnfitDataError(
            f"column {where!r} must be exact in the model's {spec.datatype}, got {value} in row "
            f"{row + 1}: scale it, or give it as floats"
        )
