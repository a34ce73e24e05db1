"""Clearing what the broker keeps of a device.

A device may write under its `out/` only, and mostly not read there: what it once said is known from
its journal. Where the broker lets it look, whatever else stands there is cleared, too.
"""

import contextlib
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgepack.agent.config import AgentConfig, broker_address, read_password
from edgepack.agent.errors import FetchError
from edgepack.agent.install.journal import Journal
from edgepack.trust.values import dataclass
from edgepack.wire.audit import PLACES, place_of
from edgepack.wire.topics import DeviceTopics

_CONNECT_S = 10.0
_LOOK_S = 2.0  # a broker sends what it retains at once; this is for a slow line
_WRITE_S = 20.0
_UNSUPPORTED_VERSION = (1, 132)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What came of it.

    Attributes:
        topics: What was cleared; a broker that forbids it may have kept it all the same.
        left: Topics of this device that still stand, as far as this device may see.
    """

    topics: tuple[str, ...]
    left: tuple[str, ...]


def known_topics(topics: DeviceTopics, instance: str, models: Iterable[str]) -> tuple[str, ...]:
    """Every retained topic that this installation may have written, and its desired state. Pure."""
    fixed = (topics.status, topics.info, topics.reported, topics.desired)
    latest = tuple(topics.latest(name) for name in sorted(set(models)))
    places = tuple(topics.audit(place_of(instance, n)) for n in range(PLACES)) if instance else ()
    return (*fixed, *latest, *places)


def remembered_topics(config: AgentConfig, database: Path) -> tuple[str, ...]:
    """The same, from the journal; without one only what every device writes.

    Raises:
        StoreError: The journal cannot be read.
    """
    topics = DeviceTopics(config.prefix, config.device)
    if not database.exists():
        return known_topics(topics, "", ())
    with contextlib.closing(Journal(database, read_only=True)) as journal:
        instance = (journal.meta("instance") or b"").decode()
        models = {key.partition("~")[0] for key in (*journal.slots(), *journal.entered_ms())}
    return known_topics(topics, instance, models)


def clear(config: AgentConfig, known: Iterable[str]) -> Cleared:
    """Clear topics, and everything else that stands under this device's name.

    Raises:
        FetchError: The broker cannot be reached, or does not let this device in.
        ConfigError: The password file cannot be read.
    """
    topics = DeviceTopics(config.prefix, config.device)
    try:
        with _connected(config) as client:
            standing = client.look(f"{topics.base}/#", topics.desired)
            wanted = sorted({*known, *standing})
            client.write_empty(wanted)
            left = client.look(f"{topics.base}/#", topics.desired, topics.info, topics.status)
    except (OSError, ValueError) as exc:
        raise FetchError(f"broker cannot be reached: {exc}") from exc
    return Cleared(topics=tuple(wanted), left=tuple(sorted(left)))


@contextlib.contextmanager
def _connected(config: AgentConfig) -> "Iterator[_Client]":
    """Log in with MQTT 5, or 3.1.1 where the broker knows only that."""
    for version in (mqtt.MQTTv5, mqtt.MQTTv311):
        client = _Client(config, version)
        try:
            code = client.connect()
            if code in _UNSUPPORTED_VERSION and version == mqtt.MQTTv5:
                continue
            if code != 0:
                raise FetchError(f"broker does not let this device in: {client.reason}")
            yield client
            return
        finally:
            client.close()


class _Client:
    def __init__(self, config: AgentConfig, version: Any) -> None:  # noqa: ANN401 (paho's enum)
        broker = config.broker
        self.reason = "no answer"
        self._address = broker_address(broker.url or "")
        self._code: int | None = None
        self._standing: set[str] = set()
        self._subscribed: set[int] = set()
        self._news = threading.Condition()
        self._paho = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"edgepack-uninstall-{os.urandom(4).hex()}",
            protocol=version,
        )
        if broker.username is not None:
            password = read_password(broker.password_file) if broker.password_file else None
            self._paho.username_pw_set(broker.username, password)
        if self._address.tls:
            context = ssl.create_default_context(cafile=broker.ca_file)
            if broker.cert_file:
                context.load_cert_chain(broker.cert_file, broker.key_file)
            self._paho.tls_set_context(context)
        self._paho.connect_timeout = _CONNECT_S
        self._paho.on_connect = self._on_connect
        self._paho.on_message = self._on_message
        self._paho.on_subscribe = self._on_subscribe

    def connect(self) -> int:
        """Log in; the broker's code, 0 for yes."""
        self._paho.connect(self._address.host, self._address.port)
        self._paho.loop_start()
        self._wait(lambda: self._code is not None, _CONNECT_S)
        return -1 if self._code is None else self._code

    def look(self, *filters: str) -> set[str]:
        """Retained topics that come under some filters; a broker may show none of them."""
        self._standing = set()
        for topic in filters:
            _, number = self._paho.subscribe(topic, qos=1)
            self._wait(lambda number=number: number in self._subscribed, _LOOK_S)  # type: ignore[misc]
        time.sleep(_LOOK_S)  # nothing says that there is no more
        self._paho.unsubscribe(list(filters))
        with self._news:
            return set(self._standing)

    def write_empty(self, topics: Iterable[str]) -> None:
        """Clear topics; returns when the broker has acknowledged all."""
        sent = [self._paho.publish(topic, b"", qos=1, retain=True) for topic in topics]
        deadline = time.monotonic() + _WRITE_S
        for message in sent:
            message.wait_for_publish(max(0.0, deadline - time.monotonic()))
            if not message.is_published():
                raise FetchError("broker does not acknowledge what is written")

    def close(self) -> None:
        """Say goodbye."""
        self._paho.disconnect()
        self._paho.loop_stop()

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        with self._news:
            self._news.wait_for(condition, timeout_s)

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Any = None) -> None:  # noqa: ANN401
        with self._news:
            self._code, self.reason = int(reason.value), str(reason)
            self._news.notify_all()

    def _on_subscribe(self, _c: Any, _u: Any, number: int, _r: Any, _p: Any = None) -> None:  # noqa: ANN401
        with self._news:
            self._subscribed.add(number)
            self._news.notify_all()

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:  # noqa: ANN401
        with self._news:
            if message.retain and message.payload:
                self._standing.add(message.topic)
