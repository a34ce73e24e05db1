"""The way to the broker: its URL, MQTT 5 with MQTT 3.1.1 as fallback, and errors of one line.

What brokers without MQTT 5 do was measured: amqtt answers with "unsupported protocol version" at
once, or says nothing at all when the client sends a user name (plain amqtt 0.12; our embedded
broker answers); mosquitto speaks both. So both, a refusal and silence, lead to MQTT 3.1.1.
"""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import aiomqtt
from aiomqtt import ProtocolVersion

from edgepack.fleet.errors import BrokerError, TargetError

DEFAULT_TIMEOUT_S = 10.0
_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_WITH_TLS = ("mqtts", "wss")
_SOCKET_PATH = "/mqtt"
_TLS_FILES = ("cafile", "certfile", "keyfile")
_UNSUPPORTED_VERSION = frozenset({1, 132})  # CONNACK of MQTT 3.1.1, reason code of MQTT 5
_BAD_CREDENTIALS = frozenset({4, 5, 134, 135})
_CALLS_AT_ONCE = 64
# Without it Nagle's algorithm and delayed acknowledgements hold every small packet for 40 ms.
_NO_DELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """Where a broker is; its text never shows the password.

    Attributes:
        host: Name or address.
        port: TCP port.
        tls: True for mqtts and wss.
        path: Of ws and wss; None for plain MQTT.
        username: User name, if any.
        password: Password, if any.
        cafile: PEM file of who signs the broker's certificate; else the system's.
        certfile, keyfile: PEM files of this client's certificate and key.
    """

    host: str
    port: int
    tls: bool = False
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    def __str__(self) -> str:
        user = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        kind = "mqtt" if self.path is None else "ws"
        return f"{kind}{'s' if self.tls else ''}://{user}{host}:{self.port}{self.path or ''}"


def parse_broker_url(text: str) -> BrokerUrl:
    """Parse `mqtt://[USER:PASSWORD@]HOST[:PORT]`, or `mqtts://…[?cafile=…&certfile=…&keyfile=…]`.

    Over WebSocket it is `ws://…[/PATH]` or `wss://…`; the path is /mqtt where none is given.

    Raises:
        TargetError: It is not such a URL. The text of the error has no password in it.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise TargetError("broker URL has a wrong host or port") from exc
    is_socket = parts.scheme in ("ws", "wss")
    has_path = parts.path not in ("", "/")
    if parts.scheme not in _PORTS or not parts.hostname or (has_path and not is_socket):
        raise TargetError(
            "broker must be mqtt://[USER:PASSWORD@]HOST[:PORT], mqtts://…, ws://…[/PATH] or "
            f"wss://…, got {_shown(parts)}"
        )
    files = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(files) - set(_TLS_FILES))
    if unknown or (files and parts.scheme not in _WITH_TLS):
        raise TargetError(
            f"broker URL may have {', '.join(_TLS_FILES)} after mqtts://…? or wss://…?, "
            f"got {', '.join(unknown or files)}"
        )
    return BrokerUrl(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        tls=parts.scheme in _WITH_TLS,
        path=(parts.path if has_path else _SOCKET_PATH) if is_socket else None,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
        cafile=files.get("cafile"),
        certfile=files.get("certfile"),
        keyfile=files.get("keyfile"),
    )


@asynccontextmanager
async def connect(
    url: BrokerUrl, *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> AsyncIterator[aiomqtt.Client]:
    """Connect with MQTT 5, or with MQTT 3.1.1 where the broker does not know 5.

    Raises:
        BrokerError: It cannot be reached, refuses, or the connection breaks in the body.
    """
    try:
        async with AsyncExitStack() as stack:
            client = await _entered(stack, url, timeout_s)
            stack.callback(_forget_loss, client)
            yield client
    except aiomqtt.MqttError as exc:  # in the body, or while saying goodbye
        raise BrokerError(f"connection to {url} broke: {_text(exc)}") from exc


def _forget_loss(client: aiomqtt.Client) -> None:
    """Look at how the connection ended, or asyncio complains that nobody did."""
    ended = client._disconnected
    if ended.done() and not ended.cancelled():
        ended.exception()


async def _entered(stack: AsyncExitStack, url: BrokerUrl, timeout_s: float) -> aiomqtt.Client:
    try:
        return await _enter(stack, _client(url, ProtocolVersion.V5, timeout_s / 2))
    except aiomqtt.MqttError as exc:
        if not _may_be_version(exc):
            raise _refused(url, exc) from exc
    try:
        return await _enter(stack, _client(url, ProtocolVersion.V311, timeout_s))
    except aiomqtt.MqttError as exc:
        raise _refused(url, exc) from exc


async def _enter(stack: AsyncExitStack, client: aiomqtt.Client) -> aiomqtt.Client:
    try:
        return await stack.enter_async_context(client)
    except aiomqtt.MqttError:
        client._client.disconnect()  # aiomqtt leaves the socket open when no CONNACK came
        raise


def _client(url: BrokerUrl, protocol: ProtocolVersion, timeout_s: float) -> aiomqtt.Client:
    client = aiomqtt.Client(
        url.host,
        url.port,
        transport="tcp" if url.path is None else "websockets",
        websocket_path=url.path,
        protocol=protocol,
        username=url.username,
        password=url.password,
        timeout=timeout_s,
        tls_context=_tls(url) if url.tls else None,
        socket_options=(_NO_DELAY,),
    )
    client.pending_calls_threshold = _CALLS_AT_ONCE
    return client


def _tls(url: BrokerUrl) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=url.cafile)
        if url.certfile is not None:
            context.load_cert_chain(url.certfile, url.keyfile)
    except (OSError, ssl.SSLError) as exc:
        raise TargetError(f"certificates of {url} cannot be read: {exc}") from exc
    return context


def _may_be_version(exc: aiomqtt.MqttError) -> bool:
    if isinstance(exc, aiomqtt.MqttCodeError):
        return _code(exc) in _UNSUPPORTED_VERSION
    return "timed out" in str(exc)  # aiomqtt has no type for it


def _refused(url: BrokerUrl, exc: aiomqtt.MqttError) -> BrokerError:
    if isinstance(exc, aiomqtt.MqttCodeError) and _code(exc) in _BAD_CREDENTIALS:
        return BrokerError(
            f"{url} refuses the user name or password",
            hint="give them in the URL: mqtt://USER:PASSWORD@HOST",
        )
    hint = "is a broker running there? `edgepack broker` starts one on this machine"
    return BrokerError(f"cannot reach the broker {url}: {_text(exc)}", hint=hint)


def _code(exc: aiomqtt.MqttCodeError) -> int | None:
    value = getattr(exc.rc, "value", exc.rc)
    return value if isinstance(value, int) else None


def _text(exc: aiomqtt.MqttError) -> str:
    text = str(exc)
    return text.partition("] ")[2] if text.startswith("[") else text


def _shown(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2][:80]
    return f"{parts.scheme or 'no scheme'}://{host}{parts.path[:40]}"
