"""One way to an answer for every way in: MQTT, HTTP, configured inputs.

Requests are bounded; inference runs on threads, but for one sample of a model that has long been
quicker than the hand-over to a thread (ADR 17). What follows from an answer (drift, a
challenger, policies, actions) runs after whoever asked has it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgepack.agent.errors import BusyError, UnknownModelError
from edgepack.agent.serve.drift_watch import DriftWatch
from edgepack.agent.serve.pace import is_small
from edgepack.agent.serve.registry import Registry
from edgepack.agent.serve.requests import Answer
from edgepack.agent.serve.served import ServedModel
from edgepack.bundle.contract import Contract
from edgepack.runtime import EngineError, InputError
from edgepack.runtime.tensors import Array
from edgepack.trust.values import dataclass

if TYPE_CHECKING:
    from edgepack.monitor.drift import DriftResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A request that was answered.

    Attributes:
        model: The model's name.
        version: The version that answered.
        request_id: What the caller named the request, or None.
        inputs: Contract name → array, at least one sample.
        outputs: Contract name → array.
        answer: The first sample's prediction.
        is_told: Whether the answer goes to `out/prediction` anyway, as the reply.
        source: Which sensor of a configured input it comes from, or None of a request.
    """

    model: str
    version: str
    request_id: str | None
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    answer: Answer
    is_told: bool
    source: str | None = None


class Inference:
    """Has requests answered by the models of this device.

    Args:
        registry: The models.
        pending: Largest number of requests that wait or run.
        drifted: Called with the model's name when inputs completed a window.

    Attributes:
        listeners: Each is called on the event loop with every prediction, after its reply; what
            one raises is logged and costs nobody else anything.
        running: Requests that wait or run now.
        finished: Requests that ended since the start, however they ended.
    """

    def __init__(
        self, registry: Registry, *, pending: int, drifted: "Callable[[str, DriftResult], None]"
    ) -> None:
        self._registry = registry
        self._pending = pending
        self._watch = DriftWatch(drifted)
        self.listeners: list[Callable[[Prediction], None]] = []
        self.running = 0
        self.finished = 0

    def served(self, name: str) -> ServedModel:
        """The model that answers under a name.

        Raises:
            UnknownModelError: There is none.
        """
        served = self._registry.get(name)
        if served is None:
            raise UnknownModelError(f"model {name!r} is not on this device")
        return served

    async def answer(
        self,
        name: str,
        to_inputs: Callable[[Contract], Mapping[str, Array]],
        *,
        request_id: str | None = None,
        is_told: bool = False,
        source: str | None = None,
    ) -> Prediction:
        """Answer one request.

        Args:
            name: The model's name.
            to_inputs: Makes contract name → array; at least one sample. Its InputError is
                counted as a caller's.
            request_id: What a truth will name.
            is_told: Whether the reply is on `out/prediction`.
            source: Which sensor of a configured input it comes from.

        Raises:
            UnknownModelError: There is no such model.
            BusyError: Too many requests wait already.
            InputError: The caller's fault; never counts against the model.
            EngineError: The model's fault.
        """
        served = self.served(name)
        if self.running >= self._pending:
            raise BusyError(f"device is busy: {self._pending} requests are waiting")
        loop = asyncio.get_running_loop()
        self.running += 1
        try:
            inputs = to_inputs(served.contract)
            is_one = is_small(inputs)
            if not is_one and any(array.shape[:1] == (0,) for array in inputs.values()):
                raise InputError("request must have at least one sample, got 0")  # noqa: TRY301
            if is_one and served.is_quick:
                outputs = served.predict_one(inputs)
            else:
                work = served.predict_one if is_one else served.predict
                outputs = await loop.run_in_executor(self._registry.executor, work, inputs)
        except (InputError, EngineError) as exc:
            served.failed(exc)
            if isinstance(exc, EngineError):
                logger.exception("request.failed model=%s", name)
            raise
        finally:
            self.running -= 1
            self.finished += 1
        prediction = Prediction(
            model=name,
            version=served.installed.release.version,
            request_id=request_id,
            inputs=inputs,
            outputs=outputs,
            answer=served.answered(request_id, inputs, outputs),
            is_told=is_told,
            source=source,
        )
        loop.call_soon(self._follow_up, served, prediction)
        return prediction

    def _follow_up(self, served: ServedModel, prediction: Prediction) -> None:
        for listener in self.listeners:
            try:
                listener(prediction)
            except Exception:  # a defect of one must not cost the others
                logger.exception("prediction.defect model=%s", prediction.model)
        self._registry.mirror(prediction.model, prediction.inputs, prediction.outputs)
        self._watch.add(served, prediction.inputs)
