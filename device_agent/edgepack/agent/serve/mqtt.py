"""Requests and truths that come over MQTT, and the answers to them.

A request with a response topic (MQTT 5) is answered there, in the form it came in; every other
one on `out/prediction/<model>`. Requests are bounded; inference never runs on the event loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgepack.agent.config import PredictionsConfig, Publish
from edgepack.agent.errors import FetchError
from edgepack.agent.link import Incoming, Link
from edgepack.agent.serve.registry import Registry
from edgepack.agent.serve.requests import Answer, to_inputs, to_tensors
from edgepack.agent.serve.served import ServedModel
from edgepack.monitor.drift import DriftResult
from edgepack.runtime import EngineError, InputError
from edgepack.runtime.tensors import Array
from edgepack.wire.errors import WireError
from edgepack.wire.infer import InferRequest, parse_request, parse_truth, render_response
from edgepack.wire.messages import render_flat
from edgepack.wire.topics import DeviceTopics, model_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reply:
    topic: str
    correlation: bytes | None


class RequestServer:
    """Answers `in/infer/<model>` and takes `in/truth/<model>`.

    Args:
        registry: The models.
        topics: This device's topics.
        config: Which predictions are published besides replies.
        pending: Largest number of requests that wait or run.
        drifted: Called with the model's name when inputs completed a window.
    """

    def __init__(
        self,
        registry: Registry,
        topics: DeviceTopics,
        config: PredictionsConfig,
        *,
        pending: int,
        drifted: Callable[[str, DriftResult], None],
    ) -> None:
        self._registry = registry
        self._topics = topics
        self._config = config
        self._pending = pending
        self._drifted = drifted
        self._tasks: set[asyncio.Task[None]] = set()
        self._flooded = False
        self._last: dict[str, tuple[float, Answer]] = {}
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
            served = self._registry.get(model_of(message.topic))
            if served is None or not served.truth(parse_truth(message.payload)):
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
            reply = _Reply(self._topics.prediction(name), None)
            reply = self._reply_to(message, reply)
            request = parse_request(message.payload)
            await self._predict(self._served(name), name, request, reply)
        except (WireError, InputError, EngineError) as exc:
            await self._refuse(reply, request.request_id if request else None, str(exc))
        except Exception:  # one request must not go unanswered for a defect of ours
            logger.exception("request.defect topic=%s", message.topic)
            await self._refuse(reply, None, "the device failed; its log tells why")

    def _served(self, name: str) -> ServedModel:
        served = self._registry.get(name)
        if served is None:
            raise WireError(f"model {name!r} is not on this device")
        if len(self._tasks) > self._pending:
            raise WireError(f"device is busy: {self._pending} requests are waiting")
        return served

    async def _predict(
        self, served: ServedModel, name: str, request: InferRequest, reply: _Reply
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            inputs = to_inputs(request, served.contract)
            if any(array.shape[0] == 0 for array in inputs.values()):
                raise InputError("request must have at least one sample, got 0")  # noqa: TRY301
            outputs = await loop.run_in_executor(self._registry.executor, served.predict, inputs)
        except (InputError, EngineError) as exc:
            served.failed(exc)
            if isinstance(exc, EngineError):
                logger.exception("request.failed model=%s", name)
            raise
        answer = served.answered(request.request_id, inputs, outputs)
        version = served.installed.release.version
        payload = _render(name, version, request, answer, outputs)
        await self._send(reply.topic, payload, reply.correlation)
        own = self._topics.prediction(name)
        if reply.topic != own and self._is_due(name, answer):
            await self._send(own, _flat(version, None, answer), None)
        self._registry.mirror(name, inputs, outputs)
        result = served.observe(inputs)
        if result is not None:
            self._drifted(name, result)

    def _reply_to(self, message: Incoming, default: _Reply) -> _Reply:
        if message.response_topic is None:
            return default
        topic = check_response_topic(self._topics, message.response_topic)
        return _Reply(topic, message.correlation)

    def _is_due(self, name: str, answer: Answer) -> bool:
        """Whether the policy wants this prediction on `out/prediction`, beside the reply."""
        if self._config.publish is Publish.NONE:
            return False
        now_s = time.monotonic()
        at_s, last = self._last.get(name, (-1e9, None))
        early = now_s - at_s < self._config.interval_s
        same = last is not None and (last.label, last.value) == (answer.label, answer.value)
        if self._config.publish is not Publish.ALL and (
            early or (same and self._config.publish is Publish.ON_CHANGE)
        ):
            return False
        self._last[name] = (now_s, answer)
        return True

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


def _render(
    name: str,
    version: str,
    request: InferRequest,
    answer: Answer,
    outputs: dict[str, Array],
) -> bytes:
    if request.tensors is not None:
        return render_response(name, version, request.request_id, to_tensors(outputs))
    return _flat(version, request.request_id, answer)


def _flat(version: str, request_id: str | None, answer: Answer) -> bytes:
    return render_flat(
        {
            **answer.fields(),
            "request_id": request_id,
            "model_version": version,
            "ts": time.time_ns() // 1_000_000,
        }
    )
