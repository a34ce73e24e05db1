"""Real brokers for tests: a mosquitto process, and our embedded broker in a thread."""

import asyncio
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 10.0


class Mosquitto:
    """A mosquitto on a loopback port; it keeps nothing over a stop.

    Args:
        folder: For its configuration and log.
        port: 0 takes a free one, which a restart keeps.
        extra: More lines of configuration.
    """

    kind = "mosquitto"

    def __init__(self, folder: Path, port: int = 0, extra: str = "allow_anonymous true") -> None:
        self.port = port or _free_port()
        self.log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        # Started by root, mosquitto becomes another user, who cannot read what tests write.
        user = f"user {getpass.getuser()}"
        self._config.write_text(f"listener {self.port} {LOOPBACK}\n{user}\n{extra}\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        binary = mosquitto_binary()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([binary, "-c", str(self._config)], stderr=log)
        _wait_for_port(self.port, self._process)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


class Embedded:
    """Our broker in a thread of this process."""

    kind = "embedded"

    def __init__(self, port: int = 0, password: str | None = None) -> None:
        self.port = port
        self._password = password
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(START_TIMEOUT_S), "the embedded broker did not start"

    def stop(self) -> None:
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            assert not self._thread.is_alive(), "the embedded broker did not stop"
            self._thread = None

    async def _serve(self, ready: threading.Event) -> None:
        from edgepack.fleet.broker import BrokerOptions, EmbeddedBroker  # not for every test run

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        options = BrokerOptions(port=self.port, password=self._password)
        async with EmbeddedBroker(options) as broker:
            self.port = broker.port
            ready.set()
            await self._stop.wait()


AnyBroker = Mosquitto | Embedded


@contextmanager
def running(broker: AnyBroker) -> Iterator[AnyBroker]:
    """Start a broker and stop it in any case."""
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A mosquitto that all tests share; take `prefix` to be alone in it."""
    with running(Mosquitto(tmp_path_factory.mktemp("mosquitto"))) as broker:
        yield broker


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Embedded]:
    """An embedded broker that all tests share; take `prefix` to be alone in it."""
    with running(Embedded()) as broker:
        yield broker


@pytest.fixture(params=["embedded", "mosquitto"])
def broker(request: pytest.FixtureRequest) -> AnyBroker:
    """Each of the two brokers in turn."""
    fixture = {"embedded": "embedded_broker", "mosquitto": "mosquitto"}[request.param]
    return request.getfixturevalue(fixture)


@pytest.fixture(params=["embedded", "mosquitto"])
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyBroker]:
    """Each of the two brokers in turn, fresh and for one test only, so that it may be restarted."""
    with running(Embedded() if request.param == "embedded" else Mosquitto(tmp_path)) as broker:
        yield broker


@pytest.fixture
def prefix() -> str:
    """A topic prefix of this test's own."""
    return f"edgepack/t{secrets.token_hex(4)}"


def mosquitto_binary() -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    binary = shutil.which("mosquitto", path=path)
    if binary is None and os.environ.get("EDGEPACK_WITHOUT_MOSQUITTO"):
        pytest.skip("mosquitto is not installed, and could not be (see `make mosquitto`)")
    if binary is None:
        pytest.fail("mosquitto is not installed: apt-get install mosquitto", pytrace=False)
    return binary


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"mosquitto ended with {process.returncode}"
        with socket.socket() as client:
            if client.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"mosquitto does not answer on port {port}")
