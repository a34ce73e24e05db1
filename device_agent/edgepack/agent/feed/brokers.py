"""Connections to brokers besides the agent's own: one for each that inputs and actions name."""

from collections.abc import Callable, Iterable

from edgepack.agent.config import BrokerConfig
from edgepack.agent.link import Incoming, Link


class Brokers:
    """The agent's own broker and the others.

    Args:
        own: The connection to `[broker]`.
        client_id: What the ids of the other connections begin with.
    """

    def __init__(self, own: Link, client_id: str) -> None:
        self._own = own
        self._client_id = client_id
        self._others: dict[BrokerConfig, Link] = {}

    def add(
        self,
        config: BrokerConfig,
        subscriptions: Iterable[str],
        on_message: Callable[[Incoming], None],
    ) -> None:
        """Make the connection to another broker."""
        self._others[config] = Link(
            config,
            None,
            f"{self._client_id}-{len(self._others) + 1}",
            subscriptions=subscriptions,
            on_connect=_nothing,
            on_message=on_message,
        )

    def link(self, config: BrokerConfig | None) -> Link:
        """The connection to a broker that was added, or to the agent's own."""
        return self._own if config is None else self._others[config]

    def others(self) -> list[Link]:
        """The connections that have to be run."""
        return list(self._others.values())


async def _nothing() -> None:
    return None
