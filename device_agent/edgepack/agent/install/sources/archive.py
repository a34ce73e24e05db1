"""A bundle's archive of which any part can be read: only the blobs that are missing are.

`RangeReader` is the seam: a file on disk, or a file on a server that gives ranges. The archive's
own headers say where each blob is.
"""

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol, cast

from edgepack.agent.errors import RejectedError
from edgepack.agent.install.landing import Landing
from edgepack.agent.install.sources.source import Described
from edgepack.bundle.archive import Listing, list_archive
from edgepack.wire.desired import BlobRef

WINDOW_BYTES = 4 * 1024
_KEPT_WINDOWS = 32


class RangeReader(Protocol):
    """Bytes that can be read from anywhere."""

    @property
    def name(self) -> str:
        """What to call it in an error; holds no secret."""

    @property
    def size_bytes(self) -> int:
        """Its size."""

    def read(self, offset: int, size_bytes: int) -> Iterator[bytes]:
        """So many bytes from there on, in pieces.

        Raises:
            TransferError: They do not come.
        """


class RangeFile(io.RawIOBase):
    """A range reader as a file; what is read comes with some kilobytes more, which are kept.

    A header mostly comes with the small documents that follow it.

    Args:
        reader: Gives the bytes.
    """

    def __init__(self, reader: RangeReader) -> None:
        self._reader = reader
        self._at = 0
        self._windows: dict[int, bytes] = {}

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; from the beginning only."""
        assert whence == io.SEEK_SET
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """The next bytes; fewer only at the end."""
        end = min(self._at + size, self._reader.size_bytes) if size >= 0 else self._at
        data = b""
        while self._at < end:
            start, window = self._window(self._at)
            piece = window[self._at - start : end - start]
            data += piece
            self._at += len(piece)
        return data

    def _window(self, at: int) -> tuple[int, bytes]:
        for start, window in self._windows.items():
            if start <= at < start + len(window):
                return start, window
        size_bytes = min(WINDOW_BYTES, self._reader.size_bytes - at)
        window = b"".join(self._reader.read(at, size_bytes))
        while len(self._windows) >= _KEPT_WINDOWS:
            del self._windows[next(iter(self._windows))]
        self._windows[at] = window
        return at, window


class Archive:
    """Blobs out of an archive.

    Args:
        reader: Gives the archive's bytes.

    Raises:
        BundleError: It is no bundle's archive.
        TransferError: Its bytes do not come.
    """

    def __init__(self, reader: RangeReader) -> None:
        self._reader = reader
        self._file = RangeFile(reader)
        file = cast("BinaryIO", self._file)  # it reads and seeks, and nobody asks for more
        self._listing = list_archive(file, reader.size_bytes, reader.name)

    def describe(self, digest: str) -> Described:
        """Look which bundle it is.

        Raises:
            RejectedError: Another one.
        """
        return described(self._listing, digest, self._reader.name)

    def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Read blobs; each from where it ended.

        Raises:
            RejectedError: One is not there, or is not what it must be.
            TransferError, StoreError, FetchError: As the reader and the landing.
        """
        for ref in refs:
            region = self._listing.regions.get(ref.digest)
            if region is None or region.size_bytes != ref.size_bytes:
                raise RejectedError("bundle_invalid", f"{self._reader.name} lacks {ref.digest}")
            with landing.arrive(ref) as arrival:
                if arrival.left_bytes <= WINDOW_BYTES:
                    self._file.seek(region.offset + arrival.offset)
                    arrival.write(self._file.read(arrival.left_bytes))
                else:
                    for piece in self._reader.read(
                        region.offset + arrival.offset, arrival.left_bytes
                    ):
                        arrival.write(piece)
                arrival.finish()


def described(listing: Listing, digest: str, name: str) -> Described:
    """What an archive's index says.

    Raises:
        RejectedError: It is another bundle.
    """
    if listing.model.digest != digest:
        raise RejectedError(
            "wrong_bundle", f"{name} must hold {digest}, got {listing.model.digest}"
        )
    return Described(
        manifest=BlobRef(digest=digest, size_bytes=listing.model.size_bytes),
        signatures=tuple(
            BlobRef(digest=item.digest, size_bytes=item.size_bytes) for item in listing.signatures
        ),
    )
