"""What the running agent costs beside a bare process that holds the same session.

The agent is measured as users run it, as a process at a broker; this package does not import it.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import joblib
import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.bundle import extract_bundle, open_bundle
from edgepack.converter import ConvertRequest, Precision, convert
from edgepack.monitor.median import Median, median
from edgepack.trust import keygen
from edgepack.wire.topics import DEFAULT_PREFIX, DeviceTopics

LARGEST_MEMORY_RATIO: Final = 1.3
LARGEST_START_RATIO: Final = 2.0
MOST_WAKE_UPS_S: Final = 2.0

PAIRS: Final = 15
REQUESTS: Final = 200
_DEVICE: Final = "bench"
_MODEL: Final = "digits"
_ASK_EVERY_S: Final = 0.002
_TIMEOUT_S: Final = 30.0
_SETTLE_S: Final = 10.0
_INSTALLER_S: Final = 3.0
_IDLE_S: Final = 60.0
_BARE: Final = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    open(sys.argv[1], "rb").read(), options, providers=["CPUExecutionProvider"]
)
feeds = {session.get_inputs()[0].name: np.ones((1, 64), np.float32)}
session.run(None, feeds)
print("answered", flush=True)
for _ in range(int(sys.argv[2])):
    session.run(None, feeds)
print("worked", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One start of one process: seconds to the first answer, resident bytes after the work."""

    start_s: float
    memory_bytes: int


def measure() -> Figure:
    """Start both in turns."""
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        folder = Path(name)
        onnx_file = prepare(folder, formats=("onnx",)) / "onnx-fp32" / "model.onnx"
        with broker(folder) as port:
            config = write_config(folder, port)
            pairs = pairs_of(config, port, folder, lambda: bare_cost(onnx_file))
            wake_ups_s = idle_wake_ups_s(config, port)
    return Figure(
        name="agent_footprint",
        title="What the running agent costs beside a bare process",
        method=(
            "The agent with the digits pipeline confirmed, as a process at a broker on loopback "
            f"(mosquitto with set_tcp_nodelay where it is installed, else `edgepack broker`), and "
            "a process that imports numpy and onnxruntime, makes the same session with one thread "
            f"and runs it. {PAIRS} starts each, in turns. Start: from creating the process to its "
            "first answer (the agent's over MQTT). Memory: resident set (VmRSS) after "
            f"{REQUESTS} requests, the agent's {_INSTALLER_S:.0f} s later, when all of it is "
            "loaded; it has MQTT, HTTP and its outbox. Wake-ups: voluntary context switches of "
            f"all its threads in {_IDLE_S:.0f} s in which nobody asks."
        ),
        lines=(
            *lines_of(pairs),
            Line(
                what="wake-ups when idle",
                value=wake_ups_s,
                unit="a second",
                limit=MOST_WAKE_UPS_S,
            ),
        ),
    )


def pairs_of(
    config: Path, port: int, folder: Path, bare: Callable[[], Cost]
) -> list[tuple[Cost, Cost]]:
    """Install the folder's bundle, then start the agent, with HTTP, and the other in turns."""
    with config.open("a", encoding="utf-8") as text:
        text.write('[http]\nlisten = "127.0.0.1:0"\n')
    install(config, folder)
    agent_cost(config, port)  # the first start ends the probation and fills the caches
    return [(agent_cost(config, port), bare()) for _ in range(PAIRS)]


def prepare(
    folder: Path, *, formats: tuple[str, ...] = (), precision: Precision | None = None
) -> Path:
    """Make keys and a bundle; gives the folder of its files, as ordinary files."""
    digits = load_digits()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    joblib.dump(model.fit(digits.data[:1000], digits.target[:1000]), folder / "digits.joblib")
    np.savez(folder / "data.npz", X=digits.data[1000:], y=digits.target[1000:])
    keygen(folder / "keys")
    report = convert(
        ConvertRequest(
            model=folder / "digits.joblib",
            data=folder / "data.npz",
            output=folder,
            name=_MODEL,
            keys=folder / "keys",
            formats=formats,
            precision=precision,
        )
    )
    extract_bundle(open_bundle(report.path), folder / "files")
    return folder / "files"


@contextlib.contextmanager
def broker(folder: Path, *, extra: str = "") -> Iterator[int]:
    """Run a broker on a free loopback port; gives the port.

    Args:
        folder: For its settings.
        extra: More of mosquitto's settings; without a mosquitto they are an error.

    Raises:
        BenchError: They were given, and there is none.
    """
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    mosquitto = shutil.which("mosquitto", path=search)
    if mosquitto is None and extra:
        raise BenchError("mosquitto must be installed for this measurement, got none")
    if mosquitto is None:
        command = [sys.executable, "-m", "edgepack.cli.main", "broker", "--port", "0", "--json"]
        with _process(command) as process:
            yield int(json.loads(_line(process))["port"])
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "mosquitto.conf"
    settings.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n{extra}",
        encoding="utf-8",
    )
    with _process([mosquitto, "-c", str(settings)]):
        deadline_s = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline_s:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port


def write_config(folder: Path, port: int) -> Path:
    """Write agent.toml with default settings, but for a short probation."""
    path = folder / "agent.toml"
    path.write_text(
        f'device = "{_DEVICE}"\nstate = "state"\nroot = "keys/root.json"\n'
        f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n[probation]\nseconds = 1\n',
        encoding="utf-8",
    )
    return path


def install(config: Path, folder: Path) -> None:
    """Install the bundle from its file.

    Raises:
        BenchError: The agent refused it.
    """
    (bundle,) = folder.glob("*.edgepack")
    done = subprocess.run(
        _agent("install", config, str(bundle)), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"agent must install {bundle.name}, got: {done.stderr.strip()}")


def agent_cost(config: Path, port: int) -> Cost:
    """Start the agent, ask until it answers, make it work, look at its memory, stop it."""
    with Caller(port) as caller:
        started_s = time.perf_counter()
        with _process(_agent("run", config)) as process:
            start_s = caller.first_answer_s() - started_s
            caller.work(REQUESTS)
            time.sleep(_INSTALLER_S)  # what installs is loaded after the first answers
            return Cost(start_s, resident_bytes(process.pid))


def bare_cost(model_file: Path, program: str = _BARE) -> Cost:
    """The same of a process that only holds a session."""
    started_s = time.perf_counter()
    with _process([sys.executable, "-c", program, str(model_file), str(REQUESTS)]) as process:
        _line(process)
        start_s = time.perf_counter() - started_s
        _line(process)
        return Cost(start_s, resident_bytes(process.pid))


def idle_wake_ups_s(config: Path, port: int) -> float:
    """Voluntary context switches a second of an agent that nobody asks anything."""
    with Caller(port) as caller, _process(_agent("run", config)) as process:
        caller.first_answer_s()
        time.sleep(_SETTLE_S)
        before = _switches(process.pid)
        time.sleep(_IDLE_S)
        return (_switches(process.pid) - before) / _IDLE_S


def _switches(pid: int) -> int:
    statuses = [thread / "status" for thread in Path(f"/proc/{pid}/task").iterdir()]
    texts = [one.read_text(encoding="ascii", errors="replace") for one in statuses]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts)


@contextlib.contextmanager
def running_agent(config: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run the agent, as users do."""
    with _process(_agent("run", config)) as process:
        yield process


class Caller:
    """Asks the agent over MQTT."""

    def __init__(self, port: int, *, model: str = _MODEL, columns: int = 64) -> None:
        topics = DeviceTopics(DEFAULT_PREFIX, _DEVICE)
        self._ask = topics.infer(model)
        self._payload = json.dumps({"x": [1.0] * columns})
        self._answers = 0
        self._first_s = 0.0
        self._answered = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._receive
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(topics.prediction(model))
        self._client.loop_start()

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def first_answer_s(self) -> float:
        """Ask again and again; the moment of the first answer (perf_counter seconds)."""
        deadline_s = time.perf_counter() + _TIMEOUT_S
        while not self._answered.is_set():
            if time.perf_counter() > deadline_s:
                raise BenchError(f"agent must answer within {_TIMEOUT_S:.0f} s, got nothing")
            self._client.publish(self._ask, self._payload)
            self._answered.wait(_ASK_EVERY_S)
        return self._first_s

    def work(self, requests: int) -> None:
        """Ask so many times, one after the other."""
        time.sleep(0.5)  # what was asked too often at the start
        for _ in range(requests):
            before = self._answers
            self._client.publish(self._ask, self._payload, qos=1)
            deadline_s = time.perf_counter() + _TIMEOUT_S
            while self._answers == before and time.perf_counter() < deadline_s:
                time.sleep(0.0005)

    def _receive(self, *_: object) -> None:
        if not self._answers:
            self._first_s = time.perf_counter()
            self._answered.set()
        self._answers += 1


def lines_of(
    pairs: list[tuple[Cost, Cost]], *, largest_memory_ratio: float = LARGEST_MEMORY_RATIO
) -> tuple[Line, ...]:
    """Start and memory of the agent and of the bare process, and their ratios."""
    agent_start = median([1e3 * agent.start_s for agent, _ in pairs])
    bare_start = median([1e3 * bare.start_s for _, bare in pairs])
    start = median([agent.start_s / bare.start_s for agent, bare in pairs])
    agent_memory = median([agent.memory_bytes / 1e6 for agent, _ in pairs])
    bare_memory = median([bare.memory_bytes / 1e6 for _, bare in pairs])
    memory = median([agent.memory_bytes / bare.memory_bytes for agent, bare in pairs])
    return (
        _figure("start to first answer: agent", agent_start, "ms"),
        _figure("start to first answer: bare process", bare_start, "ms"),
        _figure("start to first answer: ratio", start, "times", LARGEST_START_RATIO),
        _figure("resident memory: agent", agent_memory, "MB"),
        _figure("resident memory: bare process", bare_memory, "MB"),
        _figure("resident memory: ratio", memory, "times", largest_memory_ratio),
    )


def _figure(what: str, found: Median, unit: str, limit: float | None = None) -> Line:
    return Line(
        what=what, value=found.value, unit=unit, low=found.low, high=found.high, limit=limit
    )


def _agent(verb: str, config: Path, *rest: str) -> list[str]:
    return [sys.executable, "-m", "edgepack.agent.main", verb, "--config", str(config), *rest]


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        command,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(_TIMEOUT_S)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _environment() -> dict[str, str]:
    """The same for both: no telemetry of onnxruntime, and compiled modules as pip leaves them."""
    kept = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "ORT_DISABLE_TELEMETRY": "1"}


def _line(process: "subprocess.Popen[str]") -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise BenchError(f"process must say something, got its end ({process.wait()})")
    return line


def resident_bytes(pid: int) -> int:
    """Resident set of a process."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024
