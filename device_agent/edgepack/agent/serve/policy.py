"""Which predictions are published that nobody asked `out/prediction` for.

The latest value is always told in the end: one that came too early waits until the interval is
over, or the agent stops. Where it goes (the broker, or the disk while there is none) is not known
here.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from edgepack.agent.config import PredictionRule, PredictionsConfig, Publish
from edgepack.agent.serve.inference import Prediction
from edgepack.agent.serve.requests import Answer
from edgepack.trust.values import dataclass
from edgepack.wire.messages import Scalar, render_flat

_MAX_SOURCES: Final = 1024

Fields = Mapping[str, Scalar | None]
_Key = tuple[str, str | None]  # the model and the source


@dataclass(frozen=True, slots=True)
class Told:
    """What was published last: when (monotonic, in seconds) and what."""

    at_s: float
    answer: Answer


@dataclass(slots=True)
class _Waiting:
    fields: Fields
    answer: Answer
    timer: asyncio.TimerHandle


class PredictionPolicy:
    """Publishes predictions on `out/prediction/<model>` as agent.toml wants it.

    Args:
        config: `[predictions]`.
        send: Takes a model's name and the fields of a prediction; must not block.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        config: PredictionsConfig,
        send: Callable[[str, Fields], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._send = send
        self._clock = clock
        self._last: OrderedDict[_Key, Told] = OrderedDict()
        self._waiting: dict[_Key, _Waiting] = {}

    def take(self, prediction: Prediction) -> None:
        """Look at a prediction, and publish it where that is due; returns at once."""
        key = (prediction.model, prediction.source)
        now_s, answer = self._clock(), prediction.answer
        if prediction.is_told:
            self._forget(key)
            self._remember(key, Told(now_s, answer))
            return
        rule = self._config.rule(prediction.model)
        wait_s = seconds_until(rule, self._last.get(key), answer, now_s)
        if wait_s is None:
            self._forget(key)  # back at what was told
            return
        fields = prediction_fields(prediction, is_reply=prediction.source is not None)
        if wait_s <= 0:
            self._forget(key)
            self._tell(key, fields, answer)
            return
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.fields, waiting.answer = fields, answer
            return
        timer = asyncio.get_running_loop().call_later(wait_s, self._due, key)
        self._waiting[key] = _Waiting(fields, answer, timer)

    def flush(self) -> None:
        """Publish what waits: the agent stops."""
        for key in list(self._waiting):
            self._due(key)

    def _due(self, key: _Key) -> None:
        waiting = self._waiting[key]
        self._forget(key)
        self._tell(key, waiting.fields, waiting.answer)

    def _tell(self, key: _Key, fields: Fields, answer: Answer) -> None:
        self._remember(key, Told(self._clock(), answer))
        self._send(key[0], fields)

    def _remember(self, key: _Key, told: Told) -> None:
        self._last[key] = told
        self._last.move_to_end(key)
        if len(self._last) > _MAX_SOURCES:
            gone, _ = self._last.popitem(last=False)
            if gone in self._waiting:
                self._due(gone)

    def _forget(self, key: _Key) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.timer.cancel()


def seconds_until(
    rule: PredictionRule, last: Told | None, answer: Answer, now_s: float
) -> float | None:
    """When a prediction is due: in so many seconds, 0 for now, None for never."""
    if rule.publish is Publish.NONE:
        return None
    if rule.publish is Publish.ALL or last is None:
        return 0.0
    if rule.publish is Publish.ON_CHANGE and is_same(last.answer, answer, rule.min_change):
        return None
    return max(0.0, last.at_s + rule.interval_s - now_s)


def is_same(one: Answer, other: Answer, min_change: float) -> bool:
    """Whether two answers say the same: labels are equal, numbers differ by less."""
    return (
        one.label == other.label
        and _is_close(one.value, other.value, min_change)
        and one.values.keys() == other.values.keys()
        and all(_is_close(one.values[name], other.values[name], min_change) for name in one.values)
    )


def _is_close(one: float | str | None, other: float | str | None, min_change: float) -> bool:
    if not isinstance(one, float) or not isinstance(other, float):
        return one == other
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other or abs(one - other) < min_change


def prediction_fields(prediction: Prediction, *, is_reply: bool = True) -> Fields:
    """A prediction, flat; the request's id only where it is the reply, or a sensor's."""
    return {
        **prediction.answer.fields(),
        "source": prediction.source,
        "request_id": prediction.request_id if is_reply else None,
        "model_version": prediction.version,
        "ts": time.time_ns() // 1_000_000,
    }


def render_prediction(prediction: Prediction) -> bytes:
    """Flat JSON of a reply."""
    return render_flat(prediction_fields(prediction))
