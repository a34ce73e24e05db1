"""What an agent at default settings costs on a mobile contract, counted at IP level.

Two agents at one mosquitto with TLS, each behind a relay that counts: one that nobody asks
anything, one that answers a request over HTTP on its own loopback every minute. Time is compressed:
every interval of the default settings and the keepalive is divided by one number, and what is
counted over the window multiplied accordingly. What comes once a connection is counted apart.
"""

import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgepack.bench import agent_footprint as footprint
from edgepack.bench.certificates import Authority
from edgepack.bench.counting_relay import Counted, CountingRelay, relay
from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.wire.commands import WATCH, render_watch
from edgepack.wire.topics import DEFAULT_PREFIX, DeviceTopics

LARGEST_MONTH_MB: Final = 5.0

_COMPRESSION: Final = 30
_WINDOW_S: Final = 240.0  # two hours
_SETTLE_S: Final = 10.0
_WATCHED_S: Final = 20.0
_OFFLINE_S: Final = 120.0  # an hour
_MONTH_S: Final = 30 * 86_400
_CONNECTIONS: Final = 30  # one a day
_METRICS_S, _SLOW_S, _KEEPALIVE_S, _ASKED_S, _FLUSH_S = 900, 3600, 240, 60, 60


def measure() -> Figure:
    """Count over some minutes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgepack-bench-")))
        footprint.prepare(folder, formats=("onnx",))
        authority = Authority(folder)
        tls_port, plain_port = stack.enter_context(_broker(folder, authority))
        idle = stack.enter_context(relay(tls_port))
        used = stack.enter_context(relay(tls_port))
        http_port = _free_port()
        process = stack.enter_context(_agent(folder, authority, "idle", idle.port))
        stack.enter_context(_agent(folder, authority, "used", used.port, http_port))
        _await_models(plain_port, ("idle", "used"))
        time.sleep(_SETTLE_S)
        before = idle.counted()
        idle.cut()
        time.sleep(_SETTLE_S)
        opening, written = idle.counted() - before, _written_bytes(process.pid)
        quiet, busy = _window(idle, used, http_port)
        online = (_written_bytes(process.pid) - written) / _WINDOW_S
        watched = _watched(idle, plain_port)
        idle.refuses = True
        idle.cut()
        time.sleep(_SETTLE_S)
        written = _written_bytes(process.pid)
        time.sleep(_OFFLINE_S)
        offline = (_written_bytes(process.pid) - written) / _OFFLINE_S
    return _figure(opening, quiet, busy, watched, (online, offline))


def _written_bytes(pid: int) -> int:
    """What the kernel was told to write to the disk for a process (proc(5), write_bytes)."""
    text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    return int(text.partition("\nwrite_bytes:")[2].split()[0])


def _window(idle: CountingRelay, used: CountingRelay, http_port: int) -> tuple[Counted, Counted]:
    before = idle.counted(), used.counted()
    ends_s = time.monotonic() + _WINDOW_S
    while time.monotonic() < ends_s:
        _ask(http_port)
        time.sleep(_ASKED_S / _COMPRESSION)
    return idle.counted() - before[0], used.counted() - before[1]


def _watched(idle: CountingRelay, port: int) -> Counted:
    """While somebody looks, as `edgepack watch` asks for it."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    topic = DeviceTopics(DEFAULT_PREFIX, "idle").command(WATCH)
    client.publish(topic, render_watch(seconds=2 * _WATCHED_S, interval_s=2.0)).wait_for_publish(9)
    before = idle.counted()
    time.sleep(_WATCHED_S)
    after = idle.counted()
    client.disconnect()
    client.loop_stop()
    return after - before


def _figure(
    opening: Counted,
    quiet: Counted,
    busy: Counted,
    watched: Counted,
    written_bytes_s: tuple[float, float],
) -> Figure:
    times = _MONTH_S / (_WINDOW_S * _COMPRESSION)
    connections = _CONNECTIONS * opening.ip_bytes

    def month(counted: Counted) -> float:
        return (counted.ip_bytes * times + connections) / 1e6

    return Figure(
        name="agent_traffic",
        title="What an agent at default settings costs a month, at IP level",
        method=(
            "Two agents with one small model at a mosquitto with TLS 1.3, each through a relay on "
            "loopback whose kernel counts segments and bytes (TCP_INFO; 52 bytes of IPv4 and TCP "
            "headers a segment, 1,448 bytes at most in one). Both directions, keepalive, "
            "acknowledgements and TLS are in it; Ethernet or radio headers and retransmissions "
            f"are not. Time is compressed {_COMPRESSION} times: metrics every {_METRICS_S} s if "
            f"changed, everything every {_SLOW_S} s, keepalive {_KEEPALIVE_S} s, all divided by "
            f"that; {_WINDOW_S / 60:.0f} minutes stand for "
            f"{_WINDOW_S * _COMPRESSION / 3600:.0f} hours. A month is 30 days with one new "
            "connection each, whose cost (TLS handshake, session, what is retained) is counted "
            "apart. The one in use is asked once a minute over HTTP on its own loopback and "
            "always answers the same. Flash writes: write_bytes of the idle agent's /proc/PID/io, "
            "state folder on a disk."
        ),
        lines=(
            _line("a month, nobody asks anything", month(quiet), "MB", LARGEST_MONTH_MB),
            _line("a month, one answer a minute", month(busy), "MB", LARGEST_MONTH_MB),
            _line("of it new connections, one a day", connections / 1e6, "MB"),
            _line("one new connection and what is said on it", opening.ip_bytes / 1e3, "kB"),
            _line("packets an hour, nobody asks anything", _hourly(quiet.packets), "packets"),
            _line("packets an hour, one answer a minute", _hourly(busy.packets), "packets"),
            _line(
                "a minute while somebody watches (figures every 2 s)",
                watched.ip_bytes / 1e3 * 60 / _WATCHED_S,
                "kB",
            ),
            _line("flash writes a day, online", _daily_mb(written_bytes_s[0]), "MB"),
            _line("flash writes a day, without a broker", _daily_mb(written_bytes_s[1]), "MB"),
        ),
    )


def _daily_mb(bytes_s: float) -> float:
    return bytes_s / _COMPRESSION * 86_400 / 1e6


def _hourly(number: int) -> float:
    return number * 3600 / (_WINDOW_S * _COMPRESSION)


def _line(what: str, value: float, unit: str, limit: float | None = None) -> Line:
    return Line(what=what, value=value, unit=unit, limit=limit)


@contextmanager
def _broker(folder: Path, authority: Authority) -> Iterator[tuple[int, int]]:
    """A mosquitto with TLS for the agents, and without for whoever looks."""
    server = authority.issue("server")
    for path in (server.cert, server.key, authority.ca):
        path.chmod(0o644)
    tls_port = _free_port()
    tls = (
        f"listener {tls_port} 127.0.0.1\ncafile {authority.ca}\n"
        f"certfile {server.cert}\nkeyfile {server.key}\n"
    )
    folder.chmod(0o755)
    with footprint.broker(folder, extra=tls) as plain_port:
        yield tls_port, plain_port


@contextmanager
def _agent(
    folder: Path, authority: Authority, device: str, port: int, http_port: int | None = None
) -> Iterator["subprocess.Popen[str]"]:
    own = folder / device
    own.mkdir()
    config = own / "agent.toml"
    config.write_text(
        f'device = "{device}"\nstate = "state"\nroot = "{folder}/keys/root.json"\n'
        f'[broker]\nurl = "mqtts://127.0.0.1:{port}"\nca_file = "{authority.ca}"\n'
        f"keepalive_s = {_KEEPALIVE_S // _COMPRESSION}\n"
        f"[metrics]\ninterval_s = {_METRICS_S / _COMPRESSION}\n"
        f"slow_s = {_SLOW_S / _COMPRESSION}\n[probation]\nseconds = 1\n"
        f"[outbox]\nflush_s = {_FLUSH_S / _COMPRESSION}\n"
        + (f'[http]\nlisten = "127.0.0.1:{http_port}"\n' if http_port else ""),
        encoding="utf-8",
    )
    footprint.install(config, folder)
    with footprint.running_agent(config) as process:
        yield process


def _await_models(port: int, devices: tuple[str, ...]) -> None:
    """Wait until every model is confirmed."""
    confirmed: set[str] = set()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)

    def take(_: object, __: object, message: mqtt.MQTTMessage) -> None:
        models = json.loads(message.payload)["models"]
        if any(model["phase"] == "confirmed" for model in models):
            confirmed.add(message.topic.split("/")[-3])

    client.on_message = take
    client.connect("127.0.0.1", port)
    for device in devices:
        client.subscribe(DeviceTopics(DEFAULT_PREFIX, device).reported, 1)
    client.loop_start()
    _until(lambda: confirmed >= set(devices), "models must be confirmed")
    client.disconnect()
    client.loop_stop()


def _ask(port: int) -> None:
    body = {
        "inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}],
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/digits/infer", data=json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        answer.read()


def _until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise BenchError(f"{what} within {timeout_s:.0f} s, got nothing")
        with suppress(OSError):
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
