"""Requests and truths that come over MQTT, and the answers to them.

A request with a response topic (MQTT 5) is answered there, in the form it came in; every other
one on `out/prediction/<model>`. Requests are bounded; inference never runs on the event loop.
"""

import asyncio
import logging
import time
from functools import partial

from edgepack.agent.errors import BusyError, FetchError, UnknownModelError
from edgepack.agent.link import Incoming, Link
from edgepack.agent.serve.inference import Inference, Prediction
from edgepack.agent.serve.policy import render_prediction
from edgepack.agent.serve.requests import to_inputs, to_tensors
from edgepack.runtime import EngineError, InputError
from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError
from edgepack.wire.infer import parse_request, parse_truth
from edgepack.wire.messages import render_flat
from edgepack.wire.open_inference import InferAnswer, InferRequest, render_answer
from edgepack.wire.topics import DeviceTopics, model_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reply:
    topic: str
    correlation: bytes | None


class RequestServer:
    """Answers `in/infer/<model>` and takes `in/truth/<model>`.

    Args:
        inference: Has requests answered.
        topics: This device's topics.
        pending: Largest number of requests that wait or run.
    """

    def __init__(self, inference: Inference, topics: DeviceTopics, *, pending: int) -> None:
        self._inference = inference
        self._topics = topics
        self._pending = pending
        self._tasks: set[asyncio.Task[None]] = set()
        self._flooded = False
        self.link: Link | None = None  # set by compose: the two need each other

    def infer(self, message: Incoming) -> None:
        """Take a request; returns at once.

        A retained one is dropped: it would be answered again after every reconnect.
        """
        if message.retained:
            logger.warning("request.dropped reason=retained topic=%s", message.topic)
            return
        if len(self._tasks) >= 2 * self._pending:
            # even refusals wait now, for a broker that is slower than whoever asks
            if not self._flooded:
                logger.warning("request.dropped reason=flood waiting=%d", len(self._tasks))
            self._flooded = True
            return
        self._flooded = False
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def truth(self, message: Incoming) -> None:
        """Take a truth."""
        if message.retained:
            return
        try:
            served = self._inference.served(model_of(message.topic))
            if not served.truth(parse_truth(message.payload)):
                logger.debug("truth.unknown topic=%s", message.topic)
        except UnknownModelError:
            logger.debug("truth.unknown topic=%s", message.topic)
        except WireError as exc:
            logger.warning("truth.refused topic=%s error=%s", message.topic, exc)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the requests that are under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _answer(self, message: Incoming) -> None:
        reply = _Reply(self._topics.prediction("unknown"), None)
        request: InferRequest | None = None
        try:
            name = model_of(message.topic)
            own = self._topics.prediction(name)
            reply = _Reply(own, None)
            reply = self._reply_to(message, reply)
            request = parse_request(message.payload)
            if len(self._tasks) > self._pending:
                raise BusyError(f"device is busy: {self._pending} requests are waiting")  # noqa: TRY301
            prediction = await self._inference.answer(
                name,
                partial(to_inputs, request),
                request_id=request.request_id,
                is_told=reply.topic == own,
            )
            if message.is_expired:  # it waited too long behind others
                logger.info("request.dropped reason=expired topic=%s", message.topic)
                return
            if reply.topic == own:
                request = request.in_json()  # others read `out/prediction`, too
            await self._send(reply.topic, _render(request, prediction), reply.correlation)
        except (WireError, InputError, EngineError, UnknownModelError, BusyError) as exc:
            await self._refuse(reply, request.request_id if request else None, str(exc))
        except Exception:  # one request must not go unanswered for a defect of ours
            logger.exception("request.defect topic=%s", message.topic)
            await self._refuse(reply, None, "the device failed; its log tells why")

    def _reply_to(self, message: Incoming, default: _Reply) -> _Reply:
        if message.response_topic is None:
            return default
        topic = check_response_topic(self._topics, message.response_topic)
        return _Reply(topic, message.correlation)

    async def _refuse(self, reply: _Reply, request_id: str | None, error: str) -> None:
        fields = {"error": error, "request_id": request_id, "ts": time.time_ns() // 1_000_000}
        await self._send(reply.topic, render_flat(fields), reply.correlation)

    async def _send(self, topic: str, payload: bytes, correlation: bytes | None) -> None:
        if self.link is None:
            return
        try:
            await self.link.publish(topic, payload, correlation=correlation)
        except (
            FetchError
        ) as exc:  # whoever asked is out of reach; the answer is worth nothing later
            logger.warning("reply.lost topic=%s error=%s", topic, exc)


def check_response_topic(topics: DeviceTopics, topic: str) -> str:
    """Return where an asker wants the answer.

    Raises:
        WireError: It is not under this device's `out/reply/`.
    """
    allowed = f"{topics.base}/out/reply/"
    if not topic.startswith(allowed) or any(sign in topic for sign in "+#"):
        raise WireError(f"response topic must be under {allowed}, got {topic[:120]!r}")
    return topic


def _render(request: InferRequest, prediction: Prediction) -> bytes:
    if request.tensors is None:
        return render_prediction(prediction)
    parts, _ = render_answer(
        InferAnswer(
            prediction.model,
            prediction.version,
            request.request_id,
            to_tensors(prediction.outputs, request),
        )
    )
    return b"".join(parts)
