"""An archive that comes as a stream, member by member: nothing is kept but what is not yet told.

Sans-I/O: bytes are fed in, events come out. For whoever cannot seek; `list_archive` is for whoever
can.
"""

from collections.abc import Iterator

from edgepack.bundle.archive import BLOB_PREFIX, check_layout, check_member_name
from edgepack.bundle.errors import (
    NotCanonicalError,
    OversizedDocumentError,
    TruncatedError,
)
from edgepack.bundle.index import INDEX_NAME, LAYOUT_NAME
from edgepack.bundle.limits import MAX_INDEX_BYTES
from edgepack.bundle.tar_header import BLOCK_BYTES, END, padding_bytes, parse_header
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCame:
    """The archive's index.json, complete and unverified."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobBegins:
    """A blob's header came.

    Attributes:
        digest: What the blob claims to be.
        size_bytes: Its size.
    """

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobData:
    """The next bytes of the blob that began last."""

    data: bytes


Event = IndexCame | BlobBegins | BlobData


class MemberReader:
    """Takes an archive apart while it comes."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._pending = b""
        self._document: bytes | None = None  # of oci-layout or index.json, while it comes
        self._content_left = 0
        self._padding_left = 0
        self._offset = 0
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """What some more bytes mean; take all events before feeding again.

        Raises:
            BundleError: This is no bundle's archive.
        """
        self._pending += data
        while self._pending and not self.ended:
            if self._content_left:
                yield from self._content()
            elif self._padding_left:
                self._padding()
            elif len(self._pending) < BLOCK_BYTES:
                return
            elif self._pending[:BLOCK_BYTES] == bytes(BLOCK_BYTES):
                if len(self._pending) < len(END):
                    return
                self._end()
            else:
                yield from self._header()

    def close(self) -> None:
        """The stream ended.

        Raises:
            TruncatedError: Before the archive did.
        """
        if not self.ended:
            raise TruncatedError(f"the archive ends at byte {self._offset}, before its end mark")

    def _take(self, size_bytes: int) -> bytes:
        taken, self._pending = self._pending[:size_bytes], self._pending[size_bytes:]
        self._offset += len(taken)
        return taken

    def _header(self) -> Iterator[Event]:
        offset = self._offset
        name, size_bytes = parse_header(self._take(BLOCK_BYTES), offset)
        check_member_name(name, self._names)
        self._names[name] = None
        self._content_left, self._padding_left = size_bytes, padding_bytes(size_bytes)
        if name.startswith(BLOB_PREFIX):
            self._document = None
            yield BlobBegins(
                digest=f"sha256:{name.removeprefix(BLOB_PREFIX)}", size_bytes=size_bytes
            )
            return
        if size_bytes > MAX_INDEX_BYTES:
            raise OversizedDocumentError(
                f"{name} must be at most {MAX_INDEX_BYTES} bytes, got {size_bytes}"
            )
        self._document = b""

    def _content(self) -> Iterator[Event]:
        data = self._take(self._content_left)
        self._content_left -= len(data)
        if self._document is None:
            yield BlobData(data=data)
            return
        self._document += data
        if self._content_left:
            return
        (name,) = list(self._names)[-1:]
        if name == LAYOUT_NAME:
            check_layout(self._document)
        elif name == INDEX_NAME:
            yield IndexCame(data=self._document)

    def _padding(self) -> None:
        padding = self._take(self._padding_left)
        self._padding_left -= len(padding)
        if padding.strip(b"\0"):
            raise NotCanonicalError(f"the padding before byte {self._offset} must be zero")

    def _end(self) -> None:
        if self._take(len(END)) != END or INDEX_NAME not in self._names:
            raise NotCanonicalError(f"the end mark at byte {self._offset} is not where it must be")
        self.ended = True
