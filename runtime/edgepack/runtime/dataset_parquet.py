"""Parquet to columns. pyarrow is imported here, and only when a Parquet file is read."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.runtime.errors import DatasetError

MAX_CELLS = 2**28


def read_parquet(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a Parquet file.

    Numbers keep their type, except that a column with nulls becomes float64 with NaN; text and
    dictionary columns become object arrays of str with "" for null.

    Returns:
        The columns by name in the file's order, and the columns of other types with the reason
        why they cannot be used.

    Raises:
        DatasetError: It is damaged, too large, or pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as exc:
        raise DatasetError(
            f"{path.name} is a Parquet file, which needs pyarrow: pip install 'edgepack[data]'"
        ) from exc
    try:
        with parquet.ParquetFile(path) as file:
            cells = file.metadata.num_rows * max(file.metadata.num_columns, 1)
            if cells > MAX_CELLS:
                raise DatasetError(f"{path.name} must have at most {MAX_CELLS} cells, got {cells}")
            table = file.read()
        columns: dict[str, NDArray[Any]] = {}
        unreadable: dict[str, str] = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            if name in columns or name in unreadable:
                raise DatasetError(f"{path.name}: column {name!r} stands twice")
            array = _column(column, pyarrow)
            if array is None:
                unreadable[name] = f"a column of type {column.type} cannot be an input"
            else:
                columns[name] = array
    except (pyarrow.ArrowException, OSError, ValueError) as exc:
        raise DatasetError(f"{path.name} is a damaged Parquet file: {_line(exc)}") from exc
    return columns, unreadable


def _column(column: Any, pyarrow: Any) -> NDArray[Any] | None:  # noqa: ANN401  (pyarrow has no types)
    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_null(column.type):
        return np.full(len(column), np.nan)
    if types.is_string(column.type) or types.is_large_string(column.type):
        text = np.empty(len(column), dtype=object)
        text[:] = ["" if cell is None else cell for cell in column.to_pylist()]
        return text
    if types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    if types.is_boolean(column.type) and column.null_count:
        column = column.cast(pyarrow.int8())
    if not (
        types.is_integer(column.type)
        or types.is_floating(column.type)
        or types.is_boolean(column.type)
    ):
        return None
    if column.null_count:
        column = column.cast(pyarrow.float64(), safe=False)
    array: NDArray[Any] = column.to_numpy()
    return array


def _line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:160]
