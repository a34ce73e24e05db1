"""Plays the application: asks 20 times a second, tells the truth afterwards, keeps count."""

import json
import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgepack.wire.topics import DeviceTopics


@dataclass(slots=True)
class Count:
    """What was asked and what came back.

    Attributes:
        sent: Request id → time of sending, in seconds of the monotonic clock.
        answers: Request id → the answer.
        round_trip_ms: Time from sending to the answer, broker included, in milliseconds.
        right: How many answers were true.
    """

    sent: dict[str, float] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    round_trip_ms: list[float] = field(default_factory=list)
    right: int = 0

    @property
    def unanswered(self) -> list[str]:
        """Requests without a prediction, also those answered with an error."""
        return [i for i in self.sent if "label" not in self.answers.get(i, {})]

    def versions_since(self, moment_s: float) -> set[str]:
        """Which versions answered what was sent after a moment (monotonic seconds)."""
        return {
            str(self.answers[i]["model_version"])
            for i, sent_s in self.sent.items()
            if sent_s > moment_s and "model_version" in self.answers.get(i, {})
        }


class Stream:
    """Samples at a steady rate, from a thread of its own.

    Args:
        broker: Its host and port.
        topics: The device's topics.
        model: The model's name.
        x: Samples, float32 (N, features); repeated from the start when they are used up.
        y: True classes, (N,).
        rate_hz: Samples a second.
    """

    def __init__(
        self,
        broker: tuple[str, int],
        topics: DeviceTopics,
        model: str,
        *,
        x: npt.NDArray[np.float32],
        y: npt.NDArray[np.int64],
        rate_hz: float,
    ) -> None:
        self.count = Count()
        self.metrics: dict[str, Any] = {}
        self.reported: dict[str, Any] = {}
        self._topics = topics
        self._model = model
        self._x, self._y = x, y
        self._period_s = 1 / rate_hz
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="stream", daemon=True)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="edgepack-demo", protocol=mqtt.MQTTv311
        )
        self._client.on_message = self._receive
        self._client.on_connect = self._subscribe
        self._client.connect(*broker)
        self._client.loop_start()

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self, *, patience_s: float = 5.0) -> None:
        """Stop asking, and wait a little for the last answers."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        deadline_s = time.monotonic() + patience_s
        while self.count.unanswered and time.monotonic() < deadline_s:
            time.sleep(0.05)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def line(self) -> str:
        """What a person wants to see, live."""
        metrics = self.metrics
        latency = accuracy = "-"
        if "latency_p50_ms" in metrics:
            p50, p99 = (1e3 * metrics[f"latency_{name}_ms"] for name in ("p50", "p99"))
            latency = f"{p50:.0f}/{p99:.0f} µs"
        if "accuracy" in metrics:
            low, high = metrics["accuracy_low"], metrics["accuracy_high"]
            accuracy = f"{metrics['accuracy']:.3f} ({low:.3f}..{high:.3f})"
        answered = len(self.count.answers)
        trip = _median(self.count.round_trip_ms[-100:])
        return (
            f"version {metrics.get('model_version', '-')} {metrics.get('variant', '')}  "
            f"answered {answered}/{len(self.count.sent)}  inference p50/p99 {latency}  "
            f"round trip {trip:.1f} ms  accuracy {accuracy}"
        )

    def _subscribe(self, *_: object) -> None:
        self._client.subscribe(
            [
                (self._topics.prediction(self._model), 1),
                (self._topics.metrics(self._model), 1),
                (self._topics.reported, 1),
            ]
        )

    def _send(self) -> None:
        next_s = time.monotonic()
        index = 0
        while not self._stop.is_set():
            request_id = f"demo-{index}"
            sample = self._x[index % len(self._x)].tolist()
            payload = json.dumps({"x": sample, "request_id": request_id})
            self.count.sent[request_id] = time.monotonic()
            self._client.publish(self._topics.infer(self._model), payload, qos=1)
            index += 1
            next_s += self._period_s
            self._stop.wait(max(0.0, next_s - time.monotonic()))

    def _receive(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        document = json.loads(message.payload)
        if message.topic == self._topics.reported:
            self.reported = document
        elif message.topic == self._topics.metrics(self._model):
            self.metrics = document
        elif document.get("request_id") in self.count.sent:
            self._answered(str(document["request_id"]), document)

    def _answered(self, request_id: str, answer: dict[str, Any]) -> None:
        count = self.count
        if request_id not in count.answers:
            count.round_trip_ms.append(1e3 * (time.monotonic() - count.sent[request_id]))
        count.answers[request_id] = answer
        index = int(request_id.removeprefix("demo-"))
        truth = str(self._y[index % len(self._y)])
        count.right += answer.get("label") == truth
        payload = json.dumps({"request_id": request_id, "label": truth})
        self._client.publish(self._topics.truth(self._model), payload, qos=1)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else math.nan
