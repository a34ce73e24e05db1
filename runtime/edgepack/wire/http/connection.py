"""`http.client`'s connection, each of whose reads a `Guard` watches; directly or by a proxy."""

import functools
import http.client
import io
import socket
import ssl
from collections.abc import Callable
from typing import Any

from edgepack.wire.errors import WireError
from edgepack.wire.http.credentials import basic_header
from edgepack.wire.http.guard import Guard, now_s
from edgepack.wire.http.settings import HttpSettings
from edgepack.wire.http.url import HttpUrl, parse_url

_BUFFER_BYTES = 64 * 1024


class _GuardedReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, connection: socket.socket, guard: Guard) -> None:
        self._raw = raw
        self._connection = connection
        self._guard = guard

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (a writable buffer has no type in 3.11)
        self._connection.settimeout(self._guard.allowed_s())
        started_s = now_s()
        try:
            with memoryview(buffer) as whole, whole[: self._guard.piece_bytes] as piece:
                size_bytes: int = self._raw.readinto(piece) or 0
        except TimeoutError:
            self._guard.stalled()
            raise
        self._guard.received(size_bytes, now_s() - started_s)
        return size_bytes

    def close(self) -> None:
        self._raw.close()
        super().close()


class _GuardedResponse(http.client.HTTPResponse):
    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
        *,
        guard: Guard,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_GuardedReader(raw, sock, guard), _BUFFER_BYTES)


def connect(
    url: HttpUrl, settings: HttpSettings, guard: Guard, tls: Callable[[], ssl.SSLContext]
) -> http.client.HTTPConnection:
    """Connect to a URL's server, or to the proxy that leads to it.

    Raises:
        OSError, http.client.HTTPException: It cannot be reached.
        WireError: The proxy is not one that is known.
    """
    proxy = proxy_for(url, settings)
    first = url if proxy is None else proxy
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(
            first.host, first.port, timeout=settings.connect_s, context=tls()
        )
        if proxy is not None:
            connection.set_tunnel(url.host, url.port, headers=proxy_headers(proxy))
    else:
        connection = http.client.HTTPConnection(first.host, first.port, timeout=settings.connect_s)
    connection.response_class = functools.partial(_GuardedResponse, guard=guard)  # type: ignore[assignment]
    guard.begin_response()  # a proxy answers too
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock.settimeout(settings.stall_s)
    guard.watch(connection.sock)
    return connection


def proxy_for(url: HttpUrl, settings: HttpSettings) -> HttpUrl | None:
    """The proxy that leads to a URL, or None.

    Raises:
        WireError: It is not an `http://` proxy.
    """
    if settings.proxy is not None:
        named = settings.proxy
    else:
        from urllib.request import getproxies_environment, proxy_bypass

        named = getproxies_environment().get(url.scheme, "")
        if named and proxy_bypass(url.authority):
            named = ""
    if not named:
        return None
    return parse_proxy(named)


def parse_proxy(text: str) -> HttpUrl:
    """Parse `http://[USER:PASSWORD@]HOST[:PORT]`.

    Raises:
        WireError: It is something else.
    """
    try:
        proxy = parse_url(text if "://" in text else f"http://{text}")
    except WireError as exc:
        raise WireError(f"proxy: {exc}") from exc
    if proxy.scheme != "http":
        raise WireError(f"proxy must be http://HOST[:PORT], got {proxy.scheme}://…")
    return proxy


def proxy_headers(proxy: HttpUrl) -> dict[str, str]:
    """What a proxy wants to be told."""
    if proxy.user is None:
        return {}
    return {"Proxy-Authorization": basic_header(proxy.user, proxy.password or "")}
