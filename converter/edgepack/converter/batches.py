"""Rows through a model in batches, so that neither its fixed size nor memory decides how many."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.runtime.tensors import Array


def answer_in_batches(
    answer: Callable[[dict[str, Array]], Sequence[Array]],
    inputs: Mapping[str, Array],
    *,
    names: Sequence[str],
    size: int,
    fixed: bool,
) -> list[Array]:
    """Answer all rows, some at a time.

    Args:
        answer: Takes inputs by name, gives the outputs in the order of `names`.
        inputs: By name, (N, …), N > 0.
        names: Of the outputs, for messages.
        size: Rows a batch.
        fixed: The model takes exactly `size` rows: the last batch is filled up with its last row.

    Raises:
        UnsupportedModelError: An output does not have the rows as its first dimension.
    """
    rows = next(iter(inputs.values())).shape[0]
    parts: list[list[Array]] = []
    for begin in range(0, rows, size):
        taken = min(size, rows - begin)
        feeds = {name: array[begin : begin + taken] for name, array in inputs.items()}
        if fixed:
            feeds = {name: _filled(array, size) for name, array in feeds.items()}
        answers = list(answer(feeds))
        for name, found in zip(names, answers, strict=True):
            if found.ndim == 0:
                raise UnsupportedModelError(
                    f"output {name!r} must have the rows as its first dimension, got one value"
                )
        parts.append([found[:taken] for found in answers])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _filled(rows: Array, size: int) -> Array:
    missing = size - len(rows)
    return rows if missing == 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
