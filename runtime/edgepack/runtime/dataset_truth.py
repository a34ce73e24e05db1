"""Takes the columns of the true answers out of what was read."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.runtime.errors import DatasetError
from edgepack.trust.values import dataclass

_MAX_NAMES_SHOWN = 8

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truths:
    """True answers.

    Attributes:
        truth: (N,), or (N, T) of several columns.
        text: The same as the file writes it, or None where that is no different.
        columns: Their names.
    """

    truth: Array
    text: Array | None
    columns: tuple[str, ...]


def take_truths(
    arrays: dict[str, Array],
    label: str,
    *,
    named: bool,
    texts: Mapping[str, Array],
    unreadable: Mapping[str, str],
    file: str,
) -> Truths:
    """Take one column, or several whose names are joined by commas, out of `arrays`.

    Args:
        arrays: Name → column; the label's are removed.
        label: "failed", or "pump,valve" where no column is called so.
        named: Whether the names are the file's own.
        texts: Column → its cells as the file writes them.
        unreadable: Column → why it cannot be used.
        file: Name of the file, for messages.

    Raises:
        DatasetError: There is no such column, it cannot be read, or is named twice.
    """
    one = label in arrays or label in unreadable or "," not in label
    columns = (label,) if one else tuple(item.strip() for item in label.split(","))
    for column in columns:
        if column in unreadable:
            raise DatasetError(f"label {column!r} of {file}: {unreadable[column]}")
        if column not in arrays or not named:
            names = ", ".join(map(repr, list(arrays)[:_MAX_NAMES_SHOWN])) if named else "no names"
            raise DatasetError(f"label {column!r} is not in {file}, which has {names}")
        if columns.count(column) > 1:
            raise DatasetError(f"label {column!r} is named twice")
    found = [arrays.pop(column) for column in columns]
    if len(found) == 1:
        truth = found[0]
        truth = truth[:, 0] if truth.ndim == 2 and truth.shape[1] == 1 else truth
        return Truths(truth=truth, text=texts.get(label), columns=columns)
    if any(array.ndim != 1 or len(array) != len(found[0]) for array in found):
        raise DatasetError(f"labels {label!r} of {file} must be columns of one length")
    text = _joined([texts.get(column, array) for column, array in zip(columns, found, strict=True)])
    is_text = any(array.dtype == np.object_ for array in found)
    truth = text if is_text else np.stack(found, axis=1)
    return Truths(truth=truth, text=text, columns=columns)


def _joined(columns: list[Array]) -> Array:
    """Columns side by side as text, object (N, T)."""
    found = np.empty((len(columns[0]), len(columns)), dtype=np.object_)
    for place, column in enumerate(columns):
        found[:, place] = [_written(item) for item in column.tolist()]
    return found


def _written(item: Any) -> str:  # noqa: ANN401  (a cell)
    return str(int(item)) if isinstance(item, float) and item.is_integer() else str(item)
