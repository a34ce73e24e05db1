"""From what a caller gives to one matrix, in which categories are numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.converter.gbm_model.hashed_categories import UNKNOWN
from edgepack.converter.gbm_model.part import ML_DOMAIN, Part
from edgepack.runtime.tensors import Array

_NO_NUMBER: Final = -(1 << 62)


def add_numbers(
    part: Part,
    specs: Sequence[TensorSpec],
    tensors: Sequence[str],
    categories: Mapping[int, Array],
    dtype: Any,  # noqa: ANN401
) -> str:
    """Add what makes the trees' matrix of the inputs.

    Args:
        part: Gets the nodes.
        specs: The contract's inputs: one matrix, or one column each.
        tensors: Theirs.
        categories: Column -> categories in the order of their numbers.
        dtype: Of the matrix, float32 or float64.

    Returns:
        Tensor of the matrix, (N, F).
    """
    if len(tensors) > 1:
        columns = [
            _numbered(part, tensor, categories[place], dtype) if place in categories else tensor
            for place, tensor in enumerate(tensors)
        ]
        return part.add("Concat", *columns, axis=1)
    if not categories:
        return tensors[0]
    columns = []
    for place in range(specs[0].shape[1]):
        index = part.constant(np.array([place], dtype=np.int64))
        column = part.add("Gather", tensors[0], index, axis=1)
        if place in categories:
            column = _numbered(part, column, categories[place], dtype)
        elif specs[0].datatype is Datatype.BYTES:
            raise ValueError(f"column {place} of text has no categories")
        columns.append(column)
    return part.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]


def _numbered(part: Part, column: str, categories: Array, dtype: Any) -> str:  # noqa: ANN401
    """The number of each category, (N, 1); -1 for one that is not known."""
    numbers = [float(number) for number in range(len(categories))]
    if categories.dtype == np.object_:
        keys: dict[str, Any] = {"keys_strings": [str(item) for item in categories.tolist()]}
    else:
        column = _whole(part, column, dtype)
        keys = {"keys_int64s": [int(item) for item in categories.tolist()]}
    found = part.add(
        "LabelEncoder",
        column,
        domain=ML_DOMAIN,
        values_floats=numbers,
        default_float=float(UNKNOWN),
        **keys,
    )
    wide = np.dtype(dtype) == np.float64
    return part.add("Cast", found, to=TensorProto.DOUBLE if wide else TensorProto.FLOAT)


def _whole(part: Part, column: str, dtype: Any) -> str:  # noqa: ANN401
    """A column of numbers as int64; a fraction is none of the categories."""
    is_whole = part.add("Equal", column, part.add("Floor", column))
    number = part.add("Cast", column, to=TensorProto.INT64)
    none = part.constant(np.array(_NO_NUMBER, dtype=np.int64))
    return part.add("Where", is_whole, number, none)
