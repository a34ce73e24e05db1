"""Listens: on a TCP port, on a unix socket, or on both."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from edgepack.agent.serve.http.connection import Connection
from edgepack.agent.serve.http.limits import HttpLimits
from edgepack.agent.serve.http.messages import Site, Traffic

logger = logging.getLogger(__name__)

_BACKLOG = 1024
_TLS_HANDSHAKE_S = 10.0
_SOCKET_MODE = 0o660
_TOLD = 8  # times as many as may be open are told so; what comes beyond that is cut


class HttpServer:
    """Serves a site.

    Args:
        site: What answers.
        limits: What callers may take.

    Attributes:
        traffic: What came.
    """

    def __init__(self, site: Site, limits: HttpLimits) -> None:
        self.site = site
        self.limits = limits
        self.traffic = Traffic()
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Listen on TCP; gives the address, whose port is a free one if 0 was asked for.

        Raises:
            OSError: The address cannot be used.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self, is_local=False),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=_TLS_HANDSHAKE_S if tls is not None else None,
            backlog=_BACKLOG,
        )
        self._servers.append(server)
        address = server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def listen_unix(self, path: Path) -> None:
        """Listen on a unix socket of mode 0660; one that a dead server left is replaced.

        Raises:
            OSError: The path cannot be used, or another server listens there.
        """
        loop = asyncio.get_running_loop()
        door = _bind_unix(path)
        server = await loop.create_unix_server(
            lambda: Connection(self, is_local=True), sock=door, backlog=_BACKLOG
        )
        self._servers.append(server)

    async def close(self, timeout_s: float) -> None:
        """Listen no more, let what is under way be answered, end the connections."""
        for server in self._servers:
            for door in server.sockets:
                if door.family == socket.AF_UNIX:
                    with contextlib.suppress(OSError):
                        Path(door.getsockname()).unlink()
            server.close()
        self._servers = []
        for connection in list(self._connections):
            connection.leave()
        deadline_s = time.monotonic() + timeout_s
        while self._connections and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # What connections tell

    def entered(self, connection: Connection) -> bool:
        """A connection was made; False if it is one too many."""
        self._connections.add(connection)
        self.traffic.open_connections = len(self._connections)
        if self._sweeper is None:
            self._sweep_later()
        if len(self._connections) <= self.limits.max_connections:
            return True
        self.traffic.refused_connections += 1
        if len(self._connections) > _TOLD * self.limits.max_connections:
            connection.abort()  # even saying so has its limit
        return False

    def left(self, connection: Connection) -> None:
        """A connection ended."""
        self._connections.discard(connection)
        self.traffic.open_connections = len(self._connections)

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self.limits.sweep_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now_s = time.monotonic()
        for connection in list(self._connections):
            connection.check(now_s)
        if self._connections:
            self._sweep_later()


def _bind_unix(path: Path) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            _remove_if_dead(path)
        with _mask(0o777 & ~_SOCKET_MODE):
            door.bind(str(path))
    except OSError:
        door.close()
        raise
    return door


def _remove_if_dead(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(f"{path} is in use")


@contextlib.contextmanager
def _mask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
