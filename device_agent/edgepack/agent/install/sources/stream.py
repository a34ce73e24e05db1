"""An archive that comes from its beginning to its end, once: every blob that passes is kept.

For servers that give no ranges. Nothing past the wanted blobs is read, so that a bundle that this
device cannot run costs no more than what stands before its contract.
"""

from collections.abc import Sequence
from typing import Protocol

from edgepack.agent.errors import RejectedError
from edgepack.agent.install.landing import Arrival, Landing
from edgepack.agent.install.sources.archive import described
from edgepack.agent.install.sources.source import Described
from edgepack.bundle.archive import Listing
from edgepack.bundle.index import parse_bundle_index
from edgepack.bundle.member_reader import BlobBegins, BlobData, IndexCame, MemberReader
from edgepack.wire.desired import BlobRef


class Pieces(Protocol):
    """What comes."""

    def read(self) -> bytes:
        """The next bytes; empty at the end."""


class Stream:
    """Blobs out of an archive that passes by.

    Args:
        pieces: The archive, from its first byte on.
        max_bytes: Its largest size.
    """

    def __init__(self, pieces: Pieces, max_bytes: int) -> None:
        self._pieces = pieces
        self._left_bytes = max_bytes
        self._max_bytes = max_bytes
        self._reader = MemberReader()
        self._index: bytes | None = None
        self._arrival: Arrival | None = None
        self._known_bytes = 0  # of the blob that passes: they are here already

    def describe(self, digest: str, landing: Landing) -> Described:
        """Read on until the archive's index has come.

        Raises:
            RejectedError: It is another bundle.
            BundleError, TransferError, FetchError, StoreError: As the parts of it say.
        """
        while self._index is None:
            self._advance(landing)
        model, signatures = parse_bundle_index(self._index)
        listing = Listing(model=model, signatures=signatures, regions={})
        return described(listing, digest, "the archive")

    def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Read on until these blobs have come.

        Raises:
            RejectedError: One is not there, or is not what it must be.
            BundleError, TransferError, FetchError, StoreError: As the parts of it say.
        """
        for ref in refs:
            while not landing.has(ref):
                if self._reader.ended:
                    raise RejectedError("bundle_invalid", f"the archive lacks {ref.digest}")
                self._advance(landing)

    def close(self) -> None:
        """Let go of the blob that was passing; what came of it stays."""
        if self._arrival is not None:
            self._arrival.close()
            self._arrival = None

    def _advance(self, landing: Landing) -> None:
        data = self._pieces.read()
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise RejectedError(
                "too_large", f"download must be at most {self._max_bytes} bytes, got more"
            )
        if not data:
            self._reader.close()
        for event in self._reader.feed(data):
            if isinstance(event, IndexCame):
                self._index = event.data
            elif isinstance(event, BlobBegins):
                self._begin(BlobRef(digest=event.digest, size_bytes=event.size_bytes), landing)
            else:
                self._write(event)

    def _begin(self, ref: BlobRef, landing: Landing) -> None:
        self._arrival = None
        if ref.size_bytes > self._max_bytes:
            raise RejectedError(
                "too_large", f"blob must be at most {self._max_bytes} bytes, got {ref.size_bytes}"
            )
        if not landing.has(ref):
            self._arrival = landing.arrive(ref)
            self._known_bytes = self._arrival.offset
            if not self._arrival.left_bytes:
                self._end()

    def _write(self, event: BlobData) -> None:
        if self._arrival is None:
            return
        data = event.data[self._known_bytes :]
        self._known_bytes -= len(event.data) - len(data)
        self._arrival.write(data)
        if not self._arrival.left_bytes:
            self._end()

    def _end(self) -> None:
        if self._arrival is not None:
            self._arrival.finish()
            self._arrival = None
