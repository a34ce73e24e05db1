"""Writing predictions to a file, batch by batch: CSV, JSON lines, Parquet or npz.

Outputs become flat columns: `label`, `p_CLASS` for each probability, `value`, or `NAME_INDEX`;
`label_TARGET` where a model gives several labels a row and the contract names them.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgepack.bundle.atomic_file import write_atomically
from edgepack.bundle.contract import Contract
from edgepack.cli.errors import UsageError

Columns = dict[str, NDArray[Any]]
Write = Callable[[Columns], None]


def flat_columns(outputs: Mapping[str, NDArray[Any]], contract: Contract) -> Columns:
    """Turn a model's outputs into columns of one value a row.

    Args:
        outputs: Contract name → array (N, …).
        contract: Names the classes.

    Returns:
        Column → array (N,), in the order of the outputs.
    """
    columns: Columns = {}
    features = {spec.name: spec.feature_names for spec in contract.outputs}
    for name, array in outputs.items():
        flat = array.reshape(len(array), -1)
        if array.ndim == 1 or flat.shape[1] == 1:
            columns[name] = flat[:, 0] if array.ndim > 1 else array
            continue
        known = features.get(name, ())
        ends = known if len(known) == flat.shape[1] else range(flat.shape[1])
        names = [f"{name}_{end}" for end in ends]
        if name == "probabilities" and len(contract.class_names) == flat.shape[1]:
            names = [f"p_{label}" for label in contract.class_names]
        columns.update(zip(names, flat.T, strict=True))
    return columns


def format_of(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        UsageError: It asks for none that there is.
    """
    if path.suffix not in _WRITERS:
        raise UsageError(f"output must end in {', '.join(_WRITERS)}, got {path.name!r}")
    return path.suffix


@contextmanager
def write_rows(path: Path) -> Iterator[Write]:
    """Give a function that appends a batch; the file appears when the block ends well.

    Raises:
        BundleWriteError: The disk refused.
        UsageError: The name asks for no known format.
    """
    writer = _WRITERS[format_of(path)]
    with write_atomically(path) as file, writer(file) as write:
        yield write


def csv_text(columns: Columns, *, header: bool) -> str:
    """A batch as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    if header:
        rows.writerow(columns)
    rows.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return text.getvalue()


@contextmanager
def _csv(file: BinaryIO) -> Iterator[Write]:
    def write(columns: Columns) -> None:
        file.write(csv_text(columns, header=file.tell() == 0).encode())

    yield write


@contextmanager
def _jsonl(file: BinaryIO) -> Iterator[Write]:
    def write(columns: Columns) -> None:
        values = [_jsonable(column) for column in columns.values()]
        for row in zip(*values, strict=True):
            line = json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False)
            file.write(line.encode() + b"\n")

    yield write


def _jsonable(column: NDArray[Any]) -> list[Any]:
    if column.dtype.kind == "f":  # JSON knows no NaN
        finite = np.isfinite(column)
        return [value if ok else None for value, ok in zip(column.tolist(), finite, strict=True)]
    values: list[Any] = column.tolist()
    return values


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[Write]:
    import pyarrow
    import pyarrow.parquet

    opened: list[Any] = []

    def write(columns: Columns) -> None:
        arrays = {
            name: pyarrow.array(column.tolist() if column.dtype == object else column)
            for name, column in columns.items()
        }
        table = pyarrow.table(arrays)
        if not opened:
            opened.append(pyarrow.parquet.ParquetWriter(file, table.schema))
        opened[0].write_table(table)

    yield write
    for writer in opened:
        writer.close()


@contextmanager
def _npz(file: BinaryIO) -> Iterator[Write]:
    batches: list[Columns] = []
    yield batches.append
    names = batches[0] if batches else {}
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in names}
    # Text as fixed-width strings: an object array would need pickle to be read.
    np.savez(
        file,
        **{
            name: array.astype(str) if array.dtype == object else array
            for name, array in arrays.items()
        },
    )


_WRITERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet, ".npz": _npz}
