"""Makes what agent.toml's `[[input]]` asks for; imported only where there is one."""

import asyncio
from collections.abc import Callable
from functools import partial

from edgepack.agent.config import AgentConfig, BrokerConfig
from edgepack.agent.feed.brokers import Brokers
from edgepack.agent.feed.complaints import Complaints
from edgepack.agent.feed.feeder import Feeder, figures
from edgepack.agent.link import Incoming, Link
from edgepack.agent.serve.inference import Inference
from edgepack.wire.filters import fewest, match
from edgepack.wire.messages import Scalar


class Feeds:
    """All inputs of an agent.

    Args:
        config: agent.toml.
        inference: Has samples answered.
        notice: Tells a person what does not fit, by kind; empty when it is over.
    """

    def __init__(
        self, config: AgentConfig, inference: Inference, notice: Callable[[str, str], None]
    ) -> None:
        self._config = config
        self._notice = notice
        complaints = Complaints("feed.rejected")
        self._feeders = [Feeder(one, inference, complaints) for one in config.input]
        self._brokers: Brokers | None = None

    @property
    def filters(self) -> list[str]:
        """What has to be subscribed to on the agent's own broker."""
        return self._filters_of(None)

    def connect(self, own: Link, client_id: str) -> None:
        """Make the connections to other brokers; called once, before `run`."""
        self._brokers = Brokers(own, client_id)
        named = [one.broker for one in self._config.input if one.broker is not None]
        for broker in dict.fromkeys(named):
            self._brokers.add(broker, self._filters_of(broker), partial(self.take, broker=broker))

    def model_changed(self, name: str) -> None:
        """Another version of a model answers, or none."""
        for feeder in self._feeders:
            if feeder.config.model == name:
                feeder.check()
        problems = [feeder.problem for feeder in self._feeders if feeder.problem]
        self._notice("input", "; ".join(problems))

    def take(self, message: Incoming, broker: BrokerConfig | None = None) -> None:
        """Take a message of a broker; returns at once."""
        for feeder in self._feeders:
            if feeder.config.broker == broker and any(
                match(text, message.topic) is not None for text in feeder.config.filters
            ):
                feeder.offer(message.payload, message.topic, is_retained=message.retained)

    def figures(self, model: str) -> dict[str, Scalar | None]:
        """Flat figures of a model's inputs."""
        own = [feeder for feeder in self._feeders if feeder.config.model == model]
        return figures(own) if own else {}

    async def run(self) -> None:
        """Feed until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for link in self._brokers.others() if self._brokers else []:
                tasks.create_task(link.run())
            for feeder in self._feeders:
                tasks.create_task(feeder.run())

    def _filters_of(self, broker: BrokerConfig | None) -> list[str]:
        return fewest(
            text for one in self._config.input if one.broker == broker for text in one.filters
        )
