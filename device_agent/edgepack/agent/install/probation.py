"""After the switch: a new version is confirmed when it has proven itself, or goes.

Whether is `judge.py`; this waits, and carries out.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import StoreError
from edgepack.agent.install.judge import Figures, Outcome, Verdict, judge
from edgepack.agent.install.recover import rolled_back, serve_or_roll_back
from edgepack.agent.install.serving import Serving
from edgepack.agent.install.slot import Slot
from edgepack.agent.install.slots import Slots

logger = logging.getLogger(__name__)

_RETRY_S = 30.0
_LOOK_S = 0.05


class Probations:
    """Watches the models that are not proven yet, one task each.

    Args:
        limits: When a version counts as proven.
        slots: The slots.
        serving: Answers requests.
        layout: The store.
        floor_of: The floor that the desired state demands together with a slot's active version.
        decided: Called when a version was confirmed or rolled back.
    """

    def __init__(
        self,
        limits: ProbationConfig,
        slots: Slots,
        serving: Serving,
        layout: Path,
        *,
        floor_of: Callable[[Slot], int],
        decided: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._slots = slots
        self._serving = serving
        self._layout = layout
        self._floor_of = floor_of
        self._decided = decided
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
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._limits.seconds
        while True:
            verdict = self._verdict(name, time_is_up=loop.time() >= deadline_s)
            try:
                if verdict.outcome is not Outcome.WAIT and await self._carry_out(name, verdict):
                    return
            except StoreError as exc:  # what cannot be remembered is not decided
                logger.warning("probation.storage model=%s error=%s", name, exc)
                await asyncio.sleep(_RETRY_S)
            counters = self._serving.counters(name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline_s):
                    if counters is None:
                        await asyncio.sleep(self._limits.seconds)
                    else:
                        await counters.changed()
                        await asyncio.sleep(_LOOK_S)  # not after every single answer

    def _verdict(self, name: str, *, time_is_up: bool) -> Verdict:
        counters = self._serving.counters(name)
        new = counters.figures() if counters is not None else Figures()
        return judge(new, self._slots[name].baseline, self._limits, time_is_up=time_is_up)

    async def _carry_out(self, name: str, verdict: Verdict) -> bool:
        """Whether nothing is left to decide; a version that was judged may be gone by now."""
        judged = self._slots[name].active
        async with self._slots.lock(name):
            slot = self._slots[name]
            if slot.active != judged:
                return False
            if verdict.outcome is Outcome.ROLL_BACK:
                logger.warning("probation.failed model=%s detail=%s", name, verdict.detail)
                gone = rolled_back(slot, verdict.reason, verdict.detail, self._slots.now_s())
                self._slots.save(gone)
                await serve_or_roll_back(self._slots, self._serving, self._layout, name)
            else:
                self._slots.save(slot.confirm(verdict.detail, self._floor_of(slot)))
            self._slots.collect()
            self._tasks.pop(name, None)
            if self._slots[name].is_unproven:  # the version before was not proven either
                self.watch(name)
            self._decided()
            return True


def _check(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("probation.defect", exc_info=task.exception())
