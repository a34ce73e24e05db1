"""The agent and MLServer with the same model, one after the other on the same machine.

MLServer gets an environment of its own, made here by pip, as does the agent for its install size.
Both are asked in JSON, which MLServer speaks out of the box; MLServer runs without worker
processes, which is its smallest form.
"""

import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.bench.http_caller import HttpCaller, throughput, wait_for
from edgepack.bench.http_serving import agent, free_port, small_requests
from edgepack.bench.serve_models import DIGITS, write_digits
from edgepack.monitor.median import Median, median
from edgepack.trust import keygen

_MLSERVER: Final = ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "scikit-learn==1.9.1")
_REQUESTS: Final = 1000
_WARM: Final = 50
_SECONDS: Final = 4.0
_ROUNDS: Final = 5
_MANY: Final = 32


@dataclass(slots=True)
class _Served:
    """What was measured of one server: latencies in ms, answers a second, resident bytes."""

    latency_ms: list[float] = field(default_factory=list)
    one: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    memory_bytes: int = 0


def measure() -> Figure:
    """Make the environments, then measure both in turns."""
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        folder = Path(name)
        keygen(folder / "keys")
        bundle = write_digits(folder)
        repository = Path(__file__).resolve().parents[3]
        ours_bytes = _install(folder / "ours", [f"{repository}[agent-onnx]"])
        theirs_bytes = _install(folder / "theirs", list(_MLSERVER))
        with agent(folder, [bundle]) as ours, _mlserver(folder) as theirs:
            one, other = _measure_both(ours, theirs)
    return Figure(
        name="http_beside_mlserver",
        title="Serving over HTTP, beside MLServer",
        method=(
            "The digits pipeline (scikit-learn) as a bundle in the agent and as joblib file in "
            f"{' with '.join(_MLSERVER[:2])} (parallel_workers 0), both running, asked in turns "
            "over loopback with the same JSON of one row, connections kept. Latency: "
            f"{_ROUNDS} times {_REQUESTS} requests of one client. Throughput: {_ROUNDS} times "
            f"{_SECONDS:.0f} s of 1 and of {_MANY} clients that ask again when they are answered, "
            "all in one process. Memory: resident set in the end. Install size: what pip adds to "
            "an empty environment, for the agent edgepack[agent-onnx]."
        ),
        lines=(
            *_lines("agent", one, ours_bytes),
            *_lines("MLServer", other, theirs_bytes),
        ),
    )


def _measure_both(ours: tuple[int, int], theirs: tuple[int, int]) -> tuple[_Served, _Served]:
    """Measure in turns; each is a port and a process's number."""
    request = small_requests(DIGITS, "x")[1]
    one, other = _Served(), _Served()
    for port, _ in (ours, theirs):
        with HttpCaller(port) as caller:
            for _ in range(_WARM):
                caller.ask(request)
    for _ in range(_ROUNDS):
        for (port, _), served in ((ours, one), (theirs, other)):
            with HttpCaller(port) as caller:
                served.latency_ms += [1e3 * caller.time_s(request) for _ in range(_REQUESTS)]
            served.one.append(throughput(port, request, clients=1, seconds=_SECONDS))
            served.many.append(throughput(port, request, clients=_MANY, seconds=_SECONDS))
    for (_, pid), served in ((ours, one), (theirs, other)):
        served.memory_bytes = _resident_bytes(pid)
    return one, other


@contextmanager
def _mlserver(folder: Path) -> Iterator[tuple[int, int]]:
    """MLServer with the digits; gives its port and its process's number."""
    served = folder / "mlserver"
    served.mkdir()
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
    }
    model = {
        "name": DIGITS,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(folder / "digits.joblib"), "version": "v1"},
    }
    (served / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (served / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    command = [str(folder / "theirs" / "bin" / "mlserver"), "start", str(served)]
    with (folder / "mlserver.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(port, f"/v2/models/{DIGITS}/ready", lambda: process.poll() is None)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def _install(folder: Path, packages: list[str]) -> int:
    """Make an environment with packages; how many bytes they take.

    Raises:
        BenchError: pip does not install them.
    """
    venv.create(folder, with_pip=True)
    before = _size_bytes(folder)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
    # not the versions that this project is tried with: they would not fit the other
    kept = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"pip must install {packages}, got: {done.stderr.strip()[-300:]}")
    return _size_bytes(folder) - before


def _size_bytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def _resident_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024


def _lines(who: str, served: _Served, size_bytes: int) -> Iterator[Line]:
    yield _line(f"{who}: latency", median(served.latency_ms), "ms")
    yield _line(f"{who}: answers a second, 1 client", median(served.one), "1/s")
    yield _line(f"{who}: answers a second, {_MANY} clients", median(served.many), "1/s")
    yield Line(what=f"{who}: resident memory", value=served.memory_bytes / 1e6, unit="MB")
    yield Line(what=f"{who}: install size", value=size_bytes / 1e6, unit="MB")


def _line(what: str, found: Median, unit: str) -> Line:
    return Line(what=what, value=found.value, unit=unit, low=found.low, high=found.high)
