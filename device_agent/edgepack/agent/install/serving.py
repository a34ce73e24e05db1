"""What the installer asks of whatever answers requests."""

from pathlib import Path
from typing import Protocol

from edgepack.agent.install.slot import Slot


class Counters(Protocol):
    """How a model does since it was switched to."""

    requests: int
    failures: int

    async def settled(self, requests: int, failures: int, *, timeout_s: float) -> None:
        """Return after so many answers, more than so many failures, or the time."""


class Serving(Protocol):
    """What answers requests; the installer swaps models in it."""

    async def serve(self, slot: Slot, layout: Path) -> None:
        """Load the slot's active bundle and let it answer, instead of what answered before."""

    def stop(self, name: str) -> None:
        """Stop answering for a model."""

    def probation(self, name: str) -> Counters:
        """The counters of the model that answers now."""
