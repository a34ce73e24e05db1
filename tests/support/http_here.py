"""The agent's HTTP server in this process: a real socket, a thread with its event loop."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.agent.config import DriftConfig
from edgepack.agent.config.http import HttpConfig
from edgepack.agent.install.slot import Installed
from edgepack.agent.serve.http.build import HttpService
from edgepack.agent.serve.http.catalog import Catalog
from edgepack.agent.serve.inference import Inference
from edgepack.agent.serve.registry import Registry
from edgepack.agent.serve.served import ServedModel
from edgepack.runtime import load
from edgepack.wire.messages import Release

DEADLINE_S = 30.0


@dataclass
class HttpHere:
    """A server and what stands behind it.

    Attributes:
        service: The server.
        registry, inference: What answers.
        expected: Names of models that are installed.
        started: Whether the agent has loaded what it had.
        notices: What a person was told.
    """

    registry: Registry
    inference: Inference
    loop: asyncio.AbstractEventLoop
    service: Any = None
    expected: set[str] = field(default_factory=set)
    started: bool = True
    notices: list[tuple[str, str]] = field(default_factory=list)

    @property
    def port(self) -> int:
        (address,) = [a for a in self.service.addresses if a.startswith("listen=")]
        return int(address.rpartition(":")[2])

    def call(self, work: Callable[[], Any]) -> Any:
        """Run something on the server's event loop; what it gives."""

        async def there() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(DEADLINE_S)

    def put(self, name: str, path: Path, *, version: str = "1.0.0") -> ServedModel:
        """Let a bundle answer."""
        release = Release(digest="sha256:" + "a" * 64, version=version, sequence=1)
        model = load(path)
        installed = Installed(release=release, variant=model.variant.name)
        served = ServedModel(installed, model)
        self.registry._served[name] = served
        self.expected.add(name)
        return served

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """One request on a connection of its own: status, parsed body, headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, data, named)
            answer = connection.getresponse()
            text = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
            is_json = found.get("content-type") == "application/json" and text
            return answer.status, json.loads(text) if is_json else text, found

    def dial(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)


@contextlib.contextmanager
def http_here(
    *, pending: int = 256, limits: dict[str, Any] | None = None, **settings: Any
) -> Iterator[HttpHere]:
    """Serve on a free port until the block ends; `settings` are those of `[http]`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="http-here", daemon=True)
    thread.start()
    registry = Registry(DriftConfig())
    inference = Inference(registry, pending=pending, drifted=lambda *_: None)
    here = HttpHere(registry=registry, inference=inference, loop=loop)
    catalog = Catalog(
        registry=registry, expected=lambda: here.expected, is_started=lambda: here.started
    )
    here.service = HttpService(
        HttpConfig(**({"listen": "127.0.0.1:0"} | settings)),
        inference,
        catalog,
        notice=lambda kind, detail: here.notices.append((kind, detail)),
        limits=limits or {},
    )
    asyncio.run_coroutine_threadsafe(here.service.open(), loop).result(DEADLINE_S)
    try:
        yield here
    finally:
        asyncio.run_coroutine_threadsafe(here.service.close(), loop).result(DEADLINE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()
        registry.close()


def read_all(door: socket.socket) -> bytes:
    """What comes until the other side ends."""
    parts = []
    while part := door.recv(65536):
        parts.append(part)
    return b"".join(parts)
