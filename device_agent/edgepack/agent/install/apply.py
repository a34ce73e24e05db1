"""Carries out what `reconcile` decided, step by step, one action at a time.

Every step is in the journal before the next one begins, so that a kill at any point leaves a
device that serves its last good model and knows what to do.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import FetchError, RejectedError, StoreError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.fetch import Fetched, Fetcher
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.obtain import Obtainer
from edgepack.agent.install.probation import Probations
from edgepack.agent.install.reconcile import Action, Install, Refuse, Remove, reconcile
from edgepack.agent.install.serving import Serving
from edgepack.agent.install.slot import Installed, Slot
from edgepack.agent.install.slots import Announcer, Slots
from edgepack.agent.install.transitions import IN_PROGRESS, Phase
from edgepack.agent.install.worker import Worker
from edgepack.trust.errors import EdgepackError
from edgepack.wire.desired import Desired, DesiredModel
from edgepack.wire.messages import Release

logger = logging.getLogger(__name__)

_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 300.0


class Installer:
    """Brings the slots to the desired state.

    Args:
        slots: What is there.
        journal: The agent's memory.
        blobs: The store.
        fetcher: Gets bundles.
        worker: Verifies and self-tests in child processes.
        serving: Answers requests.
        announcer: Tells what happens.
        probation: When a new version counts as proven.
        now_s: Seconds since 1970, to compare an expiry with; None when the clock cannot be right.
    """

    def __init__(
        self,
        *,
        slots: Slots,
        journal: Journal,
        blobs: BlobStore,
        fetcher: Fetcher,
        worker: Worker,
        serving: Serving,
        announcer: Announcer,
        probation: ProbationConfig,
        now_s: Callable[[], float | None] = time.time,
    ) -> None:
        self._now_s = now_s
        self._blobs = blobs
        self._worker = worker
        self._serving = serving
        self._announcer = announcer
        self._busy = asyncio.Lock()
        self.slots = slots
        self._obtainer = Obtainer(journal, blobs, fetcher, worker, self.slots)
        self._probations = Probations(
            probation,
            self.slots,
            serving,
            blobs.layout,
            busy=self._busy,
            floor_of=self._floor_of,
        )
        self._desired: Desired | None = None
        self._wake = asyncio.Event()
        self._retry_s = _FIRST_RETRY_S
        self._retry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Go on with what was on probation before this start."""
        with contextlib.suppress(StoreError):  # said again by the first fetch
            self._blobs.clear_staging()
        for name, slot in self.slots.by_name.items():
            if slot.is_unproven:
                self._probations.watch(name)

    def desire(self, desired: Desired) -> None:
        """Follow this desired state from now on; its signature was verified."""
        self._desired = desired
        self.slots.generation = desired.generation
        self._retry_s = _FIRST_RETRY_S
        self._obtainer.give_up_unless({model.digest for model in desired.models})
        self._wake.set()

    def abandon(self) -> None:
        """Follow no desired state until the next one: this one is no longer vouched for.

        What answers goes on answering; what was being fetched is left.
        """
        self._desired = None
        self._obtainer.give_up_unless(set())

    def reconsider(self) -> None:
        """Reconcile again: the desired state is unchanged, the world may not be."""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile whenever something changed, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            desired = self._desired
            if desired is None:
                continue
            self._blobs.discard_staging_except({model.digest for model in desired.models})
            refusals = []
            for action in reconcile(desired, self.slots.by_name, now_s=self._now_s()):
                if self._desired is not desired:
                    break  # what was decided for the old state is not done under the new one
                if isinstance(action, Refuse):
                    refusals.append(f"{action.name}: {action.detail}")
                    continue
                try:
                    await self._carry_out(action, desired.generation)
                except StoreError as exc:
                    logger.warning("install.storage error=%s", exc)
                    refusals.append(str(exc))
                    self._retry_later()
            else:
                self._announcer.refused("; ".join(refusals))

    async def install_file(self, path: Path) -> Slot:
        """Install a file that somebody brought to the device; holds against the desired state.

        Returns:
            The slot, in `probation` or `rejected`.

        Raises:
            RejectedError: The file is not a bundle that the root of trust accepts; there is no
                slot to report it in when not even its name can be believed.
            StoreError: The disk does not take it.
        """
        async with self._busy:
            stored = await self._obtainer.take_file(path)
            slot = self.slots.get(stored.name)
            if slot.active is None or slot.active.digest != stored.digest:
                model = DesiredModel(name=stored.name, version=stored.version, digest=stored.digest)
                self._begin(slot, stored.digest)
                generation = self.slots.generation
                await self._try_out(model, None, generation, held_generation=generation)
            return self.slots[stored.name]

    def stop(self) -> None:
        """Let go of everything that waits; what is on disk says where to go on."""
        self._probations.stop()
        if self._retry is not None:
            self._retry.cancel()
        self._obtainer.give_up_unless(set())

    async def _carry_out(self, action: Action, generation: int) -> None:
        if isinstance(action, Remove):
            async with self._busy:
                self._probations.cancel(action.name)
                self._serving.stop(action.name)
                self.slots.remove(action.name)
        elif isinstance(action, Install):
            await self._install(action.model, generation)

    async def _install(self, model: DesiredModel, generation: int) -> None:
        async with self._busy:
            slot = self.slots.get(model.name)
            self._begin(replace(slot, held_generation=None, managed=True), model.digest)
        # Not under the lock: over a slow line this takes hours, and meanwhile a failing version
        # must be rolled back and a file may be installed.
        try:
            fetched = await self._obtainer.fetch(model)
        except (FetchError, RejectedError) as exc:
            async with self._busy:
                if self._is_fetching(model):
                    self._failed(model, exc, generation)
            return
        async with self._busy:
            if self._is_fetching(model):
                await self._try_out(model, fetched, generation, held_generation=None)
            else:
                self._wake.set()  # decide anew

    def _begin(self, slot: Slot, digest: str) -> None:
        if slot.phase in IN_PROGRESS:
            slot = slot.recover(unclean=False)
        self.slots.save(slot.start(digest))

    def _is_fetching(self, model: DesiredModel) -> bool:
        slot = self.slots.get(model.name)
        return slot.phase is Phase.FETCHING and slot.target == model.digest

    async def _try_out(
        self,
        model: DesiredModel,
        fetched: Fetched | None,
        generation: int,
        *,
        held_generation: int | None,
    ) -> None:
        name = model.name
        try:
            stored = await self._obtainer.verify(model, fetched)
            chosen = await self._worker.self_test(self._blobs.layout, stored)
            self.slots.save(self.slots[name].advance())  # switching
            release = Release(
                digest=stored.digest, version=stored.version, sequence=stored.sequence
            )
            installed = Installed(
                release=release,
                variant=chosen.variant,
                signatures=stored.signatures,
                self_test=chosen.figures,
                options=chosen.options,
                not_chosen=chosen.failed,
                fingerprint=chosen.fingerprint,
            )
            await self._switch(name, installed, held_generation)
        except (FetchError, RejectedError) as exc:
            self._failed(model, exc, generation)
        else:
            self._retry_s = _FIRST_RETRY_S
            self._probations.watch(name)

    def _failed(
        self, model: DesiredModel, exc: FetchError | RejectedError, generation: int
    ) -> None:
        slot = self.slots[model.name]
        if isinstance(exc, FetchError):
            self.slots.save(replace(slot, detail=str(exc)))
            self._retry_later()
            return
        logger.warning("install.rejected model=%s reason=%s detail=%s", slot.name, exc.reason, exc)
        self.slots.save(slot.reject(exc.reason, str(exc), generation))
        self._blobs.discard_staging(model.digest)
        self.slots.collect()

    async def _switch(self, name: str, installed: Installed, held_generation: int | None) -> None:
        switched = replace(self.slots[name].switch(installed), held_generation=held_generation)
        try:
            await self._serving.serve(switched, self._blobs.layout)
        except RejectedError:
            raise
        except EdgepackError as exc:
            raise RejectedError("load_failed", str(exc)) from exc
        self.slots.save(switched)

    def _floor_of(self, slot: Slot) -> int:
        models = self._desired.models if self._desired else ()
        active = slot.active.digest if slot.active else ""
        return max((model.floor for model in models if model.digest == active), default=0)

    def _retry_later(self) -> None:
        if self._retry is not None:
            self._retry.cancel()  # one timer for all models: two that fail must not breed timers
        self._retry = asyncio.get_running_loop().call_later(self._retry_s, self._wake.set)
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
