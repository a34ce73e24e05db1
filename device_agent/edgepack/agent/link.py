"""The connection to the broker: kept up for years, MQTT 5 with 3.1.1 as fallback.

Knows nothing of models. What arrives goes to one handler, which must not block; what has to be
said on every new connection comes from one callable.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgepack.agent.backoff import FIRST_S, LONGEST_S, Backoff
from edgepack.agent.broker_client import make_client
from edgepack.agent.config import BrokerConfig
from edgepack.agent.crowding import Crowding
from edgepack.agent.errors import ConfigError, FetchError
from edgepack.trust.values import dataclass
from edgepack.wire.topics import OFFLINE, DeviceTopics

logger = logging.getLogger(__name__)

_GOODBYE_S = 2.0
_UNSUPPORTED_VERSION = (1, 132)  # CONNACK of MQTT 3.1.1, and of MQTT 5
_CROWDED_DELAY_S = 2.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that arrived.

    Attributes:
        topic: Its topic.
        payload: Its bytes.
        retained: True when the broker kept it from before this subscription.
        response_topic: Where the sender wants the answer (MQTT 5), or None.
        correlation: What to send back with the answer (MQTT 5), or None.
        deadline_s: When the sender no longer wants it (MQTT 5), in monotonic seconds, or None.
    """

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None
    correlation: bytes | None
    deadline_s: float | None = None

    @property
    def is_expired(self) -> bool:
        """Whether the sender no longer wants it."""
        return self.deadline_s is not None and time.monotonic() > self.deadline_s


class Link:
    """One MQTT connection that comes back.

    Args:
        config: Where the broker is.
        topics: This device's topics; the last will goes to `topics.status`. None: no last will.
        client_id: MQTT client id.
        subscriptions: Topic filters, QoS 1.
        live: Topic filters of what is worth nothing later, QoS 0: no session keeps it.
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
        live: Iterable[str] = (),
        on_connect: Callable[[], Awaitable[None]],
        on_message: Callable[[Incoming], None],
    ) -> None:
        self._config = config
        self._topics = topics
        self._client_id = self._own_client_id = client_id
        self._subscriptions = [(topic, 1) for topic in subscriptions]
        self._subscriptions += [(topic, 0) for topic in live]
        self._on_connect = on_connect
        self._on_message = on_message
        self._crowding = Crowding()
        self._session_began_s = 0.0
        self._lost_s: float | None = None
        self._left: set[str] = set()
        self._client: aiomqtt.Client | None = None
        self._protocol = aiomqtt.ProtocolVersion.V5
        self._wanted: dict[str, asyncio.Future[bytes]] = {}
        self.connected = asyncio.Event()
        self.reconnects = 0

    async def run(self) -> None:
        """Stay connected until cancelled; then say goodbye."""
        backoff = Backoff()
        while True:
            at_least_s = 0.0
            try:
                await self._session()
                backoff.reset()
            except aiomqtt.MqttError as exc:
                _stop_if_cancelled()  # aiomqtt's goodbye failed
                if self._falls_back(exc):
                    continue
                if self.connected.is_set():
                    backoff.reset()
                if self._is_crowded_out():
                    at_least_s = _CROWDED_DELAY_S
                logger.warning("broker.lost error=%s", exc)
            # a certificate or password file that is missing now may be there later
            except (OSError, ConfigError) as exc:
                logger.warning("broker.unusable error=%s", exc)
            finally:
                self._disconnected()
            delay_s = backoff.next_s(at_least_s)
            logger.debug("broker.waiting retry_in_s=%.1f", delay_s)
            await asyncio.sleep(delay_s)

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
            await client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
            _stop_if_cancelled()
        except (aiomqtt.MqttError, ValueError) as exc:
            raise FetchError(f"broker did not take a message: {exc}") from exc

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
                # QoS 0: else the broker kept what was under way for the next connection, and sent
                # it beside what is asked for again
                await client.subscribe([(topic, 0) for topic in own])
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
                await self._leave(client, list(own))
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
        await self._leave(self._client, [topic])
        _stop_if_cancelled()

    async def _leave(self, client: aiomqtt.Client | None, topics: list[str]) -> None:
        """Unsubscribe; if this connection is lost, on the next, whose session remembers them."""
        self._left.update(topics)
        if client is None or client is not self._client:
            return
        with contextlib.suppress(aiomqtt.MqttError):
            await client.unsubscribe(topics, timeout=_GOODBYE_S)
            self._left.difference_update(topics)

    def _make_client(self, *, forget: bool) -> aiomqtt.Client:
        return make_client(
            self._config,
            self._client_id,
            self._protocol,
            status_topic=self._topics.status if self._topics is not None else None,
            session_s=self._session_s,
            forget=forget,
        )

    @property
    def _session_s(self) -> int:
        """Another broker's sensors are of now: what they said in between is not waited for."""
        return self._config.session_s if self._topics is not None else 0

    async def _client_of_a_session(self) -> aiomqtt.Client:
        """A client that takes up the session where it ended, if that was not too long ago.

        MQTT 3.1.1 has no expiry: there the broker is told to forget what is older, which ends a
        session for good, and needs a connection of its own.
        """
        away_s = None if self._lost_s is None else time.monotonic() - self._lost_s
        is_v5 = self._protocol is aiomqtt.ProtocolVersion.V5
        # after a start only a broker that speaks MQTT 5 knows how long it was
        too_long = not is_v5 if away_s is None else away_s > self._session_s
        if too_long and self._session_s and not is_v5:
            async with self._make_client(forget=True):
                pass
        return self._make_client(forget=too_long and is_v5)

    async def _session(self) -> None:
        async with await self._client_of_a_session() as client:
            self._client = client
            self._session_began_s = time.monotonic()
            await client.subscribe(self._subscriptions)
            stale = self._left - {topic for topic, _ in self._subscriptions}
            self._left.clear()
            if stale:
                await client.unsubscribe(sorted(stale))
            _stop_if_cancelled()
            # requests are answered while the device still says what it is
            greeting = asyncio.create_task(self._greet())
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

    async def _greet(self) -> None:
        delay_s = FIRST_S
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
            delay_s = min(2 * delay_s, LONGEST_S)
        self.connected.set()
        logger.info("broker.connected url=%s protocol=%s", self._config.url, self._protocol.name)

    def _dispatch(self, message: aiomqtt.Message) -> None:
        topic = message.topic.value
        payload = message.payload if isinstance(message.payload, bytes) else b""
        waiting = self._wanted.get(topic)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(payload)
            return
        properties = message.properties
        expires_s = getattr(properties, "MessageExpiryInterval", None)
        self._on_message(
            Incoming(
                topic,
                payload,
                bool(message.retain),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                None if expires_s is None else time.monotonic() + expires_s,
            )
        )

    def _will(self) -> aiomqtt.Will | None:
        if self._topics is None:
            return None
        return aiomqtt.Will(self._topics.status, OFFLINE, qos=1, retain=True)

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
        """Whether another client probably has this one's id; then this one takes another."""
        if not self.connected.is_set():
            return False
        if not self._crowding.ended(time.monotonic() - self._session_began_s):
            return False
        self._client_id = f"{self._own_client_id}-{os.urandom(4).hex()}"
        logger.warning("broker.crowded client_id=%s", self._client_id)
        return True

    def _disconnected(self) -> None:
        if self.connected.is_set():
            self.reconnects += 1
        if self._client is not None:
            self._lost_s = time.monotonic()
        self.connected.clear()
        self._client = None
        for future in self._wanted.values():
            if not future.done():
                future.set_exception(aiomqtt.MqttError("disconnected"))


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
