"""After a start on other hardware or with another engine: what answers is tested again.

The variant that was the fastest, or right at all, may no longer be. What answers goes on answering
meanwhile, and also when the test fails: there is nothing better to put in its place, but it is
said.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgepack.agent.errors import RejectedError, StoreError
from edgepack.agent.install.findings import Chosen
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.serving import Serving
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.transitions import IN_PROGRESS
from edgepack.agent.install.worker import Worker
from edgepack.trust.errors import EdgepackError

logger = logging.getLogger(__name__)


class Retests:
    """Tests again what was tested under other circumstances, once after each start.

    Args:
        slots: The slots.
        journal: Knows the bundles on disk.
        worker: Self-tests in a child process.
        serving: Answers requests.
        layout: The store.
        testing: Held while anything is tested.
        fingerprint: Tells the circumstances; called on a thread.
        swapped: Told the key of a slot whose answers come from a new session.
        notice: Told what a person should know; empty when it is over.
    """

    def __init__(
        self,
        slots: Slots,
        journal: Journal,
        worker: Worker,
        serving: Serving,
        layout: Path,
        *,
        testing: asyncio.Lock,
        fingerprint: Callable[[], str],
        swapped: Callable[[str], None],
        notice: Callable[[str], None],
    ) -> None:
        self._slots = slots
        self._journal = journal
        self._worker = worker
        self._serving = serving
        self._layout = layout
        self._testing = testing
        self._fingerprint = fingerprint
        self._swapped = swapped
        self._notice = notice

    async def run(self) -> None:
        """Look at every slot once."""
        now = await asyncio.to_thread(self._fingerprint)
        failures = []
        for key in list(self._slots.by_key):
            slot = self._slots.by_key.get(key)
            if slot is None or slot.active is None or slot.active.fingerprint == now:
                continue
            if slot.shadow:  # a challenger answers nobody
                continue
            if slot.phase in IN_PROGRESS:  # what is being installed is tested in any case
                continue
            logger.info("retest.started model=%s before=%s", key, slot.active.fingerprint)
            try:
                await self._retest(key, slot.active)
            except StoreError as exc:
                logger.warning("retest.storage model=%s error=%s", key, exc)
            except EdgepackError as exc:
                logger.warning("retest.failed model=%s error=%s", key, exc)
                failures.append(f"{key}: {exc}")
        self._notice("; ".join(failures))

    async def _retest(self, key: str, active: Installed) -> None:
        stored = self._journal.bundles().get(active.digest)
        if stored is None:
            return
        async with self._testing:
            chosen = await self._worker.self_test(self._layout, stored)
        async with self._slots.lock(key):
            slot = self._slots.by_key.get(key)
            if slot is None or slot.active is None or slot.active.digest != active.digest:
                return  # another version took its place meanwhile
            active = slot.active  # it may have been confirmed meanwhile
            found = _as_tested(active, chosen)
            changed = slot.retested(found)
            if (found.variant, found.options) != (active.variant, active.options):
                await self._swap(changed)
            self._slots.save(changed)
            logger.info("retest.done model=%s variant=%s", key, found.variant)

    async def _swap(self, slot: Slot) -> None:
        try:
            await self._serving.serve(slot, self._layout)
        except EdgepackError as exc:
            raise RejectedError("load_failed", str(exc)) from exc
        self._swapped(slot.key)


def _as_tested(installed: Installed, chosen: Chosen) -> Installed:
    return replace(
        installed,
        variant=chosen.variant,
        self_test=chosen.figures,
        options=chosen.options,
        not_chosen=chosen.failed,
        fingerprint=chosen.fingerprint,
    )
