"""Which predictions are published that nobody asked `out/prediction` for."""

import asyncio
import logging
import time

from edgepack.agent.config import PredictionsConfig, Publish
from edgepack.agent.errors import FetchError
from edgepack.agent.link import Link
from edgepack.agent.serve.inference import Prediction
from edgepack.agent.serve.requests import Answer
from edgepack.wire.messages import render_flat
from edgepack.wire.topics import DeviceTopics

logger = logging.getLogger(__name__)


class PredictionPolicy:
    """Publishes predictions on `out/prediction/<model>` as agent.toml wants it.

    Args:
        config: `[predictions]`.
        topics: This device's topics.
    """

    def __init__(self, config: PredictionsConfig, topics: DeviceTopics) -> None:
        self._config = config
        self._topics = topics
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[str, tuple[float, Answer]] = {}
        self.link: Link | None = None  # set by compose

    def take(self, prediction: Prediction) -> None:
        """Look at a prediction, and publish it where that is due; returns at once."""
        if prediction.is_told or not self._is_due(prediction):
            return
        task = asyncio.create_task(self._publish(prediction))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_due(self, prediction: Prediction) -> bool:
        if self._config.publish is Publish.NONE:
            return False
        now_s = time.monotonic()
        answer = prediction.answer
        at_s, last = self._last.get(prediction.model, (-1e9, None))
        early = now_s - at_s < self._config.interval_s
        same = last is not None and (last.label, last.value) == (answer.label, answer.value)
        if self._config.publish is not Publish.ALL and (
            early or (same and self._config.publish is Publish.ON_CHANGE)
        ):
            return False
        self._last[prediction.model] = (now_s, answer)
        return True

    async def _publish(self, prediction: Prediction) -> None:
        if self.link is None:
            return
        try:
            await self.link.publish(
                self._topics.prediction(prediction.model),
                render_prediction(prediction, is_reply=False),
            )
        except FetchError as exc:
            logger.warning("prediction.lost model=%s error=%s", prediction.model, exc)


def render_prediction(prediction: Prediction, *, is_reply: bool = True) -> bytes:
    """Flat JSON of a prediction; the request's id only where it is the reply."""
    return render_flat(
        {
            **prediction.answer.fields(),
            "source": prediction.source,
            "request_id": prediction.request_id if is_reply or prediction.source else None,
            "model_version": prediction.version,
            "ts": time.time_ns() // 1_000_000,
        }
    )
