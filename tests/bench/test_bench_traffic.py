"""The relay that counts IP packets, and the soak's list of what was heard."""

import contextlib
import json
import socket
import threading
from types import SimpleNamespace

import pytest
from support.agent_process import wait_until

from edgepack.bench.agent_soak import Listener
from edgepack.bench.counting_relay import Counted, relay


@pytest.fixture
def echo():
    """A server on loopback that gives back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                with one:
                    while data := one.recv(65_536):
                        one.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def exchange(one, size_bytes):
    """Send so much and read it again; whether it all came."""
    with contextlib.suppress(OSError):
        one.sendall(bytes(size_bytes))
        left = size_bytes
        while left and (data := one.recv(left)):
            left -= len(data)
        return not left
    return False


def test_the_relay_counts_bytes_and_packets_both_ways(echo):
    """Every byte above TCP, every segment, and 52 bytes of headers for each."""
    with relay(echo) as line:
        with socket.create_connection(("127.0.0.1", line.port)) as one:
            assert exchange(one, 10_000)
            wait_until(lambda: line.counted().payload_bytes == 20_000, "everything is acknowledged")
            counted = line.counted()
            assert 1 == counted.connections
            # at most 1,448 bytes in one: seven each way at least
            assert 14 <= counted.packets < 100
            assert 20_000 + 52 * (counted.packets + 1) + 16 == counted.ip_bytes
        with socket.create_connection(("127.0.0.1", line.port)) as one:
            assert exchange(one, 1)
            # the first one has ended: its FINs may be counted
            wait_until(lambda: line.counted().payload_bytes >= 20_002, "the second one as well")
            assert (2, True) == (line.counted().connections, line.counted().payload_bytes <= 20_004)
    assert Counted(packets=1, payload_bytes=2) == Counted(packets=3, payload_bytes=5) - Counted(
        packets=2, payload_bytes=3
    )


def test_a_line_that_is_down_takes_nobody(echo):
    """It ends those that there are, and new ones at once."""
    with relay(echo) as line:
        address = ("127.0.0.1", line.port)
        with socket.create_connection(address) as one:
            assert exchange(one, 1)
            line.refuses = True
            line.cut()
            assert not exchange(one, 1)
        with socket.create_connection(address) as one:
            assert not exchange(one, 1)
        line.refuses = False
        with socket.create_connection(address) as one:
            assert exchange(one, 1)


def test_what_is_missing_among_numbered_reports_is_known(mosquitto):
    """Gaps in the agent's count, not in that of the command that installed."""
    listener = Listener(mosquitto.port)
    listener.client.disconnect()
    listener.client.loop_stop()
    for name in ("aa-1", "bb-2", "bb-3", "bb-6", "bb-6"):
        payload = json.dumps({"message_id": name, "outbox_dropped": 1}).encode()
        listener._take(None, None, SimpleNamespace(payload=payload))
    listener._take(None, None, SimpleNamespace(payload=b"online"))
    listener._take(None, None, SimpleNamespace(payload=b'{"request_id": "r"}'))
    assert ({2, 3, 6}, 2, 1, 1, 1) == (
        listener.numbers,
        listener.missing,
        listener.repeated,
        listener.dropped,
        listener.answers,
    )
