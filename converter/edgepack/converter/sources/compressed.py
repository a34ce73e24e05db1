"""Compressed model files, as joblib writes them: told apart by content, unpacked with a bound."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from edgepack.converter.errors import ModelFileError

MAX_MODEL_BYTES = 4 << 30
_CHUNK_BYTES = 1 << 20


class _ZlibReader:
    """zlib has no file class of its own; this is as much of one as `_bounded` needs."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unpacker = zlib.decompressobj()
        self._left = b""

    def read(self, size: int) -> bytes:
        while not self._unpacker.eof:
            packed = self._left or self._file.read(_CHUNK_BYTES)
            if not packed:
                raise EOFError("the compressed data ends too early")
            data = self._unpacker.decompress(packed, size)
            self._left = self._unpacker.unconsumed_tail
            if data:
                return data
        return b""


_FORMATS: tuple[tuple[bytes, str, Callable[[BinaryIO], object]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.open),
    (b"BZh", "bz2", bz2.BZ2File),
    (b"\xfd7zXZ\x00", "xz", lzma.LZMAFile),
    (b"\x5d\x00\x00", "lzma", lzma.LZMAFile),
    (b"\x78\x01", "zlib", _ZlibReader),
    (b"\x78\x5e", "zlib", _ZlibReader),
    (b"\x78\x9c", "zlib", _ZlibReader),
    (b"\x78\xda", "zlib", _ZlibReader),
)
LZ4_MAGIC = b"\x04\x22\x4d\x18"


def compression_of(head: bytes) -> str | None:
    """Name the compression that a file's first bytes show, or None."""
    return next((name for magic, name, _ in _FORMATS if head.startswith(magic)), None)


def unpacked_head(path: Path, size: int) -> bytes:
    """The first bytes of what is inside a compressed file.

    Raises:
        ModelFileError: It is damaged.
    """
    with path.open("rb") as file:
        return _read(file, size, path.name, whole=False)


def open_unpacked(path: Path) -> BinaryIO:
    """Open a model file, unpacked into memory if it is compressed.

    Raises:
        ModelFileError: It is damaged, or unpacks to more than `MAX_MODEL_BYTES`.
    """
    file = path.open("rb")
    if compression_of(file.read(8)) is None:
        file.seek(0)
        return file
    with file:
        file.seek(0)
        return BytesIO(_read(file, MAX_MODEL_BYTES, path.name, whole=True))


def _read(file: BinaryIO, limit: int, name: str, *, whole: bool) -> bytes:
    head = file.read(8)
    file.seek(0)
    compression = compression_of(head)
    opener = next(opener for magic, _, opener in _FORMATS if head.startswith(magic))
    reader = opener(file)
    parts: list[bytes] = []
    size = 0
    try:
        while size < limit:
            data: bytes = reader.read(min(_CHUNK_BYTES, limit - size))  # type: ignore[attr-defined]
            if not data:
                break
            parts.append(data)
            size += len(data)
        if whole and size == limit and reader.read(1):  # type: ignore[attr-defined]
            raise ModelFileError(f"{name} unpacks to more than {limit} bytes")
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as exc:
        if not (parts and not whole):
            raise ModelFileError(f"{name} is damaged: its {compression} data: {exc}") from exc
    return b"".join(parts)
