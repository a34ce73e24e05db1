"""Makes what agent.toml's `[[input]]`, `[[action]]` and `[log]` ask for.

Imported only where there is one of them.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from edgepack.agent.config import AgentConfig, BrokerConfig
from edgepack.agent.errors import UnknownModelError
from edgepack.agent.feed.actor import Actor
from edgepack.agent.feed.brokers import Brokers
from edgepack.agent.feed.complaints import Complaints
from edgepack.agent.feed.feeder import Feeder, figures
from edgepack.agent.feed.prediction_log import PredictionLog
from edgepack.agent.link import Incoming, Link
from edgepack.agent.serve.inference import Inference, Prediction
from edgepack.bundle.contract import Contract
from edgepack.wire.filters import fewest, match
from edgepack.wire.messages import Scalar
from edgepack.wire.topics import DeviceTopics

logger = logging.getLogger(__name__)

_RETRY_S: Final = 30.0


class Feeds:
    """All inputs and actions of an agent, and its log of predictions.

    Args:
        config: agent.toml.
        topics: This device's topics.
        inference: Has samples answered, and tells of all predictions.
        notice: Tells a person what does not fit, by kind; empty when it is over.
    """

    def __init__(
        self,
        config: AgentConfig,
        topics: DeviceTopics,
        inference: Inference,
        notice: Callable[[str, str], None],
    ) -> None:
        self._config = config
        self._topics = topics
        self._inference = inference
        self._notice = notice
        complaints = Complaints("feed.rejected")
        self._feeders = [Feeder(one, inference, complaints) for one in config.input]
        self._actors: list[Actor] = []
        self._log = PredictionLog(config.log) if config.log.predictions else None
        self._links: list[Link] = []

    @property
    def filters(self) -> list[str]:
        """What has to be subscribed to on the agent's own broker."""
        return self._filters_of(None)

    def connect(self, own: Link, client_id: str) -> None:
        """Make the connections to other brokers; called once, before `run`."""
        brokers = Brokers(own, client_id)
        named = [one.broker for one in self._config.input]
        named += [one.broker for one in self._config.action]
        for broker in dict.fromkeys(broker for broker in named if broker is not None):
            brokers.add(broker, self._filters_of(broker), partial(self.take, broker=broker))
        self._links = brokers.others()
        complaints = Complaints("action.lost")
        for one in self._config.action:
            actor = Actor(one, self._topics, brokers.link(one.broker), complaints)
            self._actors.append(actor)
            self._inference.listeners.append(actor.take)
        if self._log is not None:
            self._inference.listeners.append(self._keep)

    def model_changed(self, name: str) -> None:
        """Another version of a model answers, or none."""
        for feeder in self._feeders:
            if feeder.config.model == name:
                feeder.check()
        for actor in self._actors:
            if actor.config.model == name:
                actor.check(self._contract(name))
        self._notice("input", "; ".join(one.problem for one in self._feeders if one.problem))
        self._notice("action", "; ".join(one.problem for one in self._actors if one.problem))

    def take(self, message: Incoming, broker: BrokerConfig | None = None) -> None:
        """Take a message of a broker; returns at once."""
        for feeder in self._feeders:
            if feeder.config.broker == broker and any(
                match(text, message.topic) is not None for text in feeder.config.filters
            ):
                feeder.offer(message.payload, message.topic, is_retained=message.retained)

    def figures(self, model: str) -> dict[str, Scalar | None]:
        """Flat figures of a model's inputs and actions."""
        feeders = [feeder for feeder in self._feeders if feeder.config.model == model]
        actors = [actor for actor in self._actors if actor.config.model == model]
        found = figures(feeders) if feeders else {}
        if actors:
            found["actions"] = sum(actor.done for actor in actors)
            found["actions_lost"] = sum(actor.lost for actor in actors)
        if self._log is not None and self._log.dropped:
            found["log_dropped"] = self._log.dropped  # of all models
        return found

    async def run(self) -> None:
        """Feed and act until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait())  # a source may end; the agent does not
            for link in self._links:
                tasks.create_task(link.run())
            for actor in self._actors:
                tasks.create_task(actor.run())
            if self._log is not None:
                tasks.create_task(self._log.run())
            for feeder in self._feeders:
                tasks.create_task(self._keep_feeding(feeder))

    def close(self) -> None:
        """Write what waits for the log."""
        if self._log is not None:
            self._log.close()

    async def _keep_feeding(self, feeder: Feeder) -> None:
        """A source that fails costs nothing but itself, and is tried again."""
        while True:
            try:
                await self._source(feeder)
            except (OSError, ValueError) as exc:  # ValueError: standard input is closed
                logger.warning("feed.unusable name=%s error=%s", feeder.config.name, exc)
            except Exception:  # a defect of ours must not end the agent
                logger.exception("feed.defect name=%s", feeder.config.name)
            else:
                return
            await asyncio.sleep(_RETRY_S)

    async def _source(self, feeder: Feeder) -> None:
        config = feeder.config
        if config.files is not None:
            from edgepack.agent.feed.folder_source import FolderSource

            await FolderSource(config.files, feeder).run()
        elif config.stdin or config.socket is not None:
            from edgepack.agent.feed.line_source import LineSocket, read_stdin

            if config.stdin:
                await read_stdin(feeder)
            else:
                await LineSocket(Path(config.socket or ""), feeder).run()
        else:
            await feeder.run()

    def _keep(self, prediction: Prediction) -> None:
        contract = self._contract(prediction.model)
        if self._log is not None:
            self._log.take(prediction, contract.inputs if contract else ())

    def _contract(self, model: str) -> Contract | None:
        try:
            return self._inference.served(model).contract
        except UnknownModelError:
            return None

    def _filters_of(self, broker: BrokerConfig | None) -> list[str]:
        return fewest(
            text for one in self._config.input if one.broker == broker for text in one.filters
        )
