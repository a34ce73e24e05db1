"""How long an install takes, by phase, and how many bytes a new version costs, by source.

The agent is measured as users run it, as a process at a broker; the `edgepack` command deploys.
Every byte goes through a counting line of our own, so that all sources are counted alike.
"""

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import joblib
import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from edgepack.bench.agent_footprint import broker
from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.bundle import Part, open_bundle, sign_bundle, write_bundle
from edgepack.bundle.manifest import CONTRACT_PATH
from edgepack.converter import ConvertRequest, Precision, convert
from edgepack.monitor.median import median
from edgepack.trust import RELEASE, PrivateKey, keygen
from edgepack.trust.generate import key_path
from edgepack.wire.topics import DEFAULT_PREFIX, DeviceTopics

_RUNS: Final = 5
_DEVICE: Final = "bench"
_MODEL: Final = "digits"
_HIDDEN: Final = (1000, 1000)
_TIMEOUT_S: Final = 120.0
_PHASES: Final = ("fetching", "verifying", "staging", "testing", "switching")
_VERSIONS: Final = ("unchanged", "retrained", "recalibrated", "requantized")
_QUANTIZED: Final = (Precision.FP32, Precision.INT8)
_SOURCES: Final = ("MQTT", "HTTP", "OCI", "file")


def measure() -> Figure:
    """Install the same bundle from each source in turns, then its successors."""
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        folder = Path(name)
        bundles = prepare(folder)
        with contextlib.ExitStack() as stack:
            bench = _Bench(folder, stack)
            for path in bundles.values():
                bench.offer(path)
            runs = [
                {source: bench.timed(bundles["full"], source) for source in _SOURCES}
                for _ in range(_RUNS)
            ]
            sizes = {
                source: bench.sizes(bundles, source) for source in _SOURCES if source != "file"
            }
        full_bytes = bundles["full"].stat().st_size
    return Figure(
        name="install_time",
        title="What an install takes: time by phase, and bytes by what changed",
        method=(
            f"A bundle of {full_bytes / 1e6:.1f} MB (digits by a perceptron with hidden layers of "
            f"{_HIDDEN[0]} and {_HIDDEN[1]}, fp32 and int8) on an agent process with default "
            f"settings, from mosquitto, nginx, Debian's docker-registry and a file, all on "
            f"loopback; {_RUNS} installs from each, in turns, each on a device without the model. "
            "Times are differences of the `ts` of the device's transition events. Bytes are all "
            "that the server sent to the device during an install on a device that runs the full "
            "bundle (mosquitto's acknowledgements included). Unchanged: a new version of the same "
            "model. Retrained: other weights. Recalibrated: the same model, quantized on other "
            "rows. Requantized: the same model with dynamic int8 in place of static."
        ),
        lines=(*_time_lines(runs), *_size_lines(sizes, full_bytes)),
    )


def prepare(folder: Path) -> dict[str, Path]:
    """Make keys and the bundles, by what is new of them."""
    keygen(folder / "keys")
    digits = load_digits()
    for seed in (0, 1):
        model = MLPClassifier(_HIDDEN, max_iter=8, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # eight rounds are enough for a file of this size
            model.fit(digits.data[:1000], digits.target[:1000])
        joblib.dump(model, folder / f"{seed}.joblib")
    np.savez(folder / "a.npz", X=digits.data[1000:], y=digits.target[1000:])
    np.savez(folder / "b.npz", X=digits.data[900:1700], y=digits.target[900:1700])

    def made(
        model: str, data: str, version: str, precision: tuple[Precision, ...] = _QUANTIZED
    ) -> Path:
        return convert(
            ConvertRequest(
                model=folder / model,
                data=folder / data,
                output=folder,
                name=_MODEL,
                version=version,
                keys=folder / "keys",
                precision=precision,
                formats=("onnx",),
            )
        ).path

    full = made("0.joblib", "a.npz", "1.0.0")
    return {
        "full": full,
        "unchanged": _renumbered(full, folder, "1.0.1"),
        "retrained": made("1.joblib", "a.npz", "2.0.0"),
        "recalibrated": made("0.joblib", "b.npz", "1.1.0"),
        "requantized": made("0.joblib", "a.npz", "1.2.0", (Precision.FP32, Precision.INT8_DYNAMIC)),
    }


def _renumbered(path: Path, folder: Path, version: str) -> Path:
    bundle = open_bundle(path)
    parts = [
        Part(path=layer.path, media_type=layer.media_type, data=bundle.read(layer.path))
        for layer in bundle.manifest.layers
        if layer.path != CONTRACT_PATH
    ]
    new = folder / f"{_MODEL}-{version}.edgepack"
    write_bundle(new, replace(bundle.contract, version=version), parts)
    sign_bundle(new, PrivateKey.load(key_path(folder / "keys", RELEASE)), sequence=int(time.time()))
    return new


@dataclass(frozen=True, slots=True)
class _Served:
    """Where a source is for those who deploy, and behind the counting line for the device."""

    port: int
    line: "_Line"


class _Bench:
    """Servers, counting lines and an operator."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._broker = self._counted(stack, stack.enter_context(broker(folder)))
        self._www = folder / "www"
        self._www.mkdir()
        self._http = self._counted(stack, stack.enter_context(_nginx(folder, self._www)))
        self._registry = self._counted(stack, stack.enter_context(_registry(folder)))
        self._operator = stack.enter_context(_Operator(self._broker.port))
        self._config = folder / "agent.toml"

    @staticmethod
    def _counted(stack: contextlib.ExitStack, port: int) -> _Served:
        return _Served(port, stack.enter_context(_Line(port)))

    def offer(self, bundle: Path) -> None:
        """Put a bundle on the web server and into the registry."""
        shutil.copy(bundle, self._www / bundle.name)
        _edgepack("push", str(bundle), f"oci://127.0.0.1:{self._registry.port}/{_MODEL}")

    def timed(self, bundle: Path, source: str) -> dict[str, float]:
        """Install on a fresh device; milliseconds by phase."""
        with self._device():
            return self._deploy(bundle, source)

    def sizes(self, bundles: dict[str, Path], source: str) -> dict[str, int]:
        """Bytes of a full install, and of each successor on a device that runs the first."""
        line = {"MQTT": self._broker, "HTTP": self._http, "OCI": self._registry}[source].line
        sizes = {}
        with self._device():
            for what in ("full", *_VERSIONS):
                if what not in ("full", "unchanged"):
                    self._deploy(bundles["full"], source)  # it is on disk
                before = line.sent_bytes
                self._deploy(bundles[what], source)
                sizes[what] = line.sent_bytes - before
        return sizes

    @contextlib.contextmanager
    def _device(self) -> Iterator[None]:
        shutil.rmtree(self._folder / "state", ignore_errors=True)
        self._operator.clear()
        self._config.write_text(
            f'device = "{_DEVICE}"\nstate = "state"\nroot = "keys/root.json"\n'
            f'[broker]\nurl = "mqtt://127.0.0.1:{self._broker.line.port}"\n'
            "[probation]\nseconds = 0.5\n",
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "edgepack.agent.main", "run", "--config"]
        process = subprocess.Popen([*command, str(self._config)], stderr=subprocess.DEVNULL)
        try:
            self._operator.wait(lambda: self._operator.online, "agent must come online")
            time.sleep(1.0)  # what it does at its start is not the install
            yield
        finally:
            process.terminate()
            process.wait(_TIMEOUT_S)

    def _deploy(self, bundle: Path, source: str) -> dict[str, float]:
        via = {
            "MQTT": "mqtt:",
            "HTTP": f"http://127.0.0.1:{self._http.line.port}/",
            "OCI": f"oci://127.0.0.1:{self._registry.line.port}/{_MODEL}",
            "file": bundle.as_uri(),
        }[source]
        self._operator.events.clear()
        _edgepack(
            *("deploy", str(bundle), "--device", _DEVICE, "--via", via, "--keep-blobs"),
            *("--broker", f"mqtt://127.0.0.1:{self._broker.port}"),
            *("--keys", str(self._folder / "keys")),
        )
        digest = open_bundle(bundle).digest
        return self._operator.phases(digest)


class _Operator:
    """Hears the device's events."""

    def __init__(self, port: int) -> None:
        topics = DeviceTopics(DEFAULT_PREFIX, _DEVICE)
        self.online = False
        self.events: list[dict[str, object]] = []
        self._topics = topics
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._receive
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([(topics.status, 1), (topics.event("transition"), 1)])
        self._client.loop_start()

    def __enter__(self) -> "_Operator":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def clear(self) -> None:
        """Forget the device: it is about to be another."""
        for topic in (self._topics.status, self._topics.desired, self._topics.reported):
            self._client.publish(topic, b"", qos=1, retain=True).wait_for_publish(_TIMEOUT_S)
        self.online = False

    def wait(self, condition: object, what: str) -> None:
        """Wait until a condition holds."""
        assert callable(condition)
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline_s:
                raise BenchError(f"{what}, got nothing in {_TIMEOUT_S:.0f} s: {self.events[-3:]}")
            time.sleep(0.01)

    def phases(self, digest: str) -> dict[str, float]:
        """Milliseconds of each phase of an install that ends well."""
        self.wait(lambda: "confirmed" in self._times(digest), "install must be confirmed")
        times = self._times(digest)
        names = [name for name in (*_PHASES, "probation") if name in times]
        found: dict[str, float] = {
            name: times[after] - times[name] for name, after in itertools.pairwise(names)
        }
        return {**found, "all": times["probation"] - times[names[0]]}

    def _times(self, digest: str) -> dict[str, float]:
        return {
            str(event["phase"]): float(str(event["ts"]))
            for event in list(self.events)
            if event.get("digest") == digest
        }

    def _receive(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == self._topics.status:
            self.online = message.payload == b"online"
        elif message.payload:
            self.events.append(json.loads(message.payload))


class _Line:
    """A TCP line to a port of this machine that counts what comes back.

    Attributes:
        port: Where it begins.
        sent_bytes: What the server has sent so far.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.sent_bytes = 0

    def __enter__(self) -> "_Line":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                outer = socket.create_connection(("127.0.0.1", self._target))
                for one in (inner, outer):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for source, target in ((inner, outer), (outer, inner)):
                    threading.Thread(
                        target=self._pump, args=(source, target, source is outer), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(256 * 1024):
                if counted:
                    with self._lock:
                        self.sent_bytes += len(data)
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _nginx(folder: Path, www: Path) -> Iterator[int]:
    port = _free_port()
    settings = folder / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    settings.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        f"events {{ }}\nhttp {{ {temporary} access_log off; sendfile on; tcp_nopush on;\n"
        f"server {{ listen 127.0.0.1:{port}; root {www}; }} }}\n",
        encoding="utf-8",
    )
    with _server([_binary("nginx", "nginx-light"), "-c", str(settings), "-p", str(folder)], port):
        yield port


@contextlib.contextmanager
def _registry(folder: Path) -> Iterator[int]:
    port = _free_port()
    settings = folder / "registry.yml"
    settings.write_text(
        f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n"
        f"    rootdirectory: {folder}/registry\nhttp:\n  addr: 127.0.0.1:{port}\n",
        encoding="utf-8",
    )
    binary = _binary("docker-registry", "docker-registry")
    with _server([binary, "serve", str(settings)], port):
        yield port


@contextlib.contextmanager
def _server(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline_s:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait(_TIMEOUT_S)


def _binary(name: str, package: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        raise BenchError(f"{name} must be installed: apt-get install {package}")
    return found


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _edgepack(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgepack.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={key: os.environ[key] for key in os.environ if not key.lower().endswith("_proxy")},
    )
    if done.returncode != 0:
        raise BenchError(f"edgepack {arguments[0]} must end with 0, got: {done.stderr.strip()}")


def _time_lines(runs: list[dict[str, dict[str, float]]]) -> Iterator[Line]:
    for source in _SOURCES:
        for phase in ("all", *_PHASES):
            values = [run[source].get(phase, 0.0) for run in runs]
            found = median(values)
            what = "whole install" if phase == "all" else phase
            yield Line(
                what=f"{source}: {what}",
                value=found.value,
                unit="ms",
                low=found.low,
                high=found.high,
            )


def _size_lines(sizes: dict[str, dict[str, int]], full_bytes: int) -> Iterator[Line]:
    yield Line(what="the bundle's file", value=full_bytes / 1e3, unit="kB")
    for source, found in sizes.items():
        for what, size_bytes in found.items():
            yield Line(what=f"{source}: bytes, {what}", value=size_bytes / 1e3, unit="kB")
