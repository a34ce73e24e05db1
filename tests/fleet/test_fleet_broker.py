"""The embedded broker: what amqtt alone gets wrong, and what a first try needs."""

import asyncio
import logging
import os
import socket
import struct
import time

import aiomqtt
import pytest
from aiomqtt import ProtocolVersion, Will
from support.brokers import LOOPBACK, Embedded, running

from edgepack.fleet.broker import BrokerOptions, EmbeddedBroker, is_loopback
from edgepack.fleet.broker.connect_packet import MalformedConnectError, parse_connect
from edgepack.fleet.errors import BrokerError, TargetError

CHUNK_BYTES = 64 * 1024


def client(broker, **kwargs):
    return aiomqtt.Client(LOOPBACK, broker.port, timeout=5, **kwargs)


async def received(mqtt, *, count, timeout_s=5.0):
    messages = []
    async with asyncio.timeout(timeout_s):
        while len(messages) < count:
            messages.append(await anext(aiter(mqtt.messages)))
    return messages


async def silent(mqtt, seconds=0.3):
    try:
        async with asyncio.timeout(seconds):
            message = await anext(aiter(mqtt.messages))
    except TimeoutError:
        return True
    pytest.fail(f"got {message.topic}")


@pytest.mark.parametrize(
    "options",
    [{}, {"username": "u", "password": "p"}, {"will": Will("a/b", b"x")}],
    ids=["bare", "user", "will"],
)
def test_mqtt_5_is_refused_at_once_whatever_the_connect_packet_carries(embedded_broker, options):
    """A client that speaks MQTT 5 is told so instead of being left to time out."""

    async def run():
        with pytest.raises(aiomqtt.MqttCodeError) as caught:
            async with client(embedded_broker, protocol=ProtocolVersion.V5, **options):
                pass
        assert 132 == caught.value.rc.value

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 2


def test_a_new_client_gets_nothing_that_it_did_not_ask_for(embedded_broker, prefix):
    """Retained messages of other clients' subscriptions do not reach a client that connects."""

    async def run():
        async with client(embedded_broker) as other:
            await other.publish(f"{prefix}/a", b"kept", qos=1, retain=True)
            await other.subscribe(f"{prefix}/#", qos=1)
            async with client(embedded_broker) as new:
                await silent(new)

    asyncio.run(run())


def test_clients_may_connect_while_others_subscribe_to_what_is_retained(embedded_broker, prefix):
    """Connecting and subscribing at the same time breaks no connection."""

    async def come_and_go(number):
        for _ in range(5):
            async with client(embedded_broker) as mqtt:
                await mqtt.subscribe([(f"{prefix}/{n}/{number}", 1) for n in range(8)])
                await received(mqtt, count=8)

    async def run():
        async with client(embedded_broker) as mqtt:
            for n in range(8):
                for number in range(6):
                    await mqtt.publish(f"{prefix}/{n}/{number}", b"x" * 4096, qos=1, retain=True)
        await asyncio.gather(*(come_and_go(number) for number in range(6)))

    asyncio.run(run())


def test_two_megabytes_of_retained_chunks_go_in_and_out(embedded_broker, prefix):
    """Retained 64 KB chunks come back whole, by exact topic and by filter."""
    chunks = {f"{prefix}/blob/{n}": os.urandom(CHUNK_BYTES) for n in range(32)}

    async def run():
        async with client(embedded_broker) as mqtt:
            for topic, data in chunks.items():
                await mqtt.publish(topic, data, qos=1, retain=True)
        async with client(embedded_broker) as mqtt:
            await mqtt.subscribe([(topic, 1) for topic in chunks])
            exact = {m.topic.value: m.payload for m in await received(mqtt, count=32)}
        async with client(embedded_broker) as mqtt:
            await mqtt.subscribe(f"{prefix}/blob/+", qos=1)
            filtered = {m.topic.value: m.payload for m in await received(mqtt, count=32)}
        assert chunks == exact == filtered

    asyncio.run(run())


def test_an_empty_retained_message_clears_the_topic(embedded_broker, prefix):
    """After an empty retained message there is nothing retained."""

    async def run():
        async with client(embedded_broker) as mqtt:
            await mqtt.publish(f"{prefix}/a", b"kept", qos=1, retain=True)
            await mqtt.publish(f"{prefix}/a", b"", qos=1, retain=True)
            await mqtt.subscribe(f"{prefix}/a", qos=1)
            await silent(mqtt)

    asyncio.run(run())


def test_the_last_will_is_sent_when_a_connection_breaks(embedded_broker, prefix):
    """A client whose connection breaks leaves its will, retained."""

    async def run():
        will = Will(f"{prefix}/status", b"offline", qos=1, retain=True)
        async with client(embedded_broker) as watcher:
            await watcher.subscribe(f"{prefix}/status", qos=1)
            dying = client(embedded_broker, will=will)
            await dying.__aenter__()
            dying._client.socket().shutdown(socket.SHUT_RDWR)
            assert b"offline" == (await received(watcher, count=1))[0].payload

    asyncio.run(run())


def test_a_second_connection_of_a_client_id_ends_the_first_before_it_is_answered(
    embedded_broker, prefix
):
    """The will of the connection that is taken over comes before what the new one says."""

    async def run():
        status = f"{prefix}/status"
        will = Will(status, b"offline", qos=1, retain=True)
        async with client(embedded_broker) as watcher:
            await watcher.subscribe(status, qos=1)
            first = client(embedded_broker, identifier=f"id-{prefix}", will=will)
            await first.__aenter__()
            await first.publish(status, b"online", qos=1, retain=True)
            async with client(embedded_broker, identifier=f"id-{prefix}", will=will) as second:
                await second.publish(status, b"online", qos=1, retain=True)
                payloads = [m.payload for m in await received(watcher, count=3)]
                assert [b"online", b"offline", b"online"] == payloads
                with pytest.raises(aiomqtt.MqttError):
                    await anext(aiter(first.messages))

    asyncio.run(run())


def test_a_client_that_falls_silent_is_dropped_after_one_and_a_half_keepalives(
    embedded_broker, prefix
):
    """A device whose plug was pulled leaves its will, though its connection never closed."""

    async def run():
        async with client(embedded_broker) as watcher:
            await watcher.subscribe(f"{prefix}/status", qos=1)
            reader, writer = await asyncio.open_connection(LOOPBACK, embedded_broker.port)
            writer.write(connect_packet(will_topic=f"{prefix}/status", keepalive_s=1))
            assert b"\x20\x02\x00\x00" == await reader.readexactly(4)
            start = time.monotonic()
            message = (await received(watcher, count=1))[0]
            assert b"gone" == message.payload
            assert 1.0 < time.monotonic() - start < 3.0
            writer.close()

    asyncio.run(run())


def test_a_retained_will_does_not_hold_up_a_client_that_does_not_acknowledge(
    embedded_broker, prefix
):
    """A client that never acknowledges what it is sent can still publish."""

    async def run():
        async with client(embedded_broker) as mqtt:
            await mqtt.publish(f"{prefix}/a", b"kept", qos=1, retain=True)
            await mqtt.subscribe(f"{prefix}/b", qos=0)
            reader, writer = await asyncio.open_connection(LOOPBACK, embedded_broker.port)
            writer.write(connect_packet(will_topic="x", keepalive_s=60))
            await reader.readexactly(4)
            topic = f"{prefix}/a".encode()
            body = b"\x00\x01" + struct.pack("!H", len(topic)) + topic + b"\x01"
            writer.write(bytes([0x82, len(body)]) + body)  # SUBSCRIBE, QoS 1
            await asyncio.sleep(0.1)
            topic = f"{prefix}/b".encode()
            body = struct.pack("!H", len(topic)) + topic + b"hello"
            writer.write(bytes([0x30, len(body)]) + body)  # PUBLISH, QoS 0
            assert b"hello" == (await received(mqtt, count=1, timeout_s=2))[0].payload
            writer.close()

    asyncio.run(run())


def test_a_password_lets_in_who_knows_it():
    """With a password, neither anonymous clients nor a wrong one get in, and sessions survive."""

    async def run(broker):
        async with client(broker, username="edgepack", password="secret", identifier="a") as good:
            for wrong in ({}, {"username": "edgepack", "password": "x"}, {"username": "edgepack"}):
                with pytest.raises(aiomqtt.MqttCodeError) as caught:
                    async with client(broker, identifier="a", **wrong):
                        pass
                assert 134 == caught.value.rc.value
            await good.subscribe("t", qos=1)
            await good.publish("t", b"still here", qos=1)
            assert b"still here" == (await received(good, count=1))[0].payload

    with running(Embedded(password="secret")) as broker:
        asyncio.run(run(broker))


def test_anonymous_clients_are_let_in_on_loopback_only():
    """A broker on another address without a password is refused before it listens."""
    with pytest.raises(TargetError, match="must have a password, got none"):
        EmbeddedBroker(BrokerOptions(host="0.0.0.0"))
    assert [True, True, True, False, False] == [
        is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.0.2.1")
    ]


def test_a_taken_port_is_one_line(embedded_broker, caplog):
    """A port that is in use is an error that names it."""

    async def run():
        with pytest.raises(BrokerError, match=f"port {embedded_broker.port}: .*in use"):
            async with EmbeddedBroker(BrokerOptions(port=embedded_broker.port)):
                pass

    caplog.set_level(logging.CRITICAL, logger="amqtt")
    asyncio.run(run())


def test_it_stops_with_clients_and_half_open_connections():
    """Stopping ends every connection, of clients and of those that never said anything."""

    async def run():
        async with EmbeddedBroker(BrokerOptions(port=0)) as broker:
            mqtt = client(broker)
            await mqtt.__aenter__()
            reader, writer = await asyncio.open_connection(LOOPBACK, broker.port)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            assert b"" == await reader.read()
            with pytest.raises(aiomqtt.MqttError):
                await anext(aiter(mqtt.messages))
        writer.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "packet",
    [
        b"\x30\x02ab",
        b"\x10\xff\xff\xff\xff\x01",
        b"\x10\xff\xff\xff\x7f",
        b"\x10\x04\x00\x04MQ",
        b"\x10\x06\x00\x04\xff\xff\xff\xff",
    ],
    ids=["publish", "length of five bytes", "huge", "short", "not UTF-8"],
)
def test_what_is_no_connect_packet_ends_the_connection(embedded_broker, packet):
    """Anything else than CONNECT first ends the connection without an answer."""
    with socket.create_connection((LOOPBACK, embedded_broker.port), timeout=5) as connection:
        connection.sendall(packet)
        connection.shutdown(socket.SHUT_WR)
        assert b"" == connection.recv(100)


def test_every_cut_of_a_connect_packet_is_refused():
    """Parsing a CONNECT that ends early raises its one error."""
    packet = connect_packet(will_topic="a/b", keepalive_s=7, username="u", password=b"p")
    head, body = packet[:2], packet[2:]
    whole = parse_connect(head, body)
    assert ("u", b"p", 7, "raw") == (
        whole.username,
        whole.password,
        whole.keepalive_s,
        whole.client_id,
    )
    for end in range(len(body)):
        with pytest.raises(MalformedConnectError):
            parse_connect(head, body[:end])


def connect_packet(*, will_topic, keepalive_s, username=None, password=None):
    def text(value):
        return struct.pack("!H", len(value)) + value

    flags = 0x02 | 0x04 | (0x80 if username else 0) | (0x40 if password else 0)
    body = text(b"MQTT") + bytes([4, flags]) + struct.pack("!H", keepalive_s) + text(b"raw")
    body += text(will_topic.encode()) + text(b"gone")
    body += text(username.encode()) if username else b""
    body += text(password) if password else b""
    return bytes([0x10, len(body)]) + body
