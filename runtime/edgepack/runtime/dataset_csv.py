"""CSV to columns with the standard library: no pandas on a device.

What is inferred, and nothing else:

- UTF-8, with or without a byte-order mark; the separator is the comma, semicolon or tab that the
  first line has most of.
- The first line is a header unless every cell of it is a number.
- A cell is missing when it is empty or one of `MISSING` (spaces round it do not count).
- A column without a name is called "Unnamed: 2" after its place, counted from 0, as pandas does.
- A column whose cells are all numbers or missing is numeric: int64 when all are whole and none is
  missing, otherwise float64 with NaN. All of True and False (any case): bool. Anything else is
  text, in which a missing cell is "".
- Where whole numbers or truth values are not how the cells are written (007, +1, true, a missing
  one), and where numbers with a point are few different ones (1.50, 2.00), the text is kept
  beside them: a model may take the column as text.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.runtime.errors import DatasetError
from edgepack.trust.values import dataclass

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})
MAX_COLUMNS = 65_536
_MOST_CATEGORIES = 256  # a column of more different fractions is measured, not chosen from
_SEPARATORS = ",;\t"
_TRUTH_VALUES = {"true": True, "false": False}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf(?:inity)?", re.I
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CsvColumns:
    """What a CSV file holds.

    Attributes:
        arrays: The columns by name, in the file's order.
        texts: Of those whose cells are written otherwise than their values are: object (N,).
        named: Whether the file has a header. Without one the columns are called "x0", "x1", ….
    """

    arrays: dict[str, NDArray[Any]]
    texts: dict[str, NDArray[Any]]
    named: bool


def read_csv(path: Path) -> CsvColumns:
    """Read a CSV file.

    Raises:
        DatasetError: It is not UTF-8 text, a row has another number of cells than the first, two
            columns have one name, or there are no rows.
    """
    rows = _rows(path)
    if not rows:
        raise DatasetError(f"{path.name} is empty")
    header = [cell.strip() for cell in rows[0]]
    if len(header) > MAX_COLUMNS:
        raise DatasetError(
            f"{path.name} must have at most {MAX_COLUMNS} columns, got {len(header)}"
        )
    named = not all(_NUMBER.fullmatch(cell) for cell in header)
    if named:
        rows = rows[1:]
        header = [name or f"Unnamed: {index}" for index, name in enumerate(header)]
        _check_header(header, path)
    else:
        header = [f"x{index}" for index in range(len(header))]
    if not rows:
        raise DatasetError(f"{path.name} has a header and no rows")
    arrays: dict[str, NDArray[Any]] = {}
    texts: dict[str, NDArray[Any]] = {}
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        arrays[name] = _column(cells)
        text = _text_if_it_differs(cells, arrays[name])
        if text is not None:
            texts[name] = text
    return CsvColumns(arrays=arrays, texts=texts, named=named)


def _rows(path: Path) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first_line = file.readline()
            file.seek(0)
            if "\0" in first_line:
                raise DatasetError(f"{path.name} is not CSV, Parquet, npz, npy or safetensors")
            separator = max(_SEPARATORS, key=first_line.count)
            reader = csv.reader(file, delimiter=separator)
            for row in reader:
                if not row:
                    continue  # a blank line
                if rows and len(row) != len(rows[0]):
                    raise DatasetError(
                        f"{path.name} line {reader.line_num} must have {len(rows[0])} cells, "
                        f"got {len(row)}"
                    )
                rows.append(row)
    except UnicodeDecodeError as exc:
        raise DatasetError(
            f"{path.name} is not CSV, Parquet, npz, npy or safetensors: byte {exc.start} is not "
            "UTF-8"
        ) from exc
    except csv.Error as exc:
        raise DatasetError(f"{path.name} is not valid CSV: {exc}") from exc
    except OSError as exc:
        raise DatasetError(f"data {path.name} cannot be read: {exc.strerror}") from exc
    return rows


def _check_header(header: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for name in header:
        if name in seen:
            raise DatasetError(f"{path.name}: column {name!r} stands twice in the header")
        seen.add(name)


def _column(cells: Sequence[str]) -> NDArray[Any]:
    fast = _plain_numbers(cells)
    if fast is not None:
        return fast
    cells = [cell.strip() for cell in cells]
    missing = [cell.lower() in MISSING for cell in cells]
    present = [cell for cell, is_missing in zip(cells, missing, strict=True) if not is_missing]
    if present and all(map(_NUMBER.fullmatch, present)):
        if len(present) == len(cells) and all(map(_WHOLE.fullmatch, present)):
            return np.array([int(cell) for cell in cells], dtype=np.int64)
        return np.array(
            [np.nan if gone else float(cell) for cell, gone in zip(cells, missing, strict=True)],
            dtype=np.float64,
        )
    if present and len(present) == len(cells) and all(c.lower() in _TRUTH_VALUES for c in present):
        return np.array([_TRUTH_VALUES[cell.lower()] for cell in cells], dtype=np.bool_)
    if not present:
        return np.full(len(cells), np.nan)
    return _as_text(cells, missing)


def _as_text(cells: Sequence[str], missing: Sequence[bool]) -> NDArray[Any]:
    column = np.empty(len(cells), dtype=object)
    column[:] = ["" if gone else cell for cell, gone in zip(cells, missing, strict=True)]
    return column


def _text_if_it_differs(cells: Sequence[str], column: NDArray[Any]) -> NDArray[Any] | None:
    """The cells of a column that may be categories, unless its values tell them as well."""
    if column.dtype.kind in "ib":
        if all(map(str.__eq__, cells, map(str, column.tolist()))):
            return None
    elif column.dtype.kind != "f" or not (_are_whole(cells, column) or _are_few(cells)):
        return None
    cells = [cell.strip() for cell in cells]
    return _as_text(cells, [cell.lower() in MISSING for cell in cells])


def _are_whole(cells: Sequence[str], column: NDArray[Any]) -> bool:
    gone = np.isnan(column).tolist()
    return any(gone) and all(
        _WHOLE.fullmatch(cell.strip())
        for cell, is_gone in zip(cells, gone, strict=True)
        if not is_gone
    )


def _are_few(cells: Sequence[str]) -> bool:
    seen: set[str] = set()
    for cell in cells:
        seen.add(cell)
        if len(seen) > _MOST_CATEGORIES:
            return False
    return True


def _plain_numbers(cells: Sequence[str]) -> NDArray[Any] | None:
    """The common case at C speed; None when a cell needs a closer look."""
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return None
    if any(value != value for value in values):  # noqa: PLR0124  (NaN: may be "missing")
        return None
    text = "".join(cells)
    if "_" in text or not text.isascii():  # float() takes 1_000; files do not mean that
        return None
    if all(map(_WHOLE.fullmatch, map(str.strip, cells))):
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    return np.array(values, dtype=np.float64)
