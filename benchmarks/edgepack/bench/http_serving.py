"""Open Inference Protocol over HTTP on loopback: a small model, and an image of 602 KB.

The agent is measured as users run it, as a process; the echo is a process of the same HTTP server
that gives back each body as it came. This package imports neither.
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from edgepack.bench.agent_footprint import running_agent
from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.bench.http_caller import HttpCaller, request_bytes, tensor_request, wait_for
from edgepack.bench.serve_models import DIGITS, IMAGE, IMAGE_SHAPE, write_digits, write_image
from edgepack.monitor.median import Median, median
from edgepack.trust import keygen

LARGEST_SMALL_US: Final = 300.0
LARGEST_ECHO_RATIO: Final = 1.5
LARGEST_JSON_MS: Final = 20.0

_SMALL_ROUNDS: Final = 3000
_IMAGE_ROUNDS: Final = 200
_JSON_ROUNDS: Final = 40
_WARM: Final = 50
_ECHO: Final = """
import asyncio
from edgepack.agent.serve.http.limits import HttpLimits
from edgepack.agent.serve.http.messages import OCTETS, Response
from edgepack.agent.serve.http.server import HttpServer

class Echo:
    def admit(self, head):
        return self.answer
    async def answer(self, request):
        return Response(status=200, body=(request.body,), content_type=OCTETS)

async def main():
    server = HttpServer(Echo(), HttpLimits(max_body_bytes=10**8, max_connections=64))
    print((await server.listen("127.0.0.1", 0))[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def measure() -> Figure:
    """Ask the agent and the echo in turns."""
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        folder = Path(name)
        keys = keygen(folder / "keys")
        bundles = [write_digits(folder), write_image(folder, keys.release_key)]
        with agent(folder, bundles) as (port, _), echo() as echo_port:
            small = _small(port)
            image, images_echoed, ratio = _image(port, echo_port)
            json = _image_json(port)
    return Figure(
        name="http_serving",
        title="Open Inference Protocol over HTTP",
        method=(
            "The agent as a process, one client that keeps its connection and has its requests "
            f"ready, over loopback. Small: the digits pipeline, one row of 64, {_SMALL_ROUNDS} "
            f"requests of each form in turns. Image: FP32 {list(IMAGE_SHAPE)}, 602 KB, to a model "
            f"that gives the mean of each channel, {_IMAGE_ROUNDS} requests in turns with an echo "
            "of the same body by the same HTTP server in another process; in JSON the values are "
            f"pixels by 255 with 6 digits, {_JSON_ROUNDS} requests."
        ),
        lines=(
            _line("small model, binary", small[0], "µs", LARGEST_SMALL_US),
            _line("small model, JSON", small[1], "µs"),
            _line("image, binary", image, "ms"),
            _line("echo of the same body", images_echoed, "ms"),
            _line("image, binary: by the echo", ratio, "times", LARGEST_ECHO_RATIO),
            _line("image, JSON", json, "ms", LARGEST_JSON_MS),
        ),
    )


@contextlib.contextmanager
def agent(folder: Path, bundles: list[Path]) -> Iterator[tuple[int, int]]:
    """The agent with bundles installed and HTTP on; gives the port and the process's number.

    Raises:
        BenchError: It refused a bundle, or does not get ready.
    """
    port = free_port()
    config = folder / "agent.toml"
    config.write_text(
        f'device = "bench"\nstate = "state"\nroot = "keys/root.json"\n'
        f'[http]\nlisten = "127.0.0.1:{port}"\n[probation]\nseconds = 1\n',
        encoding="utf-8",
    )
    for bundle in bundles:
        command = [sys.executable, "-m", "edgepack.agent.main", "install"]
        done = subprocess.run(
            [*command, "--config", str(config), str(bundle)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"agent must install {bundle.name}, got: {done.stderr.strip()}")
    with running_agent(config) as process:
        wait_for(port, "/v2/health/ready", lambda: process.poll() is None)
        yield port, process.pid


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """A process of the agent's HTTP server that gives back each body; gives the port."""
    command = [sys.executable, "-c", _ECHO]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def small_requests(model: str, name: str) -> tuple[bytes, bytes]:
    """A row of digits: in binary form, and in JSON."""
    row = np.arange(64, dtype=np.float32) % 17
    path = f"/v2/models/{model}/infer"
    values = row.tolist()
    return (
        tensor_request(path, name, (1, 64), values, row.tobytes()),
        tensor_request(path, name, (1, 64), values, None),
    )


def _small(port: int) -> tuple[Median, Median]:
    binary, plain = small_requests(DIGITS, "x")
    found: tuple[list[float], list[float]] = ([], [])
    with HttpCaller(port) as caller:
        for _ in range(_WARM):
            caller.ask(binary)
            caller.ask(plain)
        for _ in range(_SMALL_ROUNDS):
            found[0].append(1e6 * caller.time_s(binary))
            found[1].append(1e6 * caller.time_s(plain))
    return median(found[0]), median(found[1])


def _pixels() -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    rng = np.random.default_rng(1)
    return (rng.integers(0, 256, IMAGE_SHAPE) / 255).astype(np.float32)


def _image(port: int, echo_port: int) -> tuple[Median, Median, Median]:
    path = f"/v2/models/{IMAGE}/infer"
    asked = tensor_request(path, "x", IMAGE_SHAPE, (), _pixels().tobytes())
    body = asked.partition(b"\r\n\r\n")[2]
    echoed = request_bytes("/", body)
    pairs = []
    with HttpCaller(port) as caller, HttpCaller(echo_port) as other:
        for _ in range(_WARM):
            caller.ask(asked)
            if other.ask(echoed) != body:
                raise BenchError("echo must give the body back, got another one")
        pairs = [
            (1e3 * caller.time_s(asked), 1e3 * other.time_s(echoed)) for _ in range(_IMAGE_ROUNDS)
        ]
    return (
        median([one for one, _ in pairs]),
        median([other for _, other in pairs]),
        median([one / other for one, other in pairs]),
    )


def _image_json(port: int) -> Median:
    values = [round(float(value), 6) for value in _pixels().ravel()]
    asked = tensor_request(f"/v2/models/{IMAGE}/infer", "x", IMAGE_SHAPE, values, None)
    with HttpCaller(port) as caller:
        caller.ask(asked)
        return median([1e3 * caller.time_s(asked) for _ in range(_JSON_ROUNDS)])


def _line(what: str, found: Median, unit: str, limit: float | None = None) -> Line:
    return Line(
        what=what, value=found.value, unit=unit, low=found.low, high=found.high, limit=limit
    )
