"""A broker inside Python, so that a first try needs nothing else. Not for a fleet in earnest.

It keeps everything in memory, speaks MQTT 3.1.1 without TLS, and serves some thousand messages a
second.
"""

import asyncio
import contextlib
import ipaddress
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import amqtt.errors

from edgepack.fleet.broker.server import Authenticate, Server, anonymous, with_password
from edgepack.fleet.errors import BrokerError, TargetError

DEFAULT_PORT = 1883
DEFAULT_USER = "edgepack"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Where the broker listens and whom it lets in.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        username: Who has the password.
        password: None lets everybody in, which is allowed on loopback only.
    """

    host: str = LOOPBACK
    port: int = DEFAULT_PORT
    username: str = DEFAULT_USER
    password: str | None = field(default=None, repr=False)


class EmbeddedBroker:
    """`async with EmbeddedBroker(options) as broker: broker.port`."""

    def __init__(self, options: BrokerOptions) -> None:
        if options.password is None and not is_loopback(options.host):
            raise TargetError(
                f"a broker on {options.host} must have a password, got none "
                "(anonymous clients are let in on loopback only)"
            )
        if not 0 <= options.port <= 65_535:
            raise TargetError(f"port must be 0 to 65535, got {options.port}")
        self.host = options.host
        self.port = options.port
        self._options = options
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        options = self._options
        authenticate: Authenticate = anonymous
        if options.password is not None:
            authenticate = with_password(options.username, options.password)
        server = Server(options.host, options.port, authenticate)
        try:
            await server.start()
        except amqtt.errors.BrokerError as exc:
            raise BrokerError(
                f"cannot listen on {options.host} port {options.port}: {_reason(exc)}"
            ) from exc
        self._server = server
        self.port = server.port
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            await self._server.shutdown()
            self._server = None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_password() -> str:
    """128 random bits, to be printed once."""
    return secrets.token_urlsafe(16)


async def serve(options: BrokerOptions, on_ready: Callable[[EmbeddedBroker], None]) -> None:
    """Run a broker until SIGTERM or SIGINT.

    Args:
        options: Where and for whom.
        on_ready: Called once, when clients can connect.

    Raises:
        BrokerError: The address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Windows has no handlers in the loop; there Ctrl-C ends asyncio.run by itself.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with EmbeddedBroker(options) as broker:
        on_ready(broker)
        await stop.wait()


def _reason(exc: BaseException) -> str:
    cause = exc.__cause__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause or exc)
