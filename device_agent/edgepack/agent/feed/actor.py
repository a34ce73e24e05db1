"""Publishes what actions ask for: on a broker, at once or not at all.

What could not be published within `LATE_S` is worth nothing any more and is dropped: a machine must
not be stopped for what its sensor said an hour ago. No action ever starts a program.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from edgepack.agent.config.actions import ActionConfig, ResetConfig
from edgepack.agent.errors import FetchError
from edgepack.agent.feed.complaints import Complaints
from edgepack.agent.feed.condition import Condition, Decision, misfits
from edgepack.agent.feed.template import fill
from edgepack.agent.link import Link
from edgepack.agent.serve.inference import Prediction
from edgepack.agent.serve.policy import prediction_fields
from edgepack.bundle.contract import Contract
from edgepack.trust.values import dataclass
from edgepack.wire.topics import DeviceTopics

logger = logging.getLogger(__name__)

LATE_S: Final = 10.0
_RETRY_S: Final = 0.25
_MAX_WAITING: Final = 64


@dataclass(frozen=True, slots=True)
class _Order:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    until_s: float


class Actor:
    """Carries out one action.

    Args:
        config: The action.
        topics: This device's topics.
        link: The connection to its broker.
        complaints: Where what goes wrong is said.
        clock: Monotonic, in seconds.

    Attributes:
        done, lost: How many messages the broker took, and how many it did not.
        problem: Why the action can never be carried out, or "".
    """

    def __init__(
        self,
        config: ActionConfig,
        topics: DeviceTopics,
        link: Link,
        complaints: Complaints,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._topics = topics
        self._link = link
        self._complaints = complaints
        self._clock = clock
        self._condition = Condition(config)
        self._orders: asyncio.Queue[_Order] = asyncio.Queue()
        self.done = 0
        self.lost = 0
        self.problem = ""

    def check(self, contract: Contract | None) -> None:
        """Look at the model that answers now, if there is one."""
        found = "" if contract is None else misfits(self.config, contract)
        self.problem = f"action {self.config.name!r}: {found}" if found else ""

    def take(self, prediction: Prediction) -> None:
        """Look at a prediction; returns at once."""
        if prediction.model != self.config.model:
            return
        fields = {
            **prediction_fields(prediction),
            "action": self.config.name,
            "device": self._topics.device,
            "model": prediction.model,
        }
        now_s = self._clock()
        decision = self._condition.step(prediction.source, fields, now_s=now_s)
        if decision is None:
            return
        config, reset = self.config, self.config.reset or ResetConfig()
        topic, payload, qos, retain = config.topic, config.payload, config.qos, config.retain
        if decision is Decision.RESET:
            topic = topic if reset.topic is None else reset.topic
            payload = reset.payload
            qos = qos if reset.qos is None else reset.qos
            retain = retain if reset.retain is None else reset.retain
        if topic is None:
            topic = self._topics.action(config.name)
        logger.info("action.%s name=%s source=%r", decision, config.name, prediction.source)
        self._orders.put_nowait(_Order(topic, fill(payload, fields), qos, retain, now_s + LATE_S))
        if self._orders.qsize() > _MAX_WAITING:
            self._orders.get_nowait()
            self._lose("too many wait")

    async def run(self) -> None:
        """Publish until cancelled, in order."""
        while True:
            await self._publish(await self._orders.get())

    async def _publish(self, order: _Order) -> None:
        why = "the broker is not connected"
        while (left_s := order.until_s - self._clock()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._link.connected.wait()
                    await self._link.publish(
                        order.topic, order.payload, qos=order.qos, retain=order.retain
                    )
            except TimeoutError:
                break
            except FetchError as exc:
                why = str(exc)
                await asyncio.sleep(_RETRY_S)
            else:
                self.done += 1
                return
        self._lose(why)

    def _lose(self, why: str) -> None:
        self.lost += 1
        self._complaints.add(self.config.name, "lost", why)
