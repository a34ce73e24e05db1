"""Has the messages of one input answered, one after the other: their order means something."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from edgepack.agent.config.inputs import InputConfig
from edgepack.agent.errors import BusyError, UnknownModelError
from edgepack.agent.feed.complaints import Complaints
from edgepack.agent.feed.errors import MessageError, MismatchError
from edgepack.agent.feed.mapping import Mapper, Message, Sample
from edgepack.agent.feed.plan import Plan, make_plan
from edgepack.agent.serve.inference import Inference
from edgepack.bundle.contract import Contract
from edgepack.runtime import EngineError, InputError
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue, parse
from edgepack.wire.messages import Scalar

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 1024 * 1024
_MAX_WAITING: Final = 256  # messages of an input
_MAX_WAITING_BYTES: Final = 4 * 1024 * 1024


class Feeder:
    """Feeds one model from one input.

    Args:
        config: The input.
        inference: Has samples answered.
        complaints: Where what goes wrong is said.
        clock: Monotonic, in seconds.

    Attributes:
        problem: Why the input does not fit the model, or "".
    """

    def __init__(
        self,
        config: InputConfig,
        inference: Inference,
        complaints: Complaints,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._inference = inference
        self._complaints = complaints
        self._clock = clock
        self._plan: Plan | None = None
        self._mapper: Mapper | None = None
        self._ready = asyncio.Event()
        self._waiting: asyncio.Queue[tuple[bytes, str | None, bool]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._counts: Counter[str] = Counter()
        self.problem = ""

    def check(self) -> None:
        """Look at the model that answers now: called at the start and after each change."""
        try:
            contract = self._inference.served(self.config.model).contract
        except UnknownModelError:
            self._plan = self._mapper = None
            self.problem = ""
            self._ready.clear()
            return
        try:
            self._follow(contract)
        except MismatchError as exc:
            self._plan = self._mapper = None
            self.problem = f"input {self.config.name!r} does not fit the model: {exc}"
            self._ready.clear()
            return
        self.problem = ""
        self._ready.set()

    def _follow(self, contract: Contract) -> None:
        plan = make_plan(self.config, contract)
        known = self._plan
        is_same = known is not None and known.contract.inputs == contract.inputs
        if self._mapper is None or not is_same:  # else half a window would be lost
            self._mapper = Mapper(self.config, plan)
        self._plan = plan

    def offer(self, payload: bytes, topic: str, *, is_retained: bool) -> None:
        """Take a message of a broker; returns at once. The oldest go when too many wait."""
        self._counts["messages"] += 1
        self._waiting.put_nowait((payload, topic, is_retained))
        self._waiting_bytes += len(payload)
        while self._waiting.qsize() > _MAX_WAITING or self._waiting_bytes > _MAX_WAITING_BYTES:
            self._waiting_bytes -= len(self._waiting.get_nowait()[0])
            self._counts["dropped"] += 1
            self._complaints.add(self.config.name, "dropped", "messages come faster than answers")

    async def run(self) -> None:
        """Work on what was offered, until cancelled."""
        while True:
            payload, topic, is_retained = await self._waiting.get()
            self._waiting_bytes -= len(payload)
            await self._take(payload, topic, is_retained=is_retained)

    async def ready(self) -> None:
        """Return when the model is there and the input fits it: before that nothing is read."""
        await self._ready.wait()

    async def line(self, payload: bytes) -> None:
        """Take one line of JSON; returns when it is answered or refused."""
        self._counts["messages"] += 1
        await self._take(payload, None, is_retained=False)

    async def _take(self, payload: bytes, topic: str | None, *, is_retained: bool) -> None:
        try:
            for sample in self._samples(payload, topic, is_retained=is_retained):
                await self.answer(sample)
        except MessageError as exc:
            self.reject(exc)
        except Exception:  # a defect of ours must not end the feed
            self._counts["rejected"] += 1
            logger.exception("feed.defect input=%s", self.config.name)

    def _samples(self, payload: bytes, topic: str | None, *, is_retained: bool) -> list[Sample]:
        if self._mapper is None or self._plan is None:
            reason = "mismatch" if self.problem else "no_model"
            raise MessageError(reason, self.problem or f"model {self.config.model!r} is not here")
        document = _document(payload, is_plain=any(not one.path for one in self._plan.columns))
        message = Message(document=document, topic=topic, is_retained=is_retained)
        before = self._mapper.gaps
        samples = self._mapper.take(message, now_s=self._clock())
        self._counts["gaps"] += max(0, self._mapper.gaps - before)
        return samples

    async def answer(self, sample: Sample) -> None:
        """Have one sample answered.

        Raises:
            MessageError: It was not.
        """
        try:
            await self._inference.answer(
                self.config.model,
                lambda _: sample.inputs,
                request_id=sample.request_id,
                source=sample.source,
            )
        except UnknownModelError as exc:
            raise MessageError("no_model", str(exc)) from exc
        except BusyError as exc:
            raise MessageError("busy", str(exc)) from exc
        except InputError as exc:
            raise MessageError("refused", str(exc)) from exc
        except EngineError as exc:
            raise MessageError("engine", str(exc)) from exc
        self._counts["predictions"] += 1

    def reject(self, exc: MessageError) -> None:
        """Count what makes no prediction, and say it at a bounded rate."""
        self._counts["rejected"] += 1
        self._complaints.add(self.config.name, exc.reason, str(exc))

    def contract(self) -> Contract | None:
        """Of the model that the input fits, or None."""
        return None if self._plan is None else self._plan.contract

    def counted(self) -> Counter[str]:
        """`messages`, `predictions`, `rejected`, `dropped`, `gaps` since the start."""
        return self._counts

    def received(self) -> None:
        """Count a file."""
        self._counts["messages"] += 1


def figures(feeders: list[Feeder]) -> dict[str, Scalar | None]:
    """Flat figures of the inputs of one model together."""
    total: Counter[str] = Counter()
    for feeder in feeders:
        total.update(feeder.counted())
    names = ("messages", "predictions", "rejected", "dropped", "gaps")
    return {f"input_{name}": total[name] for name in names}


def _document(payload: bytes, *, is_plain: bool) -> JsonValue:
    """The message's JSON; what is none is text, where a feature takes the whole message."""
    try:
        return parse(payload, what="message", max_bytes=MAX_MESSAGE_BYTES)
    except DocumentError as exc:
        if is_plain and len(payload) <= MAX_MESSAGE_BYTES:
            return payload.decode("utf-8", "replace").strip()
        raise MessageError("not_json", str(exc)) from exc
