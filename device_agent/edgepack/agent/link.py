"""The connection to the broker: kept up for years, MQTT 5 with 3.1.1 as fallback.

Knows nothing of models. What arrives goes to one handler, which must not block; what has to be
said on every new connection comes from one callable.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgepack.agent.backlog import MAX_MESSAGES, Backlog
from edgepack.agent.config import BrokerConfig, broker_address, read_password
from edgepack.agent.errors import ConfigError, FetchError
from edgepack.wire.topics import OFFLINE, DeviceTopics

logger = logging.getLogger(__name__)

_FIRST_DELAY_S = 0.25
_LONGEST_DELAY_S = 60.0
_CONNECT_TIMEOUT_S = 10.0
_GOODBYE_S = 2.0
_UNSUPPORTED_VERSION = (1, 132)  # CONNACK of MQTT 3.1.1, and of MQTT 5
_SHORT_SESSION_S = 60.0
_SHORT_SESSIONS = 3  # in a row; a broker that is restarted ends one
_CROWDED_DELAY_S = 2.0
_CALLS_AT_ONCE = 1000
_MAX_PACKET_BYTES = 256 * 1024
# Waiting to fill a packet costs 40 ms each time; docs/mqtt.md says how to tell mosquitto the same.
_AT_ONCE = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that arrived.

    Attributes:
        topic: Its topic.
        payload: Its bytes.
        retained: True when the broker kept it from before this subscription.
        response_topic: Where the sender wants the answer (MQTT 5), or None.
        correlation: What to send back with the answer (MQTT 5), or None.
    """

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None
    correlation: bytes | None


class Link:
    """One MQTT connection that comes back.

    Args:
        config: Where the broker is.
        topics: This device's topics; the last will goes to `topics.status`. None: no last will.
        client_id: MQTT client id.
        subscriptions: Topic filters, QoS 1.
        on_connect: Run after subscribing, on every connection, while messages come already.
        on_message: Called for every message that no `retained` call waits for.
    """

    def __init__(
        self,
        config: BrokerConfig,
        topics: DeviceTopics | None,
        client_id: str,
        *,
        subscriptions: Iterable[str],
        on_connect: Callable[[], Awaitable[None]],
        on_message: Callable[[Incoming], None],
    ) -> None:
        self._config = config
        self._topics = topics
        self._client_id = self._own_client_id = client_id
        self._subscriptions = [(topic, 1) for topic in subscriptions]
        self._on_connect = on_connect
        self._on_message = on_message
        self._short_sessions = 0
        self._session_began_s = 0.0
        self._client: aiomqtt.Client | None = None
        self._protocol = aiomqtt.ProtocolVersion.V5
        self._wanted: dict[str, asyncio.Future[bytes]] = {}
        self._waiting: set[asyncio.Timeout] = set()
        self.connected = asyncio.Event()
        self.reconnects = 0

    async def run(self) -> None:
        """Stay connected until cancelled; then say goodbye."""
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                await self._session()
                delay_s = _FIRST_DELAY_S
            except aiomqtt.MqttError as exc:
                _stop_if_cancelled()  # aiomqtt's goodbye failed
                if self._falls_back(exc):
                    continue
                if self._is_crowded_out():
                    delay_s = max(delay_s, _CROWDED_DELAY_S)
                elif self.connected.is_set():
                    delay_s = _FIRST_DELAY_S
                logger.warning("broker.lost error=%s retry_in_s=%.1f", exc, delay_s)
            # a certificate or password file that is missing now may be there later
            except (OSError, ConfigError) as exc:
                logger.warning("broker.unusable error=%s retry_in_s=%.1f", exc, delay_s)
            finally:
                self._disconnected()
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes | None = None,
    ) -> None:
        """Publish; for QoS 1 return when the broker has it.

        Raises:
            FetchError: There is no connection, or it broke.
        """
        client = self._client
        if client is None:
            raise FetchError("broker is not connected")
        properties = None
        if correlation is not None and self._protocol is aiomqtt.ProtocolVersion.V5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        try:
            async with self._while_connected():
                await client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
            _stop_if_cancelled()
        except (aiomqtt.MqttError, ValueError, TimeoutError) as exc:
            raise FetchError(f"broker did not take a message: {exc}") from exc

    @contextlib.asynccontextmanager
    async def _while_connected(self) -> AsyncIterator[None]:
        """Ends what waits for the broker's word together with the connection.

        Raises:
            TimeoutError: It was lost; aiomqtt would wait for the rest of its time.
        """
        async with asyncio.timeout(None) as waiting:
            self._waiting.add(waiting)
            try:
                yield
            finally:
                self._waiting.discard(waiting)

    async def retained(self, topics: list[str], *, timeout_s: float) -> dict[str, bytes]:
        """Those retained messages of some topics that come.

        Args:
            topics: Which.
            timeout_s: How long to wait for the next one, in seconds.

        Returns:
            Payloads by topic; not all where one did not come in time or the connection broke.

        Raises:
            FetchError: The connection broke before one came.
        """
        client = self._client
        if client is None:
            raise FetchError("broker is not connected")
        loop = asyncio.get_running_loop()
        # two bundles that share a blob may be fetched at once: they wait for the same message
        own = {topic: loop.create_future() for topic in topics if topic not in self._wanted}
        self._wanted.update(own)
        futures = {topic: self._wanted[topic] for topic in topics}
        try:
            if own:
                await client.subscribe([(topic, 1) for topic in own])
                _stop_if_cancelled()
            waiting: set[asyncio.Future[bytes]] = set(futures.values())
            while waiting:
                came, waiting = await asyncio.wait(
                    waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not came or any(_failure(future) for future in came):
                    break
            return _came(futures)
        except aiomqtt.MqttError as exc:
            raise FetchError(f"broker was lost: {exc}") from exc
        finally:
            for topic, future in own.items():
                self._wanted.pop(topic, None)
                if not future.cancel() and not future.cancelled():
                    future.exception()  # looked at: asyncio need not complain
            if own:
                with contextlib.suppress(aiomqtt.MqttError):
                    await client.unsubscribe(list(own), timeout=_GOODBYE_S)
            _stop_if_cancelled()

    async def follow(self, topic: str) -> None:
        """Listen to one more topic, now and on every later connection."""
        if (topic, 1) not in self._subscriptions:
            self._subscriptions.append((topic, 1))
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):  # then the next connection does it
                await self._client.subscribe(topic, qos=1)
            _stop_if_cancelled()

    async def unfollow(self, topic: str) -> None:
        """Stop listening to a topic of `follow`."""
        self._subscriptions = [pair for pair in self._subscriptions if pair[0] != topic]
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.unsubscribe(topic)
            _stop_if_cancelled()

    async def _session(self) -> None:
        address = broker_address(self._config.url or "")
        password_file = self._config.password_file
        async with aiomqtt.Client(
            address.host,
            address.port,
            identifier=self._client_id,
            username=self._config.username,
            password=read_password(password_file) if password_file else None,
            protocol=self._protocol,
            keepalive=self._config.keepalive_s,
            timeout=_CONNECT_TIMEOUT_S,
            will=self._will(),
            tls_context=self._tls() if address.tls else None,
            queue_type=Backlog,
            max_queued_incoming_messages=MAX_MESSAGES,
            socket_options=_AT_ONCE,
            properties=self._connect_properties(),
        ) as client:
            client.pending_calls_threshold = _CALLS_AT_ONCE  # else it complains
            self._client = client
            self._session_began_s = time.monotonic()
            await client.subscribe(self._subscriptions)
            _stop_if_cancelled()
            # requests are answered while the device still says what it is
            greeting = asyncio.create_task(self._greet(address.host))
            try:
                async for message in client.messages:
                    self._dispatch(message)
            except asyncio.CancelledError:
                client.timeout = _GOODBYE_S
                with contextlib.suppress(aiomqtt.MqttError):
                    if self._topics is not None:
                        await client.publish(self._topics.status, OFFLINE, qos=1, retain=True)
                raise
            finally:
                greeting.cancel()

    async def _greet(self, host: str) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                await self._on_connect()
            except FetchError as exc:  # a broker that is slow; if it is gone, the session ends
                logger.warning("broker.greeting_lost error=%s", exc)
            except Exception:  # else nobody would ever hear of it
                logger.exception("broker.greeting_defect")
            else:
                break
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
        self.connected.set()
        logger.info("broker.connected host=%s protocol=%s", host, self._protocol.name)

    def _dispatch(self, message: aiomqtt.Message) -> None:
        topic = message.topic.value
        payload = message.payload if isinstance(message.payload, bytes) else b""
        waiting = self._wanted.get(topic)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(payload)
            return
        properties = message.properties
        self._on_message(
            Incoming(
                topic,
                payload,
                bool(message.retain),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
            )
        )

    def _will(self) -> aiomqtt.Will | None:
        if self._topics is None:
            return None
        return aiomqtt.Will(self._topics.status, OFFLINE, qos=1, retain=True)

    def _connect_properties(self) -> Properties | None:
        """MQTT 5 lets a client bound what a broker may send it."""
        if self._protocol is not aiomqtt.ProtocolVersion.V5:
            return None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = _MAX_PACKET_BYTES
        return properties

    def _falls_back(self, exc: aiomqtt.MqttError) -> bool:
        """Whether the broker refused MQTT 5; then 3.1.1 is tried at once, and kept."""
        if self._protocol is not aiomqtt.ProtocolVersion.V5:
            return False
        code = getattr(exc, "rc", None)
        value = getattr(code, "value", code)
        if not isinstance(exc, aiomqtt.MqttCodeError) or value not in _UNSUPPORTED_VERSION:
            return False
        logger.info("broker.fallback protocol=MQTT 3.1.1 reason=%s", exc)
        self._protocol = aiomqtt.ProtocolVersion.V311
        return True

    def _is_crowded_out(self) -> bool:
        """Whether another client probably has this one's id: then both would fight without end.

        A broker ends the older of two connections with one id. (MQTT 5 would say so, but paho loses
        the reason of a short DISCONNECT.) After some sessions that ended soon, this agent has
        a client id of its own; a mistake does no harm. Who the other one is, its
        `out/info` tells.
        """
        if not self.connected.is_set():
            return False
        short = time.monotonic() - self._session_began_s < _SHORT_SESSION_S
        self._short_sessions = self._short_sessions + 1 if short else 0
        if self._short_sessions < _SHORT_SESSIONS:
            return False
        self._short_sessions = 0
        self._client_id = f"{self._own_client_id}-{os.urandom(4).hex()}"
        logger.warning("broker.crowded client_id=%s", self._client_id)
        return True

    def _disconnected(self) -> None:
        if self.connected.is_set():
            self.reconnects += 1
        self.connected.clear()
        self._client = None
        for waiting in self._waiting:
            waiting.reschedule(0.0)
        self._waiting.clear()
        for future in self._wanted.values():
            if not future.done():
                future.set_exception(aiomqtt.MqttError("disconnected"))

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._config.ca_file)
        if self._config.cert_file:
            context.load_cert_chain(self._config.cert_file, self._config.key_file)
        return context


def _failure(future: "asyncio.Future[bytes]") -> BaseException | None:
    """Why a message did not come, of a future that is done."""
    return asyncio.CancelledError() if future.cancelled() else future.exception()


def _came(futures: dict[str, "asyncio.Future[bytes]"]) -> dict[str, bytes]:
    done = {topic: future for topic, future in futures.items() if future.done()}
    came = {topic: future.result() for topic, future in done.items() if not _failure(future)}
    broken = [failure for future in done.values() if (failure := _failure(future)) is not None]
    if broken and not came:
        raise FetchError(f"broker was lost: {broken[0] or 'another fetch ended'}")
    return came


def _stop_if_cancelled() -> None:
    """Go on with a cancellation that was swallowed; called after each call of aiomqtt.

    It uses `asyncio.wait_for`, which until Python 3.12 forgets a cancellation that comes together
    with the broker's answer.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


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
