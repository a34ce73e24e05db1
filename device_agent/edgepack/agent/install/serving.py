"""What the installer asks of whatever answers requests."""

from pathlib import Path
from typing import Protocol

from edgepack.agent.install.judge import Figures
from edgepack.agent.install.slot import Slot


class Counters(Protocol):
    """How a model does since it was switched to."""

    def figures(self) -> Figures:
        """What was counted; truths only where their source is trusted."""

    async def changed(self) -> None:
        """Return when something was counted since the last call."""


class Serving(Protocol):
    """What answers requests; the installer swaps models in it."""

    async def serve(self, slot: Slot, layout: Path) -> None:
        """Load the slot's active bundle and let it answer, instead of what answered before."""

    def stop(self, name: str) -> None:
        """Stop answering for a model."""

    def counters(self, name: str) -> Counters | None:
        """The counters of the model that answers now, or None."""


class Challengers(Protocol):
    """What runs challengers beside the models that answer."""

    async def cast(self, slot: Slot) -> None:
        """Let the slot's active bundle see what the model beside it sees.

        Raises:
            RejectedError: It does not fit that model, or does not load.
        """

    def stop(self, name: str) -> None:
        """End the challenger beside a model, if there is one."""
