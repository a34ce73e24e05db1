"""amqtt's broker with what a first try on real devices stumbles over mended.

Each override says what amqtt 0.12.1 does without it. They reach into private methods, so the
dependency is pinned to 0.12 and tests/fleet runs every one of them.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from typing import Any

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from edgepack.fleet.broker.connect_packet import (
    LEVEL_311,
    REFUSED_CREDENTIALS,
    REFUSED_PROTOCOL,
    Connect,
    MalformedConnectError,
    connack,
    read_connect,
)

LISTENER = "edgepack"
_CONNECT_TIMEOUT_S = 10.0
_END_TIMEOUT_S = 5.0
_log = logging.getLogger(__name__)

Authenticate = Callable[[str | None, bytes | None], bool]


def anonymous(_username: str | None, _password: bytes | None) -> bool:
    """Let everybody in."""
    return True


def with_password(username: str, password: str) -> Authenticate:
    """Let in who knows the password; only its hash is kept.

    A fast hash is enough: the password is 128 random bits, not a word to be guessed.
    """
    expected = hashlib.sha256(password.encode()).digest()

    def authenticate(given_name: str | None, given: bytes | None) -> bool:
        digest = hashlib.sha256(given or b"").digest()
        return hmac.compare_digest(digest, expected) and given_name == username

    return authenticate


class ReplayReader(ReaderAdapter):  # type: ignore[misc]  # amqtt has no types
    """Gives the CONNECT packet again, then the connection, and notes when it last spoke."""

    def __init__(
        self, connect: Connect, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._head = connect.packet
        self._reader = reader
        self._writer = writer
        self._silence_s = connect.keepalive_s * 1.5
        self._last = time.monotonic()

    async def read(self, n: int = -1) -> bytes:
        """Read exactly `n` bytes."""
        if self._head:
            taken, self._head = self._head[:n], self._head[n:]
            return taken
        data = await self._reader.readexactly(n)
        self._last = time.monotonic()
        return data

    def feed_eof(self) -> None:
        """Tell the reader that nothing more comes."""
        self._reader.feed_eof()

    def abort(self) -> None:
        """End the connection now; whoever reads from it sees the end.

        amqtt cancels its reading task instead and waits for it, for ever when data arrives in the
        same moment: Python 3.11's `wait_for` then forgets the cancellation.
        """
        self._writer.transport.abort()

    async def end_when_silent(self) -> None:
        """End the connection of a client that lets one and a half keepalives pass.

        amqtt notices and does nothing, so a device whose plug was pulled would stay "online".
        """
        while self._silence_s:
            left_s = self._last + self._silence_s - time.monotonic()
            if left_s <= 0:
                self.abort()
                return
            await asyncio.sleep(left_s)


class Server(Broker):  # type: ignore[misc]  # amqtt has no types
    """An MQTT 3.1.1 broker on one TCP listener."""

    def __init__(self, host: str, port: int, authenticate: Authenticate) -> None:
        bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        config = {"listeners": {"default": {"bind": None}, LISTENER: {"bind": bind}}, "plugins": {}}
        super().__init__(config)
        self._let_in = authenticate
        self._serving: dict[str, tuple[Session, asyncio.Event]] = {}
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    @property
    def port(self) -> int:
        """The port it listens on."""
        sockets = self._servers[LISTENER].instance.sockets
        number: int = sockets[0].getsockname()[1]
        return number

    async def shutdown(self) -> None:
        """Close everything, connections that never sent a CONNECT too."""
        self._servers[LISTENER].instance.close()
        for writer in self._connections:
            writer.transport.abort()
        tasks = [task for task in self._connections.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_END_TIMEOUT_S)
        await super().shutdown()

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Look at the CONNECT packet first, then hand over.

        amqtt parses an MQTT 5 CONNECT as one of 3.1.1 and, when it carries a user name, waits for
        bytes that never come: the client sees a timeout instead of a refusal. It also throws the
        old session of a client id out before it looks at the password of the new one.
        """
        self._connections[writer] = asyncio.current_task()
        try:
            connect = await asyncio.wait_for(read_connect(reader), _CONNECT_TIMEOUT_S)
            refusal = self._refusal(connect)
            if refusal is None:
                replay = ReplayReader(connect, reader, writer)
                await self._serve(listener_name, replay, writer)
            else:
                writer.write(connack(refusal))
                await writer.drain()
        except (MalformedConnectError, TimeoutError, OSError, asyncio.IncompleteReadError) as exc:
            _log.debug("broker.connection_dropped reason=%s", exc)
        finally:
            del self._connections[writer]
            writer.close()

    async def _serve(
        self, listener_name: str, reader: ReplayReader, writer: asyncio.StreamWriter
    ) -> None:
        watchdog = asyncio.create_task(reader.end_when_silent())
        try:
            await self._client_connected(listener_name, reader, StreamWriterAdapter(writer))
        finally:
            watchdog.cancel()

    def _refusal(self, connect: Connect) -> int | None:
        if (connect.protocol, connect.level) != ("MQTT", LEVEL_311):
            return REFUSED_PROTOCOL
        if not self._let_in(connect.username, connect.password):
            return REFUSED_CREDENTIALS
        return None

    async def _authenticate(self, session: Session, _: object) -> bool:
        session.is_anonymous = session.username is None
        return True  # decided in stream_connected

    async def _client_message_loop(self, session: Session, handler: BrokerProtocolHandler) -> None:
        """Note who is being served, and forget a session as soon as it ends.

        amqtt's monitor forgets them once a second, and may by then hit a client that is back.
        """
        ended = asyncio.Event()
        client_id = session.client_id
        self._serving[client_id] = (session, ended)
        try:
            await super()._client_message_loop(session, handler)
        finally:
            ended.set()
            if self._serving.get(client_id, (None,))[0] is session:
                del self._serving[client_id]
            known, _ = self._sessions.get(client_id, (None, None))
            if known is session and (session.clean_session or session.is_anonymous):
                await self._cleanup_session(client_id)

    async def _session_monitor(self) -> None:
        """Nothing: sessions are forgotten where they end."""

    async def _delete_session(self, client_id: str) -> None:
        """End the old connection of a client id before the new one is answered.

        amqtt forgets the old one without closing it; when it dies later, its will overwrites the
        "online" of the new one.
        """
        session, ended = self._serving.get(client_id, (None, None))
        _, handler = self._sessions.get(client_id, (None, None))
        if session is not None and ended is not None and handler is not None:
            handler.reader.abort()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _END_TIMEOUT_S)
        await super()._delete_session(client_id)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Send retained messages for a SUBSCRIBE only, and find them without a search.

        amqtt also does so at every CONNECT, for the filters of ALL clients: a new client receives
        what it never asked for, and dies with a RuntimeError when somebody subscribes meanwhile.
        """
        topic_filter, qos = subscription
        handler = self._get_handler(session)
        if session.client_id not in self._serving or handler is None:
            return
        for message in self._retained_for(topic_filter):
            lower = min(qos, message.qos or 0)
            sending = handler.mqtt_publish(message.topic, message.data, lower, retain=True)
            # Not awaited: a client that does not acknowledge must not block its own next packets.
            self._tasks_queue.append(asyncio.ensure_future(sending))

    def _retained_for(self, topic_filter: str) -> list[Any]:
        if "+" in topic_filter or "#" in topic_filter:
            messages = self._retained_messages.items()
            return [kept for topic, kept in messages if self._matches(topic, topic_filter)]
        kept = self._retained_messages.get(topic_filter)
        return [] if kept is None else [kept]
