"""After the switch: a new version is confirmed when it has proven itself, or goes.

Whether is `judge.py`; this waits, and carries out. What was counted is kept now and then, and when
the agent stops: a device that is restarted every minute comes to a verdict all the same.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import StoreError
from edgepack.agent.install.judge import Figures, Outcome, Verdict, judge, together
from edgepack.agent.install.recover import rolled_back, serve_or_roll_back
from edgepack.agent.install.serving import Serving
from edgepack.agent.install.slot import Slot
from edgepack.agent.install.slots import Slots
from edgepack.trust.values import dataclass

logger = logging.getLogger(__name__)

_RETRY_S = 30.0
_LOOK_S = 0.05
_KEEP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    """One model's probation, as this start of the agent sees it.

    Attributes:
        task: What watches.
        began_s: When it would have begun without the restarts, by a clock that never jumps.
        earlier: What earlier starts counted.
    """

    task: "asyncio.Task[None]"
    began_s: float
    earlier: Figures


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
        self._watches: dict[str, _Watch] = {}

    def watch(self, name: str) -> None:
        """Begin (again) to judge the active version of a model."""
        self.cancel(name)
        slot = self._slots[name]
        task = asyncio.create_task(self._watch(name), name=f"probation {name}")
        task.add_done_callback(_check)
        began_s = time.monotonic() - slot.tried_s
        self._watches[name] = _Watch(task=task, began_s=began_s, earlier=slot.tried)

    def cancel(self, name: str) -> None:
        """Stop judging; the slot stays as it is."""
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.task.cancel()

    def stop(self) -> None:
        """Stop judging any model; the next start goes on from here."""
        for name in list(self._watches):
            self._keep(name)
            self.cancel(name)

    async def _watch(self, name: str) -> None:
        deadline_s = self._watches[name].began_s + self._limits.seconds
        keep_s = time.monotonic() + _KEEP_S
        while True:
            now_s = time.monotonic()
            verdict = self._verdict(name, time_is_up=now_s >= deadline_s)
            try:
                if verdict.outcome is not Outcome.WAIT and await self._carry_out(name, verdict):
                    return
            except StoreError as exc:  # what cannot be remembered is not decided
                logger.warning("probation.storage model=%s error=%s", name, exc)
                await asyncio.sleep(_RETRY_S)
            if now_s >= keep_s:
                self._keep(name)
                keep_s = now_s + _KEEP_S
            counters = self._serving.counters(name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(deadline_s, keep_s) - now_s)):
                    if counters is None:
                        await asyncio.sleep(self._limits.seconds)
                    else:
                        await counters.changed()
                        await asyncio.sleep(_LOOK_S)  # not after every single answer

    def _figures(self, name: str) -> Figures:
        counters = self._serving.counters(name)
        here = counters.figures() if counters is not None else Figures()
        return together(self._watches[name].earlier, here)

    def _verdict(self, name: str, *, time_is_up: bool) -> Verdict:
        new = self._figures(name)
        return judge(new, self._slots[name].baseline, self._limits, time_is_up=time_is_up)

    def _keep(self, name: str) -> None:
        """Remember how far a probation is."""
        watch, slot = self._watches[name], self._slots.by_key.get(name)
        if slot is None or not slot.is_unproven:
            return
        tried_s = time.monotonic() - watch.began_s
        try:
            self._slots.note(replace(slot, tried=self._figures(name), tried_s=tried_s))
        except StoreError as exc:  # a full disk only makes it longer
            logger.warning("probation.storage model=%s error=%s", name, exc)

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
            self._watches.pop(name, None)
            if self._slots[name].is_unproven:  # the version before was not proven either
                self.watch(name)
            self._decided()
            return True


def _check(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("probation.defect", exc_info=task.exception())
