"""One connection to the broker: TCP, TLS or WebSocket, MQTT 5 or 3.1.1.

Made anew for every connection; `edgepack.agent.link` decides when.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Self, TypeVar

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgepack.agent.backlog import MAX_MESSAGES, Backlog
from edgepack.agent.config import BrokerConfig, broker_address, read_password
from edgepack.agent.errors import ConfigError
from edgepack.wire.topics import OFFLINE

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CONNECT_TIMEOUT_S = 10.0
_MAX_PACKET_BYTES = 256 * 1024
_CALLS_AT_ONCE = 1000
# Waiting to fill a packet costs 40 ms each time; docs/mqtt.md says how to tell mosquitto the same.
_AT_ONCE = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class BrokerClient(aiomqtt.Client):
    """aiomqtt's client; what waits for the broker's word ends together with the connection."""

    _has_complained = False  # of what the broker does not take

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            aiomqtt.MqttError: It cannot be reached, refuses, or went away.
        """
        for ended in (self._connected, self._disconnected):
            ended.add_done_callback(_look_at)
        try:
            await super().__aenter__()
        except aiomqtt.MqttError:
            self._client.disconnect()  # aiomqtt leaves the socket open when no CONNACK came
            raise
        self._disconnected.add_done_callback(_look_at)
        # paho's wrapper of a WebSocket passes no options on
        raw = getattr(self._client.socket(), "_socket", None)
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(*_AT_ONCE)
        self.pending_calls_threshold = _CALLS_AT_ONCE  # else it complains of a window
        return self

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        """As aiomqtt's, which waits for its whole time though the connection is lost.

        Raises:
            aiomqtt.MqttError: The connection was lost, or the time is up.
        """
        lost = self._disconnected
        waiting = asyncio.ensure_future(fut)
        if waiting is lost:
            return await super()._wait_for(fut, timeout)
        try:
            either: set[asyncio.Future[Any]] = {waiting, lost}
            await asyncio.wait(
                either,
                timeout=self.timeout if timeout is None else timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if waiting.done():
                return waiting.result()
            why = "connection was lost" if lost.done() else "broker did not answer in time"
            raise aiomqtt.MqttError(why)
        finally:
            if waiting is not self._connected:  # else paho could not set it any more
                waiting.cancel()

    def _on_disconnect(
        self,
        client: Any,  # noqa: ANN401  (paho's)
        userdata: Any,  # noqa: ANN401
        flags: Any,  # noqa: ANN401
        reason_code: Any,  # noqa: ANN401
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():
            lost = aiomqtt.MqttError("connection ended before the broker accepted it")
            self._connected.set_exception(lost)
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self,
        client: Any,  # noqa: ANN401  (paho's)
        userdata: Any,  # noqa: ANN401
        mid: int,
        reason_code: Any,  # noqa: ANN401
        properties: Any,  # noqa: ANN401
    ) -> None:
        if reason_code.is_failure and not self._has_complained:
            self._has_complained = True
            # What is published does not arrive; the doctor tries the access rules.
            logger.warning("broker.refused error=%s", reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)


def _look_at(ended: "asyncio.Future[None]") -> None:
    """Else asyncio complains that nobody did."""
    if not ended.cancelled():
        ended.exception()


def make_client(
    config: BrokerConfig,
    client_id: str,
    protocol: aiomqtt.ProtocolVersion,
    *,
    status_topic: str | None,
    session_s: int,
    forget: bool,
) -> BrokerClient:
    """A client that is not connected yet.

    Args:
        config: Where the broker is, and who we are.
        client_id: MQTT client id.
        protocol: Version.
        status_topic: Where the last will goes, or None.
        session_s: How long the broker keeps subscriptions and messages after the connection, in
            seconds; MQTT 3.1.1 only knows 0 and for ever.
        forget: Whether it is to forget what it kept until now.

    Raises:
        ConfigError, OSError: A file of the configuration cannot be read.
    """
    address = broker_address(config.url or "")
    is_v5 = protocol is aiomqtt.ProtocolVersion.V5
    return BrokerClient(
        address.host,
        address.port,
        transport="websockets" if address.path is not None else "tcp",
        websocket_path=address.path,
        identifier=client_id,
        username=config.username,
        password=read_password(config.password_file) if config.password_file else None,
        protocol=protocol,
        keepalive=config.keepalive_s,
        timeout=_CONNECT_TIMEOUT_S,
        will=None
        if status_topic is None
        else aiomqtt.Will(status_topic, OFFLINE, qos=1, retain=True),
        tls_context=_tls(config) if address.tls else None,
        queue_type=Backlog,
        max_queued_incoming_messages=MAX_MESSAGES,
        socket_options=[_AT_ONCE],
        clean_session=None if is_v5 else (forget or not session_s),
        clean_start=(forget or not session_s) if is_v5 else MQTT_CLEAN_START_FIRST_ONLY,
        properties=_connect_properties(session_s) if is_v5 else None,
    )


def _connect_properties(session_s: int) -> Properties:
    """MQTT 5 lets a client bound what a broker may send it, and how long it keeps what for it."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = _MAX_PACKET_BYTES
    if session_s:
        properties.SessionExpiryInterval = session_s
    return properties


def _tls(config: BrokerConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.ca_file)
    if config.cert_file:
        context.load_cert_chain(config.cert_file, config.key_file)
    return context


def check_files(config: BrokerConfig) -> None:
    """Fail at the start for what can only be a mistake in agent.toml.

    Raises:
        ConfigError: A named file cannot be read.
    """
    if config.password_file:
        read_password(config.password_file)
    for name, path in (
        ("ca_file", config.ca_file),
        ("cert_file", config.cert_file),
        ("key_file", config.key_file),
    ):
        if path is None:
            continue
        try:
            with Path(path).open("rb"):
                pass
        except OSError as exc:
            raise ConfigError(f"broker.{name} {path} cannot be read: {exc.strerror}") from exc
