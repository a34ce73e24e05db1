"""Reading rows: CSV, Parquet, npz, npy, safetensors, or a folder of images or WAV files.

The same code reads the data of a conversion on a workstation and of `edgepack predict` on a
device. What a file is, its content tells. Nothing in a file is ever unpickled, and no size is
believed before it is checked against the file. Matching rows to a model's inputs is
`edgepack.runtime.dataset_inputs`.
"""

import hashlib
from dataclasses import field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.runtime.dataset_csv import read_csv
from edgepack.runtime.dataset_numpy import read_npy, read_npz
from edgepack.runtime.dataset_parquet import read_parquet
from edgepack.runtime.dataset_truth import take_truths
from edgepack.runtime.errors import DatasetError
from edgepack.trust.values import dataclass

MAX_FILE_BYTES = 2**31
TRUTH_KEYS = ("y", "Y", "label", "labels", "target")
_ALIASES = {"X": "x", "arr_0": "x"}  # what people call the one matrix in an npz
_HASH_CHUNK_BYTES = 1 << 20
_MAX_NAMES_SHOWN = 8

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Rows in memory.

    Attributes:
        arrays: Name → array whose first dimension is the rows. A column of a table is (N,); a
            matrix or tensor is (N, …). Numbers keep the file's type; text is an object array of
            str in which a missing cell is "". Missing numbers are NaN.
        named: False when the file has no names of its own (npy, a CSV without a header): then
            only the order means something.
        truth: The true answers (N,) or (N, T), from the label column or the `y` array, or None.
        rows: N.
        digest: "sha256:<hex>" of the file, or of the names and contents of a folder's files.
        format: "CSV", "Parquet", "npz", "npy", "safetensors", "folder of images" or "folder of
            WAV files".
        unreadable: Column → why it cannot be used; an error only for who needs that column.
        texts: Column of numbers → its cells as the file writes them ("007"), where that differs:
            for a model that takes the column as text.
        truth_text: The same of the truth, or None.
        truth_columns: The names of the columns that the truth was taken from.
        names: Of a folder: the file of each row, "cats/1.png".
        classes: Of a folder with one subfolder a class: their names, sorted, as the loaders of
            Keras and PyTorch number them.
        rate_hz: Of signals: samples a second.
    """

    arrays: dict[str, Array]
    named: bool
    truth: Array | None
    rows: int
    digest: str
    format: str
    unreadable: dict[str, str] = field(default_factory=dict)
    texts: dict[str, Array] = field(default_factory=dict)
    truth_text: Array | None = None
    truth_columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    rate_hz: int | None = None

    @property
    def is_table(self) -> bool:
        """True when every array is one column."""
        return all(array.ndim == 1 for array in self.arrays.values())

    def truth_like(self, labels: Array) -> Array | None:
        """The truth, as the file writes it where the labels are text: "007" is not 7."""
        is_text = labels.dtype == np.object_
        return self.truth_text if is_text and self.truth_text is not None else self.truth


@dataclass(frozen=True, slots=True, kw_only=True)
class RawColumns:
    """What one format's reader gives: see `Dataset` for the fields."""

    arrays: dict[str, Array]
    named: bool
    format: str
    unreadable: dict[str, str] = field(default_factory=dict)
    texts: dict[str, Array] = field(default_factory=dict)


def read_dataset(
    path: Path,
    *,
    label: str | None = None,
    image_size: tuple[int, int] | None = None,
    mixed_size: tuple[int, int] | None = None,
    audio_samples: int | None = None,
) -> Dataset:
    """Read a file of rows, or a folder of images or WAV files.

    A folder gives one array: "image", uint8 (N, H, W, C), C being 1 if all images are gray and
    otherwise 3; or "audio", float32 (N, T) in -1..1. With one subfolder a class, the truth is the
    subfolder's name.

    Args:
        path: The file or folder.
        label: The column (or array) that holds the true answers; "a,b" are two columns, for
            models that give several answers a row. Without it an npz or safetensors file's `y`,
            `label` or `target` is taken, and a table has none.
        image_size: Height and width that a folder's images are resized to, in pixels; without it
            all must have one size.
        mixed_size: The same, for a folder in which they have several.
        audio_samples: Length that a folder's signals are cut or filled up to; by default that of
            the longest.

    Returns:
        The rows, with the label taken out of the arrays.

    Raises:
        DatasetError: The file is missing, too large, damaged, empty, of another kind, or has no
            such label.
    """
    if path.is_dir():
        if label is not None:
            raise DatasetError(
                f"the labels of a folder are the names of its subfolders, got label {label!r}"
            )
        return _read_folder(path, image_size, mixed_size, audio_samples)
    head, size_bytes, digest = _look(path)
    raw = _read(path, head, size_bytes)
    arrays = {_ALIASES.get(name, name): array for name, array in raw.arrays.items()}
    truths = None
    wanted = _label_of(arrays, raw, label)
    if wanted is not None:
        truths = take_truths(
            arrays,
            wanted,
            named=raw.named,
            texts=raw.texts,
            unreadable=raw.unreadable,
            file=path.name,
        )
    truth = None if truths is None else truths.truth
    if not arrays:
        raise DatasetError(f"{path.name} must have at least one column besides the label, got none")
    rows = _common_rows(arrays, truth, path)
    if rows == 0:
        raise DatasetError(f"{path.name} has no rows")
    return Dataset(
        arrays=arrays,
        named=raw.named,
        truth=truth,
        rows=rows,
        digest=digest,
        format=raw.format,
        unreadable={key: why for key, why in raw.unreadable.items() if key != label},
        texts={name: text for name, text in raw.texts.items() if name in arrays},
        truth_text=None if truths is None else truths.text,
        truth_columns=() if truths is None else truths.columns,
    )


def take_rows(dataset: Dataset, rows: NDArray[np.intp]) -> Dataset:
    """The dataset with only these rows, in this order."""
    return replace(
        dataset,
        arrays={name: array[rows] for name, array in dataset.arrays.items()},
        truth=None if dataset.truth is None else dataset.truth[rows],
        rows=len(rows),
        texts={name: text[rows] for name, text in dataset.texts.items()},
        truth_text=None if dataset.truth_text is None else dataset.truth_text[rows],
        names=tuple(dataset.names[row] for row in rows) if dataset.names else (),
    )


def _read_folder(
    path: Path,
    image_size: tuple[int, int] | None,
    mixed_size: tuple[int, int] | None,
    audio_samples: int | None,
) -> Dataset:
    from edgepack.runtime.dataset_folder import read_folder  # a device with a sensor has none

    found = read_folder(
        path, image_size=image_size, mixed_size=mixed_size, audio_samples=audio_samples
    )
    return Dataset(
        arrays=found.arrays,
        named=True,
        truth=found.truth,
        rows=len(found.names),
        digest=found.digest,
        format=found.format,
        names=found.names,
        classes=found.classes,
        rate_hz=found.rate_hz,
    )


def _look(path: Path) -> tuple[bytes, int, str]:
    if path.exists() and not path.is_file():  # opening a pipe would wait for its writer for ever
        raise DatasetError(f"data {path.name} is not a regular file")
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            if size_bytes > MAX_FILE_BYTES:
                raise DatasetError(
                    f"{path.name} must be at most {MAX_FILE_BYTES} bytes, got {size_bytes}"
                )
            hasher = hashlib.sha256()
            head = file.read(_HASH_CHUNK_BYTES)
            chunk = head
            while chunk:
                hasher.update(chunk)
                chunk = file.read(_HASH_CHUNK_BYTES)
    except OSError as exc:
        raise DatasetError(f"data {path.name} cannot be read: {exc.strerror}") from exc
    if not head:
        raise DatasetError(f"{path.name} is empty")
    return head[:64], size_bytes, f"sha256:{hasher.hexdigest()}"


def _read(path: Path, head: bytes, size_bytes: int) -> RawColumns:
    if head.startswith(b"PAR1"):
        arrays, unreadable = read_parquet(path)
        return RawColumns(arrays=arrays, named=True, format="Parquet", unreadable=unreadable)
    if head.startswith(b"PK\x03\x04"):
        return RawColumns(arrays=read_npz(path, MAX_FILE_BYTES), named=True, format="npz")
    if head.startswith(b"\x93NUMPY"):
        return RawColumns(arrays={"x": read_npy(path)}, named=False, format="npy")
    if _is_safetensors(head, size_bytes):
        return RawColumns(arrays=_read_safetensors(path), named=True, format="safetensors")
    found = read_csv(path)
    return RawColumns(arrays=found.arrays, named=found.named, format="CSV", texts=found.texts)


def _is_safetensors(head: bytes, size_bytes: int) -> bool:
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size_bytes - 8


def _read_safetensors(path: Path) -> dict[str, Array]:
    from edgepack.runtime.safetensors import parse
    from edgepack.trust.errors import EdgepackError

    try:
        arrays, _ = parse(path.read_bytes())
    except EdgepackError as exc:
        raise DatasetError(f"{path.name}: {exc}") from exc
    return dict(arrays)


def _label_of(arrays: dict[str, Array], raw: RawColumns, label: str | None) -> str | None:
    if label is not None or raw.format not in ("npz", "safetensors") or len(arrays) < 2:
        return label
    return next((key for key in TRUTH_KEYS if key in arrays), None)


def _common_rows(arrays: dict[str, Array], truth: Array | None, path: Path) -> int:
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if truth is not None:
        counts["label"] = truth.shape[0] if truth.ndim else 0
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:4])
        raise DatasetError(
            f"{path.name}: all arrays must have the same number of rows, got {shown}"
        )
    return next(iter(counts.values()))
