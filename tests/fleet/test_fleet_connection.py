"""The way to the broker: URLs, the fallback to MQTT 3.1.1, passwords, and how failures read."""

import asyncio
import contextlib
import socket
import time

import pytest
from aiomqtt import ProtocolVersion
from hypothesis import given
from hypothesis import strategies as st
from support.agent_process import wait_until
from support.brokers import LOOPBACK, Embedded, Mosquitto, running
from support.servers import free_port

from edgepack.bench.certificates import Authority
from edgepack.fleet import BrokerError, BrokerUrl, TargetError, connect, parse_broker_url
from edgepack.fleet.retained import read_retained


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://host", BrokerUrl(host="host", port=1883)),
        ("mqtts://host", BrokerUrl(host="host", port=8883, tls=True)),
        ("mqtt://[::1]:7/", BrokerUrl(host="::1", port=7)),
        (
            "mqtt://u%40x:p%2F@h:9",
            BrokerUrl(host="h", port=9, username="u@x", password="p/"),
        ),
        (
            "mqtts://h?cafile=/ca.pem&certfile=c&keyfile=k",
            BrokerUrl(host="h", port=8883, tls=True, cafile="/ca.pem", certfile="c", keyfile="k"),
        ),
        ("ws://h", BrokerUrl(host="h", port=80, path="/mqtt")),
        ("ws://h:9001/a/b", BrokerUrl(host="h", port=9001, path="/a/b")),
        ("wss://h?cafile=c", BrokerUrl(host="h", port=443, tls=True, path="/mqtt", cafile="c")),
    ],
)
def test_broker_urls_are_taken_apart(text, expected):
    """A URL gives host, port, user, password and certificate files."""
    assert expected == parse_broker_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:1883",
        "http://u:secret@host",
        "mqtt://",
        "mqtt://u:secret@host/path",
        "mqtt://u:secret@host:port",
        "mqtt://u:secret@host?cafile=x",
        "mqtts://u:secret@host?insecure=1",
        "ws://u:secret@host?cafile=x",
    ],
)
def test_other_urls_are_refused_without_showing_a_password(text):
    """What is no broker URL is an error that does not repeat the password."""
    with pytest.raises(TargetError) as caught:
        parse_broker_url(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_the_one_error(text):
    """Whatever the text, the parser gives a URL or its documented error."""
    with contextlib.suppress(TargetError):
        assert parse_broker_url(text).host


def test_the_text_of_a_url_never_shows_the_password():
    """Neither str nor repr of a URL shows the password."""
    url = parse_broker_url("mqtt://edgepack:hunter2@host")
    assert "mqtt://edgepack@host:1883" == str(url)
    assert "wss://u@h:443/mqtt" == str(parse_broker_url("wss://u:hunter2@h"))
    assert "hunter2" not in repr(url)


def test_the_newest_protocol_that_the_broker_speaks_is_used(broker):
    """MQTT 5 with mosquitto, MQTT 3.1.1 with the embedded broker, at once and without asking."""

    async def run():
        async with connect(parse_broker_url(broker.url)) as client:
            return client._client.protocol

    start = time.monotonic()
    expected = {"mosquitto": ProtocolVersion.V5, "embedded": ProtocolVersion.V311}[broker.kind]
    assert expected == asyncio.run(run())
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("with_tls", [False, True])
def test_a_broker_behind_a_web_socket(tmp_path, with_tls):
    """Where only the web's port is open, what is retained is read all the same."""
    port = free_port()
    extra = f"allow_anonymous true\nlistener {port} {LOOPBACK}\nprotocol websockets\n"
    url = f"ws://{LOOPBACK}:{port}"
    if with_tls:
        authority = Authority(tmp_path)
        server = authority.issue("server")
        extra += f"cafile {authority.ca}\ncertfile {server.cert}\nkeyfile {server.key}\n"
        url = f"wss://{LOOPBACK}:{port}/mqtt?cafile={authority.ca}"

    async def main():
        async with connect(parse_broker_url(url)) as client:
            await client.publish("edgepack/v1/x", b"kept", qos=1, retain=True)
            return await read_retained(client, "edgepack/v1", ["edgepack/v1/x"])

    def listens():
        with socket.socket() as client:
            return client.connect_ex((LOOPBACK, port)) == 0

    with running(Mosquitto(tmp_path, extra=extra)):
        wait_until(listens, "the second listener")
        found = asyncio.run(main())
    assert {"edgepack/v1/x": b"kept"} == found


def test_a_broker_that_answers_mqtt_5_with_silence_is_asked_again_in_3_1_1(embedded_broker):
    """A broker that says nothing to MQTT 5 is reached with MQTT 3.1.1."""
    given_up = asyncio.Event()

    async def relay(reader, writer):
        """Swallow MQTT 5, pass MQTT 3.1.1 on."""
        head = await reader.readexactly(9)
        if head[8] == 5:
            await reader.read()
            writer.close()
            given_up.set()
            return
        far_reader, far_writer = await asyncio.open_connection(LOOPBACK, embedded_broker.port)
        far_writer.write(head)

        async def pump(source, sink):
            while data := await source.read(4096):
                sink.write(data)
            sink.close()
            await sink.wait_closed()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def run():
        server = await asyncio.start_server(relay, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        url = BrokerUrl(host=LOOPBACK, port=port, username="u", password="p")
        async with connect(url, timeout_s=1.0) as client:
            protocol = client._client.protocol
            await asyncio.wait_for(given_up.wait(), 2)  # the first connection was closed
        server.close()
        await asyncio.sleep(0.1)  # both ends close
        return protocol

    assert ProtocolVersion.V311 == asyncio.run(run())


def test_a_wrong_password_is_told_with_the_way_to_give_one(tmp_path):
    """Both brokers' refusals of a password are the same one line, without the password."""

    async def run(broker):
        url = parse_broker_url(f"mqtt://edgepack:wrong@{LOOPBACK}:{broker.port}")
        async with connect(url):
            pass

    nobody = "allow_anonymous false\npassword_file /dev/null"
    for broker in (Embedded(password="right"), Mosquitto(tmp_path, extra=nobody)):
        with running(broker), pytest.raises(BrokerError, match="refuses the user name") as caught:
            asyncio.run(run(broker))
        assert "wrong" not in str(caught.value)
        assert "USER:PASSWORD" in caught.value.hint


def test_nobody_listening_is_told_with_a_hint():
    """A broker that is not there is one line with its URL, and a hint."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port = listener.getsockname()[1]

    async def run():
        async with connect(BrokerUrl(host=LOOPBACK, port=port)):
            pass

    with pytest.raises(BrokerError, match=r"cannot reach .*: Connection refused") as caught:
        asyncio.run(run())
    assert "edgepack broker" in caught.value.hint
    assert 7 == caught.value.exit_code


def test_a_connection_that_breaks_is_one_line(own_broker):
    """A broker that stops in the middle of work is an error that names it."""

    async def run():
        async with connect(parse_broker_url(own_broker.url)) as client:
            await asyncio.to_thread(own_broker.stop)
            await anext(aiter(client.messages))

    with pytest.raises(BrokerError, match=f"connection to .*:{own_broker.port} broke"):
        asyncio.run(run())


def test_reading_what_is_retained_ends_by_itself(broker, prefix):
    """Reading gives all that is retained, by topic and by filter, and knows when that is all."""
    topics = [f"{prefix}/{n}/x" for n in range(150)]

    async def run():
        async with connect(parse_broker_url(broker.url)) as client:
            for topic in topics:
                await client.publish(topic, topic, qos=1, retain=True)
            await client.publish(f"{prefix}/0/x", b"", qos=1, retain=True)
            exact = await read_retained(client, prefix, [*topics, f"{prefix}/absent"])
            filtered = await read_retained(client, prefix, [f"{prefix}/+/x"])
            nothing = await read_retained(client, prefix, [f"{prefix}/none/+"])
        assert {topic: topic.encode() for topic in topics[1:]} == exact == filtered
        assert {} == nothing

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 3
