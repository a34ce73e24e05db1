"""Every way to a broker, at a real mosquitto: TLS, certificates, passwords, WebSocket."""

import asyncio
import contextlib
import socket
import subprocess

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from support.brokers import LOOPBACK, Mosquitto, mosquitto_binary, running

from edgepack.agent.backoff import Backoff
from edgepack.agent.config import BrokerConfig
from edgepack.agent.crowding import Crowding
from edgepack.agent.link import Link
from edgepack.bench.certificates import Authority
from edgepack.wire.topics import DeviceTopics

TOPICS = DeviceTopics("edgepack/v1", "ways")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ports():
    """Free ports, all of them held until the last is known."""
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(4)]
        for one in found:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in found]


@pytest.fixture(scope="module")
def broker(tmp_path_factory, authority, ports):
    """One mosquitto with a listener for each way; the first one asks for a password."""
    mosquitto_binary()
    folder = tmp_path_factory.mktemp("broker")
    passwords = folder / "passwords"
    passwords.touch(0o600)
    subprocess.run(
        ["mosquitto_passwd", "-b", passwords, "ways", "right"], check=True, capture_output=True
    )
    server = authority.issue("server")
    tls = f"cafile {authority.ca}\ncertfile {server.cert}\nkeyfile {server.key}\n"
    extra = (
        f"allow_anonymous false\npassword_file {passwords}\n"
        f"listener {ports[0]} {LOOPBACK}\n{tls}allow_anonymous true\n"
        f"listener {ports[1]} {LOOPBACK}\n{tls}require_certificate true\n"
        "use_identity_as_username true\nallow_anonymous false\n"
        f"listener {ports[2]} {LOOPBACK}\nprotocol websockets\nallow_anonymous true\n"
        f"listener {ports[3]} {LOOPBACK}\nprotocol websockets\n{tls}allow_anonymous true\n"
    )
    made = Mosquitto(folder, extra=extra)
    text = made._config.read_text()
    made._config.write_text(f"per_listener_settings true\n{text}")
    with running(made):
        yield made


@pytest.fixture
def config_of(broker, authority, ports, tmp_path):
    """Settings for a way, by its name."""

    def make(way):
        ca = {"ca_file": str(authority.ca)}
        secret = tmp_path / "secret"
        secret.write_text("right\n")
        urls = {
            "password": broker.url,
            "tls": f"mqtts://{LOOPBACK}:{ports[0]}",
            "certificate": f"mqtts://{LOOPBACK}:{ports[1]}",
            "websocket": f"ws://{LOOPBACK}:{ports[2]}/mqtt",
            "websocket and tls": f"wss://{LOOPBACK}:{ports[3]}",
        }
        more = {} if way in ("password", "websocket") else ca
        if way == "password":
            more = {"username": "ways", "password_file": str(secret)}
        if way == "certificate":
            own = authority.issue("ways")
            more |= {"cert_file": str(own.cert), "key_file": str(own.key)}
        return BrokerConfig(url=urls[way], **more)

    return make


async def nothing():
    """Say nothing on a new connection."""


@contextlib.asynccontextmanager
async def linked(config, subscriptions=(), client_id="ways"):
    """A link that runs, and what came on it."""
    came = asyncio.Queue()
    link = Link(
        config,
        TOPICS,
        client_id,
        subscriptions=subscriptions,
        on_connect=nothing,
        on_message=came.put_nowait,
    )
    task = asyncio.create_task(link.run())
    try:
        yield link, came
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


WAYS = ["password", "tls", "certificate", "websocket", "websocket and tls"]


@pytest.mark.parametrize("way", WAYS)
def test_messages_go_both_ways(config_of, way):
    """Small and large ones, several at a time."""
    topic = f"{TOPICS.base}/echo"
    payloads = [b"small", bytes(100_000), *(b"%d" % number for number in range(50))]

    async def main():
        async with asyncio.timeout(60), linked(config_of(way), [topic]) as (link, came):
            await link.connected.wait()
            await asyncio.gather(*(link.publish(topic, payload) for payload in payloads))
            return [(await came.get()).payload for _ in payloads]

    assert payloads == asyncio.run(main())


@pytest.mark.parametrize(
    ("way", "change", "expected"),
    [
        ("password", {"password_file": None}, "Not authorized"),
        ("tls", {"ca_file": None}, "CERTIFICATE_VERIFY_FAILED"),
        ("certificate", {"cert_file": None, "key_file": None}, "broker.lost"),
    ],
)
def test_who_does_not_prove_enough_is_not_let_in(config_of, caplog, way, change, expected):
    """Neither a device without its secret nor a broker that nobody vouches for."""
    from dataclasses import replace

    async def main():
        async with linked(replace(config_of(way), **change)) as (link, _):
            async with asyncio.timeout(30):
                while "broker." not in caplog.text:
                    await asyncio.sleep(0.02)
            return link.connected.is_set()

    assert not asyncio.run(main())
    assert expected in caplog.text


def test_a_connection_that_is_cut_before_it_is_accepted_is_noticed_at_once(caplog):
    """Not after the time that a broker may take to answer."""

    async def cut(reader, writer):
        await reader.read(1)
        writer.close()

    async def main():
        server = await asyncio.start_server(cut, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        async with server, linked(BrokerConfig(url=f"mqtt://{LOOPBACK}:{port}")):
            async with asyncio.timeout(60):
                while "broker.lost" not in caplog.text:
                    await asyncio.sleep(0.01)

    asyncio.run(main())
    assert "ended before the broker accepted it" in caplog.text
    assert "timed out" not in caplog.text


class Asker:
    """Sends a request while the device is away, and tells what it has sent."""

    def __init__(self, broker):
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.connect(LOOPBACK, broker.port)
        self._client.loop_start()

    def ask(self, payload, expiry_s=None):
        properties = Properties(PacketTypes.PUBLISH)
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        sent = self._client.publish(TOPICS.infer("m"), payload, qos=1, properties=properties)
        sent.wait_for_publish(20)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def plain(mosquitto):
    asker = Asker(mosquitto)
    yield mosquitto, asker
    asker.close()


def sent_while_away(plain, *, protocol=None, **config):
    """Connect, go away, have three requests sent, come back; what came, and when it expires."""
    broker, asker = plain
    settings = BrokerConfig(url=broker.url, **config)

    async def main():
        client_id = f"away-{id(plain)}"
        link = Link(
            settings,
            TOPICS,
            client_id,
            subscriptions=[TOPICS.infer("+")],
            on_connect=nothing,
            on_message=came.append,
        )
        if protocol is not None:
            link._protocol = protocol
        for number in range(2):
            task = asyncio.create_task(link.run())
            async with asyncio.timeout(30):
                await link.connected.wait()
                if number:
                    await link.publish(TOPICS.infer("m"), b"last")
                    while not came or came[-1].payload != b"last":
                        await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not number:
                await asyncio.to_thread(asker.ask, b"one")
                await asyncio.to_thread(asker.ask, b"two", 1000)
        return [message.payload for message in came]

    came = []
    return asyncio.run(main()), came


@pytest.mark.parametrize("protocol", ["V5", "V311"])
def test_what_is_sent_while_a_device_is_briefly_away_arrives(plain, protocol):
    """The broker keeps the session, in both versions of MQTT."""
    import aiomqtt

    payloads, came = sent_while_away(plain, protocol=getattr(aiomqtt.ProtocolVersion, protocol))
    assert [b"one", b"two", b"last"] == payloads
    assert not any(message.is_expired or message.retained for message in came)
    if protocol == "V5":
        assert [True, False, True] == [message.deadline_s is None for message in came]


def test_a_device_that_wants_no_session_hears_only_what_is_new(plain):
    """`session_s = 0` is as if it had never been there."""
    assert [b"last"] == sent_while_away(plain, session_s=0)[0]


@pytest.mark.parametrize("protocol", ["V5", "V311"])
def test_what_is_older_than_the_session_is_forgotten(plain, protocol, monkeypatch):
    """A device that was away for too long answers nothing that nobody waits for any more."""
    import aiomqtt

    from edgepack.agent import link as link_module

    class Clock:
        """Each look is a day later."""

        now_s = 0.0

        @classmethod
        def monotonic(cls):
            cls.now_s += 86_400.0
            return cls.now_s

    monkeypatch.setattr(link_module, "time", Clock)
    payloads, _ = sent_while_away(plain, protocol=getattr(aiomqtt.ProtocolVersion, protocol))
    assert [b"last"] == payloads


def test_delays_grow_to_a_bound_and_are_spread_over_the_whole():
    """Full jitter: from nothing up to a delay that doubles."""
    largest = Backoff(0.5, 60.0, share=lambda: 1.0)
    assert [0.5, 1, 2, 4, 8, 16, 32, 60, 60] == [largest.next_s() for _ in range(9)]
    largest.reset()
    assert [2.0, 4.0] == [largest.next_s(at_least_s=2.0), largest.next_s()]
    spread = Backoff(1.0, 60.0, share=iter([0.0, 0.25, 0.5]).__next__)
    assert [0.0, 0.5, 2.0] == [spread.next_s() for _ in range(3)]


def test_three_short_sessions_in_a_row_are_a_crowd():
    """One long one in between is not."""
    crowding = Crowding()
    lasted_s = [1, 1, 100, 1, 1, 1, 1]
    assert [False] * 5 + [True, False] == [crowding.ended(one) for one in lasted_s]
