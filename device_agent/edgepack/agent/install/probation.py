"""After the switch: a new version is confirmed when it has proven itself, or goes.

Errors of callers never count against a model; failures of the engine do.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import StoreError
from edgepack.agent.install.recover import rolled_back, serve_or_roll_back
from edgepack.agent.install.serving import Counters, Serving
from edgepack.agent.install.slot import Slot
from edgepack.agent.install.slots import Slots

logger = logging.getLogger(__name__)

_RETRY_S = 30.0


class Probations:
    """Watches the models that are not proven yet, one task each.

    Args:
        config: When a version counts as proven.
        slots: The slots.
        serving: Answers requests.
        layout: The store.
        busy: Held while a slot changes.
        floor_of: The floor that the desired state demands together with a slot's active version.
    """

    def __init__(
        self,
        config: ProbationConfig,
        slots: Slots,
        serving: Serving,
        layout: Path,
        *,
        busy: asyncio.Lock,
        floor_of: Callable[[Slot], int],
    ) -> None:
        self._config = config
        self._slots = slots
        self._serving = serving
        self._layout = layout
        self._busy = busy
        self._floor_of = floor_of
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, name: str) -> None:
        """Begin (again) to judge the active version of a model."""
        self.cancel(name)
        task = asyncio.create_task(self._watch(name), name=f"probation {name}")
        task.add_done_callback(_check)
        self._tasks[name] = task

    def cancel(self, name: str) -> None:
        """Stop judging; the slot stays as it is."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    def stop(self) -> None:
        """Stop judging any model."""
        for name in list(self._tasks):
            self.cancel(name)

    async def _watch(self, name: str) -> None:
        config = self._config
        counters = self._serving.probation(name)
        allowed = int(config.max_error_rate * config.requests)
        await counters.settled(config.requests, allowed, timeout_s=config.seconds)
        while True:
            try:
                await self._judge(name, counters)
            except StoreError as exc:  # what cannot be remembered is not decided
                logger.warning("probation.storage model=%s error=%s", name, exc)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _judge(self, name: str, counters: Counters) -> None:
        config = self._config
        async with self._busy:
            answered, failures = counters.requests, counters.failures
            slot = self._slots[name]
            if failures > config.max_error_rate * max(1, answered + failures):
                logger.warning("probation.failed model=%s failures=%d", name, failures)
                detail = f"{failures} of {answered + failures} requests failed on probation"
                generation = self._slots.generation
                self._slots.save(rolled_back(slot, "probation_errors", detail, generation))
                await serve_or_roll_back(self._slots, self._serving, self._layout, name)
            else:
                detail = "" if answered else "unexercised: no request during probation"
                self._slots.save(slot.confirm(detail, self._floor_of(slot)))
            self._slots.collect()
            self._tasks.pop(name, None)
            if self._slots[name].is_unproven:  # the version before was not proven either
                self.watch(name)


def _check(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("probation.defect", exc_info=task.exception())
