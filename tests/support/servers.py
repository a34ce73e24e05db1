"""Servers for bundles: a real nginx, Debian's registry, and one that lies as it is told to."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 20.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


class Nginx:
    """A real nginx on a loopback port that serves a folder.

    Args:
        folder: For its configuration and log; what it serves is `folder/www`.
        location: More directives for every file.
        tls: Certificate and key, for https.
    """

    def __init__(
        self, folder: Path, location: str = "", tls: tuple[Path, Path] | None = None
    ) -> None:
        self.port = free_port()
        self.www = folder / "www"
        self.www.mkdir(exist_ok=True)
        self.log = folder / "access.log"
        secure = f"ssl_certificate {tls[0]};\nssl_certificate_key {tls[1]};" if tls else ""
        self.url = f"{'https' if tls else 'http'}://{LOOPBACK}:{self.port}"
        self._config = folder / "nginx.conf"
        self._config.write_text(
            f"daemon off; master_process off;\n"
            f"pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
            "events { worker_connections 64; }\n"
            "http {\n"
            + "".join(
                f"{kind}_temp_path {folder}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + "log_format sent '$request_method $uri $status $bytes_sent \"$http_range\"';\n"
            f"access_log {self.log} sent;\n"
            f"server {{ listen {LOOPBACK}:{self.port} {'ssl' if tls else ''}; {secure}\n"
            f"location / {{ root {self.www}; {location} }} }} }}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Nginx":
        binary = _binary("nginx")
        self._process = subprocess.Popen(
            [binary, "-c", str(self._config), "-p", str(self.www.parent)],
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self.port, self._process)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def requests(self) -> list[tuple[str, int, int]]:
        """Method and path, status and bytes of every answer, heads included."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(f"{one[0]} {one[1]}", int(one[2]), int(one[3])) for one in lines]

    def sent_bytes(self) -> int:
        return sum(sent for _, _, sent in self.requests())


class DebianRegistry:
    """Debian's docker-registry on a loopback port.

    Args:
        folder: For its configuration and data.
        auth: The `auth` section of its configuration, or "".
    """

    # password "s3cret" of user "press", by bcrypt
    HTPASSWD = "press:$2b$05$/cRr5hNCygEcP8KuSZrUwelyjjjbSDu3KPJ6kUgOvUEQRqTUu9XCy\n"

    def __init__(self, folder: Path, *, auth: str = "") -> None:
        self.port = free_port()
        self.host = f"{LOOPBACK}:{self.port}"
        self.log = folder / "registry.log"
        self._config = folder / "registry.yml"
        self._config.write_text(
            f"version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: false\n"
            f"storage:\n  filesystem:\n    rootdirectory: {folder}/registry\n"
            f"  delete:\n    enabled: true\nhttp:\n  addr: {self.host}\n{auth}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "DebianRegistry":
        binary = _binary("docker-registry")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "serve", str(self._config)],
                stdout=log,
                stderr=log,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )
        wait_for_port(self.port, self._process)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Answering:
    """An HTTP server whose answers a function writes, byte by byte if it likes.

    Args:
        answer: Gets the request, the raw connection and the number of the request.
    """

    def __init__(self, answer: Callable[[Asked, socket.socket, int], None]) -> None:
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers.items()), body)
                outer.asked.append(asked)
                self.close_connection = True
                try:
                    answer(asked, self.connection, len(outer.asked) - 1)
                except OSError:
                    """The client went away, as clients of bad servers do."""

            do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = handle_any

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://{LOOPBACK}:{self.port}"

    def __enter__(self) -> "Answering":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def head(status: str, *lines: str) -> bytes:
    """The head of an answer."""
    return ("\r\n".join([f"HTTP/1.1 {status}", *lines]) + "\r\n\r\n").encode()


@contextmanager
def running(server: Nginx | DebianRegistry) -> Iterator[Nginx | DebianRegistry]:
    """Start a server and stop it in any case."""
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """A real nginx of this test's own, which serves `nginx.www`."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    with running(Nginx(folder)) as server:
        yield server


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DebianRegistry]:
    """A registry of this test's own."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running(DebianRegistry(folder)) as server:
        yield server


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        with socket.socket() as client:
            if client.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"{process.args} does not answer on port {port}")


def _binary(name: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    binary = shutil.which(name, path=path)
    if binary is None and os.environ.get("EDGEPACK_WITHOUT_SERVERS"):
        pytest.skip(f"{name} is not installed, and could not be (see `make servers`)")
    if binary is None:
        pytest.fail(f"{name} is not installed: apt-get install {name}", pytrace=False)
    return binary
