"""A folder of images or of WAV files as a dataset: one subfolder for each class, or none.

Files are told apart by their content and taken in the order of their names, so that the same
folder gives the same rows and the same digest on every machine. Hidden files are passed over.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepack.runtime.errors import DatasetError
from edgepack.trust.values import dataclass

MAX_FILES: Final = 100_000
MAX_ONE_FILE_BYTES: Final = 1 << 28
MAX_ARRAY_BYTES: Final = 1 << 31
_IGNORED: Final = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_HEAD_BYTES: Final = 16
_IMAGE_HEADS: Final = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
)

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFile:
    """One file.

    Attributes:
        path: Where it is.
        name: Its path in the folder, with slashes: "cats/1.png".
        kind: "image" or "WAV".
    """

    path: Path
    name: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FolderRows:
    """What a folder holds: see `edgepack.runtime.dataset.Dataset` for the fields."""

    arrays: dict[str, Array]
    truth: Array | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    digest: str
    format: str
    rate_hz: int | None = None


def read_folder(
    folder: Path,
    *,
    image_size: tuple[int, int] | None,
    mixed_size: tuple[int, int] | None,
    audio_samples: int | None,
) -> FolderRows:
    """Read a folder.

    Args:
        folder: Its files are all images, or all WAV.
        image_size: Height and width that images are resized to, in pixels; by default all must
            have one size.
        mixed_size: The same, if they have several.
        audio_samples: Length that signals are cut or filled up to; by default that of the longest.

    Raises:
        DatasetError: The folder is empty, holds something else or both, or too much; a file is
            damaged; images have several sizes and none was asked for; signals have several rates.
    """
    files = list_folder(folder)
    kind = files[0].kind
    other = next((file for file in files if file.kind != kind), None)
    if other is not None:
        raise DatasetError(
            f"{folder.name} must hold images or WAV files, got both: {files[0].name!r} and "
            f"{other.name!r}"
        )
    digests = FolderDigest()
    rate_hz: int | None = None
    array: Array
    if kind == "image":
        from edgepack.runtime.dataset_images import read_images  # needs Pillow

        array = read_images(files, digests, size=image_size, mixed_size=mixed_size)
    else:
        from edgepack.runtime.dataset_wav import read_signals

        array, rate_hz = read_signals(files, digests, audio_samples)
    classes, truth = _classes(files)
    return FolderRows(
        arrays={"image" if kind == "image" else "audio": array},
        truth=truth,
        classes=classes,
        names=tuple(file.name for file in files),
        digest=digests.digest,
        format=f"folder of {'images' if kind == 'image' else 'WAV files'}",
        rate_hz=rate_hz,
    )


class FolderDigest:
    """The digest of a folder, made while its files are read in their order."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def read(self, file: FolderFile) -> bytes:
        """Read a file; its name and content go into the digest.

        Raises:
            DatasetError: It cannot be read, or is too large.
        """
        try:
            with file.path.open("rb") as opened:
                data = opened.read(MAX_ONE_FILE_BYTES + 1)
        except OSError as exc:
            raise DatasetError(f"{file.name} cannot be read: {exc.strerror}") from exc
        if len(data) > MAX_ONE_FILE_BYTES:
            raise DatasetError(f"{file.name} must be at most {MAX_ONE_FILE_BYTES} bytes")
        content = hashlib.sha256(data).hexdigest()
        self._hasher.update(f"{content} {len(data)} {file.name}\n".encode())
        return data

    @property
    def digest(self) -> str:
        """Of all files that were read: "sha256:<hex>"."""
        return f"sha256:{self._hasher.hexdigest()}"


def list_folder(folder: Path) -> list[FolderFile]:
    """The files of a folder, or of its subfolders, sorted by name.

    Raises:
        DatasetError: There are none or too many, some lie beside subfolders or deeper, or one is
            neither an image nor a WAV file.
    """
    top = sorted(_entries(folder, folder.name), key=lambda entry: entry.name)
    folders = [entry for entry in top if entry.is_dir()]
    files = [entry for entry in top if not entry.is_dir()]
    if folders and files:
        raise DatasetError(
            f"{folder.name} must have one subfolder a class, or files only; got the subfolder "
            f"{folders[0].name!r} and the file {files[0].name!r}"
        )
    found = [(entry.name, Path(entry.path)) for entry in files]
    for inner in folders:
        for entry in sorted(_entries(Path(inner.path), inner.name), key=lambda item: item.name):
            if entry.is_dir():
                raise DatasetError(
                    f"the class folder {inner.name!r} must hold files only, got the folder "
                    f"{entry.name!r}"
                )
            found.append((f"{inner.name}/{entry.name}", Path(entry.path)))
            _check_number(folder.name, len(found))
    _check_number(folder.name, len(found))
    if not found:
        raise DatasetError(f"{folder.name} has no files")
    kinds = [(name, path, _kind(name, path)) for name, path in found]
    strange = [name for name, _, kind in kinds if kind is None]
    if strange:
        more = f" (nor are {len(strange) - 1} other files)" if len(strange) > 1 else ""
        raise DatasetError(f"{strange[0]} is neither an image nor a WAV file{more}")
    return [FolderFile(path=path, name=name, kind=kind or "") for name, path, kind in kinds]


def folder_file(path: Path) -> FolderFile:
    """One file, told by its content.

    Raises:
        DatasetError: It is neither an image nor a WAV file, or cannot be read.
    """
    kind = _kind(path.name, path)
    if kind is None:
        raise DatasetError(f"{path.name} is neither an image nor a WAV file")
    return FolderFile(path=path, name=path.name, kind=kind)


def check_size(rows: int, row_bytes: int, what: str, hint: str) -> None:
    """Refuse an array before it is made.

    Raises:
        DatasetError: It would be too large.
    """
    if rows * row_bytes > MAX_ARRAY_BYTES:
        raise DatasetError(
            f"{rows} {what} must be at most {MAX_ARRAY_BYTES} bytes together, "
            f"got {rows * row_bytes}{hint}"
        )


def _check_number(name: str, files: int) -> None:
    if files > MAX_FILES:
        raise DatasetError(f"{name} must have at most {MAX_FILES} files")


def _entries(folder: Path, name: str) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                _check_number(name, count)
                if entry.name.startswith(".") or entry.name in _IGNORED:
                    continue
                if not entry.name.isprintable():  # nor is a name that is not UTF-8
                    raise DatasetError(f"{name}: names must be printable, got {entry.name!a}")
                yield entry
    except OSError as exc:
        raise DatasetError(f"folder {name} cannot be read: {exc.strerror}") from exc


def _kind(name: str, path: Path) -> str | None:
    if not path.is_file():  # opening a pipe would wait for its writer for ever
        raise DatasetError(f"{name} is not a regular file")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as exc:
        raise DatasetError(f"{name} cannot be read: {exc.strerror}") from exc
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "WAV"
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_image = is_webp or head.startswith(_IMAGE_HEADS)
    return "image" if is_image else None


def _classes(files: list[FolderFile]) -> tuple[tuple[str, ...], Array | None]:
    """The classes in the order of their folders' names, and the class of every file."""
    if "/" not in files[0].name:
        return (), None
    truth = np.empty(len(files), dtype=np.object_)
    truth[:] = [file.name.split("/", 1)[0] for file in files]
    return tuple(sorted(set(truth.tolist()))), truth
