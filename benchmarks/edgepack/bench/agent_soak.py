"""An agent whose broker comes and goes: does its memory grow, and is a report lost?

Every report carries the number of its place in the agent's count (`message_id`), so that whoever
hears them all knows exactly which are missing.
"""

import json
import random
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgepack.bench import agent_footprint as footprint
from edgepack.bench.agent_footprint import resident_bytes
from edgepack.bench.counting_relay import CountingRelay, relay
from edgepack.bench.figure import Figure, Line
from edgepack.wire.topics import DEFAULT_PREFIX, DeviceTopics

LARGEST_LOSS: Final = 0.0

_DEVICE: Final = "bench"
_SOAK_S: Final = 600.0
_WARM_S: Final = 300.0  # by then each bounded memory is full
_INTERVAL_S: Final = 0.2
_ASK_EVERY_S: Final = 0.02
_SAMPLE_S: Final = 1.0
_UP_S, _DOWN_S = (2.0, 8.0), (0.5, 4.0)
_DRAIN_S: Final = 600.0


class Listener:
    """Hears every report at the broker itself."""

    def __init__(self, port: int) -> None:
        self.by_run: dict[str, set[int]] = {}
        self.repeated = 0
        self.answers = 0
        self.dropped = 0
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.max_inflight_messages_set(1000)
        self.client.on_message = self._take
        self.client.connect("127.0.0.1", port)
        self.client.subscribe(f"{DeviceTopics(DEFAULT_PREFIX, _DEVICE).base}/out/#", 1)
        self.client.loop_start()

    def _take(self, _: object, __: object, message: mqtt.MQTTMessage) -> None:
        try:
            document = json.loads(message.payload)
        except ValueError:  # out/status is a word
            return
        if not isinstance(document, dict):
            return
        self.dropped = max(self.dropped, int(document.get("outbox_dropped", 0)))
        name = document.get("message_id")
        if not isinstance(name, str):
            self.answers += "request_id" in document
            return
        run, _, number = name.rpartition("-")
        numbers = self.by_run.setdefault(run, set())
        self.repeated += int(number) in numbers
        numbers.add(int(number))

    @property
    def numbers(self) -> set[int]:
        """Of the agent; the command that installed has told of that under a run of its own."""
        return max(self.by_run.values(), key=len, default={0})

    @property
    def missing(self) -> int:
        """Numbers below the largest one that never came."""
        return max(self.numbers) - min(self.numbers) + 1 - len(self.numbers)


def measure() -> Figure:
    """Run for some minutes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgepack-bench-")))
        footprint.prepare(folder, formats=("onnx",))
        port = stack.enter_context(footprint.broker(folder))
        line = stack.enter_context(relay(port))
        config = footprint.write_config(folder, line.port)
        config.write_text(
            config.read_text(encoding="utf-8")
            + f"[metrics]\ninterval_s = {_INTERVAL_S}\nslow_s = {_INTERVAL_S}\n"
            + "[outbox]\nflush_s = 1\n",
            encoding="utf-8",
        )
        footprint.install(config, folder)
        listener = Listener(port)
        stack.callback(listener.client.loop_stop)
        process = stack.enter_context(footprint.running_agent(config))
        done = threading.Event()
        flapping = threading.Thread(target=_flap, args=(line, done), daemon=True)
        asking = threading.Thread(target=_ask, args=(listener.client, done), daemon=True)
        flapping.start()
        asking.start()
        began_s = time.monotonic()
        samples = []
        while (at_s := time.monotonic() - began_s) < _SOAK_S:
            samples.append((at_s, resident_bytes(process.pid) / 1e6))
            time.sleep(_SAMPLE_S)
        done.set()
        flapping.join()
        asking.join()
        _drain(listener)
    return _figure(samples, listener, line.counted().connections)


def _flap(line: CountingRelay, done: threading.Event) -> None:
    chance = random.Random(7)  # noqa: S311  (repeatable)
    while not done.wait(chance.uniform(*_UP_S)):
        line.cut()
        line.refuses = True
        done.wait(chance.uniform(*_DOWN_S))
        line.refuses = False


def _ask(client: mqtt.Client, done: threading.Event) -> None:
    topic = DeviceTopics(DEFAULT_PREFIX, _DEVICE).infer("digits")
    number = 0
    while not done.wait(_ASK_EVERY_S):
        number += 1
        client.publish(topic, json.dumps({"x": [1.0] * 64, "request_id": str(number)}), qos=1)


def _drain(listener: Listener) -> None:
    """Wait until what waited was told: nothing is missing below the newest."""
    deadline_s = time.monotonic() + _DRAIN_S
    while time.monotonic() < deadline_s and listener.missing > listener.dropped:
        time.sleep(0.2)


def _figure(samples: list[tuple[float, float]], listener: Listener, connections: int) -> Figure:
    late = np.array([one for one in samples if one[0] >= _WARM_S])
    slope, spread = _slope(late)
    hours = len(listener.numbers) / (2 * 4 + 1)  # metrics and a prediction 4 times, the agent once
    return Figure(
        name="agent_soak",
        title="An agent whose broker comes and goes",
        method=(
            f"One agent with one small model for {_SOAK_S:.0f} s at a mosquitto behind a relay "
            f"that cuts every connection after {_UP_S[0]:.0f} to {_UP_S[1]:.0f} s and refuses new "
            f"ones for {_DOWN_S[0]} to {_DOWN_S[1]:.0f} s; figures every {_INTERVAL_S} s, "
            f"a request every {_ASK_EVERY_S} s. A listener at the broker itself notes the number "
            "of every report. Memory: resident set once a second, a straight line through it by "
            f"least squares after the first {_WARM_S:.0f} s, with the 95 % interval of its slope "
            "from block means of ten samples."
        ),
        lines=(
            Line(what="reports heard", value=len(listener.numbers), unit="reports"),
            Line(what="hours of reports at default settings", value=round(hours), unit="hours"),
            Line(what="connections", value=connections, unit="connections"),
            Line(what="answers heard", value=listener.answers, unit="answers"),
            Line(
                what="reports lost that were not counted as dropped",
                value=max(0, listener.missing - listener.dropped),
                unit="reports",
                limit=LARGEST_LOSS,
            ),
            Line(what="reports dropped and counted", value=listener.dropped, unit="reports"),
            Line(what="reports that came twice", value=listener.repeated, unit="reports"),
            Line(what="memory at the end", value=float(late[-10:, 1].mean()), unit="MB"),
            Line(
                what="slope of memory",
                value=slope,
                low=slope - spread,
                high=slope + spread,
                unit="MB an hour",
            ),
        ),
    )


def _slope(samples: "np.ndarray[Any, np.dtype[np.float64]]") -> tuple[float, float]:
    """MB an hour, and half of its 95 % interval."""
    blocks = len(samples) // 10
    means = samples[: blocks * 10].reshape(blocks, 10, 2).mean(axis=1)
    hours, memory = means[:, 0] / 3600, means[:, 1]
    (slope, _), covariance = np.polyfit(hours, memory, 1, cov=True)
    return float(slope), 1.96 * float(np.sqrt(covariance[0, 0]))
