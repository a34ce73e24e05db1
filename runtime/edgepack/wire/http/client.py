"""Requests: redirects followed within bounds, connections kept, every failure one kind of error."""

import contextlib
import http.client
import ssl
from collections.abc import Iterable, Iterator, Mapping

from edgepack.wire.errors import StatusError, TransferError, UnauthorizedError, WireError
from edgepack.wire.http.connection import connect, proxy_for, proxy_headers
from edgepack.wire.http.guard import Guard
from edgepack.wire.http.settings import USER_AGENT, HttpSettings
from edgepack.wire.http.url import HttpUrl, redirected
from edgepack.wire.throttle import Throttle

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRETS = frozenset({"authorization", "cookie"})
_PIECE_BYTES = 64 * 1024

Body = bytes | Iterable[bytes]


class Response:
    """An answer whose body is read in pieces.

    Attributes:
        url: Who gave it, after redirects.
        status: HTTP status.
        left: How many bytes of the body are still to come, None where nobody knows.
    """

    def __init__(self, url: HttpUrl, raw: http.client.HTTPResponse) -> None:
        self.url = url
        self.status = raw.status
        self.left: int | None = raw.length
        self._raw = raw

    def header(self, name: str) -> str | None:
        """A header, or None."""
        return self._raw.headers.get(name)

    @property
    def done(self) -> bool:
        """Whether the whole body came."""
        return self.left == 0 or self._raw.isclosed()

    def read(self, size_bytes: int = _PIECE_BYTES) -> bytes:
        """What comes next, as soon as something does; empty at the end.

        Raises:
            TransferError: The connection broke, or the server stalled.
        """
        if self.left == 0:
            return b""
        if self.left is not None:  # http.client's read1 does not count before Python 3.12
            size_bytes = min(size_bytes, self.left)
        try:
            piece = self._raw.read1(size_bytes)
        except (OSError, http.client.HTTPException) as exc:
            raise TransferError(f"{self.url.shown} broke off: {_reason(exc)}") from exc
        if self.left is not None:
            if not piece:  # http.client takes a connection that broke for the end
                raise TransferError(f"{self.url.shown} broke off, {self.left} bytes are missing")
            self.left -= len(piece)
        return piece

    def read_all(self, max_bytes: int, what: str) -> bytes:
        """The whole body.

        Raises:
            TransferError: It is larger than that, or breaks off.
        """
        body = b""
        while piece := self.read():
            body += piece
            if len(body) > max_bytes:
                raise TransferError(
                    f"{what} from {self.url.shown} must be at most {max_bytes} bytes, got more"
                )
        return body

    def close(self) -> None:
        """Let go of it."""
        self._raw.close()

    def expect(self, *statuses: int) -> None:
        """Refuse every other status.

        Raises:
            UnauthorizedError, StatusError: It is another one.
        """
        if self.status in statuses:
            return
        text = f"{self.url.shown} answered {self.status} {self._raw.reason}"
        if self.status in (401, 407):
            raise UnauthorizedError(text)
        raise StatusError(text, status=self.status)


class HttpClient:
    """One conversation at a time, from one thread; `stop` from any.

    Args:
        settings: How to reach servers.
        throttle: A rate that several clients share, or None.
    """

    def __init__(self, settings: HttpSettings, throttle: Throttle | None = None) -> None:
        self._settings = settings
        self._guard = Guard(settings, throttle)
        self._kept: tuple[tuple[str, str, int], http.client.HTTPConnection] | None = None
        self._tls: ssl.SSLContext | None = None

    @property
    def received_bytes(self) -> int:
        """All bytes that came so far, heads included."""
        return self._guard.received_bytes

    def stop(self) -> None:
        """End whatever goes on; what waits for it gets a TransferError."""
        self._guard.stop()

    def close(self) -> None:
        """Close the connection that is kept."""
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: HttpUrl,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        body_bytes: int = 0,
    ) -> Iterator[Response]:
        """Ask, and give the answer; redirects of GET and HEAD are followed.

        Args:
            method: "GET", "HEAD", "PUT", "POST", "PATCH".
            url: Whom and for what.
            headers: What else to say; `Authorization` goes to the URL's own origin only.
            body: What to send: bytes, or pieces of together `body_bytes`.
            body_bytes: Size of a body in pieces.

        Raises:
            TransferError: The server cannot be reached, stalls, or redirects without end.
        """
        said = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
        if body is not None:
            size = len(body) if isinstance(body, bytes) else body_bytes
            said["Content-Length"] = str(size)
        for _ in range(self._settings.redirects + 1):
            raw = self._ask(method, url, said, body)
            location = raw.headers.get("Location")
            if raw.status not in _REDIRECTS or method not in ("GET", "HEAD") or location is None:
                break
            self._end(Response(url, raw))
            try:
                target = redirected(url, location)
            except WireError as exc:
                raise TransferError(str(exc)) from exc
            if target.origin != url.origin:
                said = {key: said[key] for key in said if key.lower() not in _SECRETS}
            url = target
        else:
            raise TransferError(f"{url.shown}: more than {self._settings.redirects} redirects")
        encoding = raw.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            self.close()
            raise TransferError(f"{url.shown} must send what was asked for, got {encoding[:20]!r}")
        response = Response(url, raw)
        try:
            yield response
        finally:
            self._end(response)

    def _ask(
        self, method: str, url: HttpUrl, headers: Mapping[str, str], body: Body | None
    ) -> http.client.HTTPResponse:
        if self._kept is not None and self._kept[0] == url.origin and body is None:
            try:
                return self._exchange(self._kept[1], method, url, headers, body)
            except (ConnectionError, http.client.BadStatusLine):
                self._guard.check()  # it was closed meanwhile: a new one
        self.close()
        try:
            connection = connect(url, self._settings, self._guard, self._context)
            self._kept = (url.origin, connection)
            return self._exchange(connection, method, url, headers, body)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            self.close()
            self._guard.check()
            raise TransferError(f"{url.shown}: {_reason(exc)}") from exc
        except BaseException:
            self.close()
            raise

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        url: HttpUrl,
        headers: Mapping[str, str],
        body: Body | None,
    ) -> http.client.HTTPResponse:
        proxy = proxy_for(url, self._settings) if url.scheme == "http" else None
        target = url.target if proxy is None else url.full
        more = {} if proxy is None else proxy_headers(proxy)
        self._guard.begin_response()
        if connection.sock is not None:
            connection.sock.settimeout(self._settings.stall_s)
        connection.request(method, target, body=body, headers={**headers, **more})
        response = connection.getresponse()
        self._guard.end_head()
        return response

    def _end(self, response: Response) -> None:
        """Keep the connection only where the next answer begins at its next byte."""
        if not response.done:
            self.close()
        response.close()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context()
                if self._settings.ca_file is not None:
                    self._tls.load_verify_locations(self._settings.ca_file)
            except (OSError, ssl.SSLError) as exc:
                raise TransferError(
                    f"ca_file {self._settings.ca_file} cannot be used: {exc}"
                ) from exc
        return self._tls


def _reason(exc: BaseException) -> str:
    """What helps of a foreign error, in one line."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate is not trusted: {exc.verify_message}"
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    text = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return " ".join(str(text).split())[:200]
