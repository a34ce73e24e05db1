"""`http(s)://…`: a bundle's archive on a server, by ranges where it gives them, else as it comes.

A file that changes between two requests is noticed (If-Range, its size) and looked at anew: what
landed is still good, because it is kept by digest.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from edgepack.agent.errors import RejectedError
from edgepack.agent.install.landing import Landing
from edgepack.agent.install.sources.archive import WINDOW_BYTES, Archive
from edgepack.agent.install.sources.source import Described
from edgepack.agent.install.sources.stream import Stream
from edgepack.bundle import BundleError
from edgepack.wire.desired import BlobRef
from edgepack.wire.errors import TransferError
from edgepack.wire.http import HttpClient, HttpUrl, Response

_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_LOOKS = 3
T = TypeVar("T")


class ChangedError(TransferError):
    """The file is not the one that was looked at first."""


class NoRangesError(TransferError):
    """The server does not give ranges of this file, whatever it said before."""


class HttpReader:
    """Ranges of one version of one file.

    Args:
        client: Sends requests.
        url: The file.
        headers: What else to say.
        first: The answer to a request for the file's beginning, with status 206.

    Raises:
        NoRangesError: The answer is not the range that was asked for.
    """

    def __init__(
        self, client: HttpClient, url: HttpUrl, headers: dict[str, str], first: Response
    ) -> None:
        self.name = url.shown
        self._client = client
        self._url = url
        begin, end, self.size_bytes = content_range(first)
        if begin != 0:
            raise NoRangesError(f"{self.name} must give bytes from 0 on, got from {begin}")
        self._head = _exactly(first, end + 1)
        self._headers = dict(headers)
        validator = _validator(first)
        if validator is not None:
            self._headers["If-Range"] = validator

    def read(self, offset: int, size_bytes: int) -> Iterator[bytes]:
        """So many bytes from there on.

        Raises:
            ChangedError: The file is another one now.
            NoRangesError: The server gives another range than was asked for.
            TransferError: It does not give it, or not all of it.
        """
        if offset + size_bytes <= len(self._head):
            yield self._head[offset : offset + size_bytes]
            return
        end = offset + size_bytes
        while offset < end:
            said, begun = {**self._headers, "Range": f"bytes={offset}-{end - 1}"}, offset
            with self._client.request("GET", self._url, headers=said) as response:
                self._check(response, offset, end)
                while piece := response.read():
                    piece = piece[: end - offset]
                    yield piece
                    offset += len(piece)
            if offset == begun:  # else it would be asked for ever
                raise NoRangesError(f"{self.name} gives nothing of a range")

    def _check(self, response: Response, offset: int, end: int) -> None:
        if response.status in (200, 416):
            raise ChangedError(f"{self.name} changed while it was fetched")
        response.expect(206)
        begins, last, total = content_range(response)
        if total != self.size_bytes:
            raise ChangedError(f"{self.name} changed while it was fetched")
        if begins != offset or not offset <= last < end:
            raise NoRangesError(
                f"{self.name} must give bytes {offset}-{end - 1}, got {begins}-{last}"
            )
        if response.left is not None and response.left != last + 1 - begins:
            raise NoRangesError(f"{self.name} lies about the length of a range")


class HttpSource:
    """An archive on a server.

    Args:
        client: Sends requests.
        url: The file.
        digest: The wanted bundle.
        headers: What else to say, such as Authorization.
        max_bytes: The largest file that is taken as it comes.
    """

    def __init__(
        self,
        client: HttpClient,
        url: HttpUrl,
        digest: str,
        *,
        headers: dict[str, str],
        max_bytes: int,
    ) -> None:
        self._client = client
        self._url = url
        self._digest = digest
        self._headers = headers
        self._max_bytes = max_bytes
        self._stack = contextlib.ExitStack()
        self._source: Archive | Stream | None = None
        self._by_range = True
        self._changed = False

    def describe(self, landing: Landing) -> Described:
        """Look what is there."""
        return self._looking_again(lambda source: self._described(source, landing))

    def get(self, refs: Sequence[BlobRef], landing: Landing) -> None:
        """Fetch blobs."""
        self._looking_again(
            lambda source: source.get([ref for ref in refs if not landing.has(ref)], landing)
        )

    def stop(self) -> None:
        """Break the connection; the thread that waits for it fails and lets go of the rest."""
        self._client.stop()

    def close(self) -> None:
        """Let go of the connection."""
        self._stack.close()
        self._client.close()

    def _described(self, source: "Archive | Stream", landing: Landing) -> Described:
        if isinstance(source, Stream):
            return source.describe(self._digest, landing)
        return source.describe(self._digest)

    def _looking_again(self, work: Callable[["Archive | Stream"], T]) -> T:
        """Do it; once more where the file changed, and without ranges where they are no use."""
        for look in range(_LOOKS):
            try:
                if self._source is None:
                    self._source = self._open()
                return work(self._source)
            except (ChangedError, NoRangesError) as exc:
                self._source = None
                self._by_range = self._by_range and not isinstance(exc, NoRangesError)
                self._changed = self._changed or isinstance(exc, ChangedError)
                if look == _LOOKS - 1:
                    raise
            except (RejectedError, BundleError) as exc:
                if self._changed:  # somebody is writing it just now
                    raise ChangedError(f"{self._url.shown} changed meanwhile: {exc}") from exc
                raise
        raise AssertionError("the last look returns or raises")

    def _open(self) -> "Archive | Stream":
        self._stack.close()
        said = dict(self._headers)
        if self._by_range:
            said["Range"] = f"bytes=0-{WINDOW_BYTES - 1}"
        with contextlib.ExitStack() as stack:
            response = stack.enter_context(self._client.request("GET", self._url, headers=said))
            if response.status != 206 or not self._by_range:
                response.expect(200)
                stream = Stream(response, self._max_bytes)
                stack.callback(stream.close)
                self._stack = stack.pop_all()
                return stream
            reader = HttpReader(self._client, self._url, self._headers, response)
        return Archive(reader)


def content_range(response: Response) -> tuple[int, int, int]:
    """First byte, last byte and size of the whole.

    Raises:
        NoRangesError: The answer does not say so.
    """
    text = response.header("Content-Range") or ""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise NoRangesError(f"{response.url.shown}: Content-Range makes no sense: {text[:60]!r}")
    begin, end, total = (int(number) for number in found.groups())
    if not begin <= end < total:
        raise NoRangesError(f"{response.url.shown}: Content-Range makes no sense: {text[:60]!r}")
    return begin, end, total


def _exactly(response: Response, size_bytes: int) -> bytes:
    lies = NoRangesError(f"{response.url.shown} lies about the length of a range")
    if size_bytes > WINDOW_BYTES or response.left not in (None, size_bytes):
        raise lies
    data = response.read_all(WINDOW_BYTES, "range")
    if len(data) != size_bytes:
        raise lies
    return data


def _validator(response: Response) -> str | None:
    """What tells this version of the file from others: a strong ETag, else its time."""
    etag = response.header("ETag")
    if etag is not None and etag.startswith('"'):
        return etag
    return response.header("Last-Modified")
