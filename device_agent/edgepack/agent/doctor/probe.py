"""One MQTT client that looks at what this device may do on its broker, and leaves no trace."""

import contextlib
import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from edgepack.agent.config import BrokerAddress, BrokerConfig, read_password
from edgepack.wire.topics import DeviceTopics

_CONNECT_S = 10.0
_ECHO_S = 5.0
_RETAINED_S = 2.0  # a broker sends what it retains at once; this is for a slow line
_UNSUPPORTED_VERSION = (1, 132)


@dataclass(slots=True)
class Seen:
    """What came of it.

    Attributes:
        refused: Why the broker does not let this device in, or "".
        protocol: "MQTT 5" or "MQTT 3.1.1".
        desired: Whether the desired state came.
        info: The retained `out/info`, or None.
        echoed: Whether what was written to `out/status` came back; None when it was not tried.
        denied: Topics whose subscription the broker refused.
    """

    refused: str = ""
    protocol: str = "MQTT 5"
    desired: bool = False
    info: bytes | None = None
    echoed: bool | None = None
    denied: list[str] = field(default_factory=list)


def probe(
    config: BrokerConfig,
    address: BrokerAddress,
    topics: DeviceTopics | None,
    context: ssl.SSLContext | None,
    *,
    filters: Sequence[str] = (),
) -> Seen:
    """Log in, read, write what stands already; as the agent does, but as another client.

    Args:
        config: The broker, and who we are.
        address: Where it is.
        topics: This device's on its own broker; None on another one, where nothing is written.
        context: TLS.
        filters: What is listened to besides.

    Raises:
        ConfigError: The password file cannot be read.
        OSError: The connection broke.
    """
    password = read_password(config.password_file) if config.password_file else None
    seen = Seen()
    for version, name in ((mqtt.MQTTv5, "MQTT 5"), (mqtt.MQTTv311, "MQTT 3.1.1")):
        seen = Seen(protocol=name)
        client = _Client(config, topics, version, seen, is_socket=address.path is not None)
        if address.path is not None:
            client.paho.ws_set_options(path=address.path)
        if config.username is not None:
            client.paho.username_pw_set(config.username, password)
        if context is not None:
            client.paho.tls_set_context(context)
        with contextlib.closing(client):
            code = client.connect(address)
            if code in _UNSUPPORTED_VERSION and version == mqtt.MQTTv5:
                continue
            if code != 0 or seen.refused:
                return seen
            client.look(filters)
        return seen
    return seen


class _Client:
    def __init__(
        self,
        config: BrokerConfig,
        topics: DeviceTopics | None,
        version: MQTTProtocolVersion,
        seen: Seen,
        *,
        is_socket: bool,
    ) -> None:
        self._topics = topics
        self._seen = seen
        self._code: int | None = None
        self._status: bytes | None = None
        self._status_echoes = 0
        self._answered: dict[int, int] = {}
        self._news = threading.Condition()
        self.paho = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"edgepack-doctor-{os.urandom(4).hex()}",
            protocol=version,
            transport="websockets" if is_socket else "tcp",
        )
        self.paho.on_connect = self._connected
        self.paho.on_message = self._came
        self.paho.on_subscribe = self._subscribed
        self.paho.connect_timeout = _CONNECT_S
        self._keepalive_s = config.keepalive_s

    def connect(self, address: BrokerAddress) -> int:
        """Log in; the broker's code, 0 for yes."""
        self.paho.connect(address.host, address.port, keepalive=self._keepalive_s)
        self.paho.loop_start()
        self._wait(lambda: self._code is not None, _CONNECT_S)
        if self._code is None:
            self._seen.refused = f"no answer to CONNECT within {_CONNECT_S:.0f} s"
            return -1
        return self._code

    def look(self, filters: Sequence[str]) -> None:
        """Subscribe to what the device reads, and write what its status is already, or nothing."""
        own = self._topics
        topics = () if own is None else (own.desired, own.info, own.status)
        numbers = {}
        for topic in (*topics, *filters):
            code, number = self.paho.subscribe(topic, qos=1)
            if code == MQTTErrorCode.MQTT_ERR_SUCCESS and number is not None:
                numbers[number] = topic
        self._wait(lambda: numbers.keys() <= self._answered.keys(), _ECHO_S)
        self._seen.denied = [
            topic for number, topic in numbers.items() if self._answered.get(number, 0) >= 0x80
        ]
        if own is None:
            return
        self._wait(lambda: self._status is not None and self._seen.desired, _RETAINED_S)
        self._wait(lambda: self._status is not None, _ECHO_S)
        if own.status in self._seen.denied:
            return
        before = self._status_echoes
        # Where nothing stands it may be because nothing may be written: an empty message, which
        # the broker does not keep, tells.
        self.paho.publish(own.status, self._status or b"", qos=1)
        self._seen.echoed = self._wait(lambda: self._status_echoes > before, _ECHO_S)

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        with self._news:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._news.wait(left)
        return True

    def _connected(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Any = None) -> None:  # noqa: ANN401
        with self._news:
            self._code = int(reason.value)
            if self._code not in (0, *_UNSUPPORTED_VERSION):
                self._seen.refused = str(reason)
            self._news.notify_all()

    def _subscribed(self, _c: Any, _u: Any, number: int, reasons: Any, _p: Any = None) -> None:  # noqa: ANN401
        with self._news:
            self._answered[number] = max(int(reason.value) for reason in reasons)
            self._news.notify_all()

    def _came(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:  # noqa: ANN401
        own = self._topics
        with self._news:
            if own is None:
                return
            if message.topic == own.desired:
                self._seen.desired = bool(message.payload)
            elif message.topic == own.info and message.retain:
                self._seen.info = bytes(message.payload)
            elif message.topic == own.status:
                self._status = bytes(message.payload)
                self._status_echoes += not message.retain
            self._news.notify_all()
