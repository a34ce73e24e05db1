"""Where blobs come from: a region of an archive, or a file in a layout folder.

A source gives bytes and promises nothing about them. `verified_chunks` and `read_verified` are the
only ways in which anything else reads, and they compare the digest every time: a file may change
between being opened and being read.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from edgepack.bundle.descriptor import Descriptor
from edgepack.bundle.errors import (
    BundleFileError,
    DigestError,
    LinkError,
    MissingBlobError,
    TruncatedError,
)
from edgepack.bundle.limits import CHUNK_BYTES
from edgepack.trust.values import dataclass

_O_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_O_BINARY = getattr(os, "O_BINARY", 0)


class BlobSource(Protocol):
    """Something that holds blobs."""

    def size_of(self, digest: str) -> int:
        """Tell a blob's size in bytes.

        Raises:
            MissingBlobError: It is not there.
        """

    def chunks(self, digest: str) -> Iterator[bytes]:
        """Give a blob's bytes, in pieces of at most CHUNK_BYTES, unverified.

        Raises:
            BundleError: It is not there, or cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A blob's place in an archive, in bytes."""

    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArchiveBlobs:
    """The blobs of a tar file, which is opened anew for every read.

    Attributes:
        path: The archive.
        regions: Where each blob lies, by digest.
    """

    path: Path
    regions: Mapping[str, Region]

    def size_of(self, digest: str) -> int:
        """Tell a blob's size in bytes."""
        return self._region(digest).size_bytes

    def chunks(self, digest: str) -> Iterator[bytes]:
        """Give a blob's bytes, unverified."""
        region = self._region(digest)
        with open_regular(self.path) as (file, _):
            file.seek(region.offset)
            yield from read_chunks(file, region.size_bytes, str(self.path))

    def _region(self, digest: str) -> Region:
        if digest not in self.regions:
            raise MissingBlobError(f"blob {digest} is not in {self.path}", digest=digest)
        return self.regions[digest]


@dataclass(frozen=True, slots=True)
class LayoutBlobs:
    """The blobs of an OCI layout folder: `blobs/sha256/HEX`.

    Attributes:
        folder: The layout.
    """

    folder: Path

    def path_of(self, digest: str) -> Path:
        """Tell where a blob lies, whether it is there or not."""
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def size_of(self, digest: str) -> int:
        """Tell a blob's size in bytes."""
        with self._open(digest) as (_, size_bytes):
            return size_bytes

    def chunks(self, digest: str) -> Iterator[bytes]:
        """Give a blob's bytes, unverified."""
        with self._open(digest) as (file, size_bytes):
            yield from read_chunks(file, size_bytes, str(self.path_of(digest)))

    @contextmanager
    def _open(self, digest: str) -> Iterator[tuple[BinaryIO, int]]:
        path = self.path_of(digest)
        if not path.is_symlink() and not path.exists():
            raise MissingBlobError(f"blob {digest} is not in {self.folder}", digest=digest)
        with open_regular(path, follow_links=False) as opened:
            yield opened


def verified_chunks(source: BlobSource, blob: Descriptor) -> Iterator[bytes]:
    """Give a blob's bytes in pieces; the digest is known, and compared, at the end only.

    Raises:
        MissingBlobError: It is not there.
        DigestError: Its size or its digest is another.
        BundleError: It cannot be read.
    """
    check_size(source, blob)
    sha256 = hashlib.sha256()
    for chunk in source.chunks(blob.digest):
        sha256.update(chunk)
        yield chunk
    if sha256.hexdigest() != blob.hex:
        raise DigestError(
            f"blob {blob.digest} has the digest sha256:{sha256.hexdigest()}", digest=blob.digest
        )


def check_size(source: BlobSource, blob: Descriptor) -> None:
    """Compare a blob's size, which costs nothing.

    Raises:
        MissingBlobError: It is not there.
        DigestError: Its size is another.
    """
    size_bytes = source.size_of(blob.digest)
    if size_bytes != blob.size_bytes:
        raise DigestError(
            f"blob {blob.digest} must have {blob.size_bytes} bytes, got {size_bytes}",
            digest=blob.digest,
        )


def read_verified(source: BlobSource, blob: Descriptor) -> bytes:
    """Read a whole blob into memory and check it.

    Raises:
        BundleError: As `verified_chunks`.
    """
    return b"".join(verified_chunks(source, blob))


def locate_verified(source: BlobSource, blob: Descriptor, *, hash_it: bool = True) -> Path | None:
    """Check a blob that is a file of its own, and tell where it lies; None in an archive.

    The file is read in pieces, so that checking it takes no memory.

    Args:
        source: Where it is.
        blob: Which.
        hash_it: False compares its size only.

    Raises:
        BundleError: As `verified_chunks`.
    """
    if not isinstance(source, LayoutBlobs):
        return None
    if hash_it:
        for _ in verified_chunks(source, blob):
            pass
    else:
        check_size(source, blob)
    return source.path_of(blob.digest)


@contextmanager
def open_regular(path: Path, *, follow_links: bool = True) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file and tell its size in bytes.

    Raises:
        BundleFileError: There is none, it is something else, or it cannot be read.
        LinkError: It is a link, and links are not followed.
    """
    if not follow_links and path.is_symlink():
        raise LinkError(f"{path} must be a regular file, got a link")
    # Non-blocking: opening a FIFO would otherwise wait for its writer for ever.
    flags = os.O_RDONLY | _O_NONBLOCK | _O_BINARY | (0 if follow_links else _O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as exc:
        raise BundleFileError(f"cannot read {path}: {exc.strerror}") from exc
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BundleFileError(f"{path} must be a regular file, got something else")
    with os.fdopen(descriptor, "rb") as file:
        yield file, status.st_size


def read_chunks(file: BinaryIO, size_bytes: int, what: str) -> Iterator[bytes]:
    """Read exactly that many bytes in pieces.

    Raises:
        TruncatedError: The file ends before.
        BundleFileError: The disk cannot read it.
    """
    left = size_bytes
    while left:
        try:
            chunk = file.read(min(left, CHUNK_BYTES))
        except OSError as exc:
            raise BundleFileError(f"cannot read {what}: {exc.strerror}") from exc
        if not chunk:
            raise TruncatedError(f"{what} ends {left} bytes too early")
        left -= len(chunk)
        yield chunk
