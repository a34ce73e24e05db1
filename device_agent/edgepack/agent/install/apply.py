"""The only place that changes a slot: carries out what `reconcile` decided, step by step.

Every step is in the journal before the next one begins, so that a kill at any point leaves a
device that serves its last good model and knows what to do.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from edgepack.agent.config import ProbationConfig
from edgepack.agent.errors import FetchError, RejectedError, StoreError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.fetch import Fetched, Fetcher
from edgepack.agent.install.journal import Journal, Stored
from edgepack.agent.install.reconcile import Action, Install, Refuse, Remove, reconcile
from edgepack.agent.install.slot import MAX_UNCLEAN_EXITS, Installed, Slot
from edgepack.agent.install.transitions import IN_PROGRESS, Phase
from edgepack.agent.install.worker import Verified, Worker
from edgepack.bundle import BundleError, open_layout
from edgepack.trust.errors import EdgepackError
from edgepack.wire.desired import Desired, DesiredModel
from edgepack.wire.messages import Release

logger = logging.getLogger(__name__)

_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 300.0


class Probation(Protocol):
    """What the installer asks of a model on probation."""

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

    def probation(self, name: str) -> Probation:
        """The counters of the model that answers now."""


class Announcer(Protocol):
    """What tells the world."""

    def slot_changed(self, slot: Slot) -> None:
        """A slot went to another phase."""

    def slot_removed(self, name: str) -> None:
        """A model is gone."""

    def refused(self, detail: str) -> None:
        """A desired state is not followed; empty when it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One install: what, by whose wish, and a local file if it is there already."""

    model: DesiredModel
    managed: bool
    file: Path | None = None


class Installer:
    """Brings the slots to the desired state, one action at a time.

    Args:
        journal: The agent's memory.
        blobs: The store.
        fetcher: Gets bundles.
        worker: Verifies and self-tests in child processes.
        serving: Answers requests.
        announcer: Tells what happens.
        probation: When a new version counts as proven.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        blobs: BlobStore,
        fetcher: Fetcher,
        worker: Worker,
        serving: Serving,
        announcer: Announcer,
        probation: ProbationConfig,
    ) -> None:
        self._journal = journal
        self._blobs = blobs
        self._fetcher = fetcher
        self._worker = worker
        self._serving = serving
        self._announcer = announcer
        self._probation = probation
        self.slots = journal.slots()
        self._desired: Desired | None = None
        self._wake = asyncio.Event()
        self._busy = asyncio.Lock()
        self._fetching: asyncio.Task[Fetched] | None = None
        self._probations: dict[str, asyncio.Task[None]] = {}
        self._retry_s = _FIRST_RETRY_S

    async def start(self, *, unclean: bool) -> None:
        """After a restart: every model that worked answers again, without the network.

        Args:
            unclean: True when the agent did not end by itself last time.
        """
        self._blobs.clear_staging()
        for name, slot in list(self.slots.items()):
            recovered = slot.recover(unclean=unclean)
            if recovered.active and recovered.unclean_exits >= MAX_UNCLEAN_EXITS:
                detail = f"the agent ended uncleanly {recovered.unclean_exits} times on probation"
                recovered = recovered.roll_back("unclean_exits", detail, self._generation)
            if recovered != slot:
                self._save(recovered)
            await self._serve_or_roll_back(name)
            if self.slots[name].phase is Phase.PROBATION:
                self._watch_probation(name)

    def desire(self, desired: Desired) -> None:
        """Follow this desired state from now on; its signature was verified."""
        self._desired = desired
        self._retry_s = _FIRST_RETRY_S
        wanted = {model.digest for model in desired.models}
        if self._fetching is not None and self._fetching.get_name() not in wanted:
            self._fetching.cancel()
        self._wake.set()

    async def run(self) -> None:
        """Reconcile whenever something changed, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._desired is None:
                continue
            refusals = []
            for action in reconcile(self._desired, self.slots, now_s=time.time()):
                if isinstance(action, Refuse):
                    refusals.append(f"{action.name}: {action.detail}")
                    continue
                try:
                    async with self._busy:
                        await self._carry_out(action)
                except StoreError as exc:
                    logger.warning("install.storage error=%s", exc)
                    refusals.append(str(exc))
                    self._retry_later()
            self._announcer.refused("; ".join(refusals))

    def stop(self) -> None:
        """Let go of everything that waits; what is on disk says where to go on."""
        for name in list(self._probations):
            self._cancel_probation(name)
        if self._fetching is not None:
            self._fetching.cancel()

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
            staging = self._blobs.staging_for(f"local-{path.name}")
            verified = await self._worker.verify_file(
                path, staging, digest=None, name=None, floors=self._floors()
            )
            stored = verified.stored
            slot = self.slots.get(stored.name, Slot(name=stored.name))
            if slot.active is not None and slot.active.digest == stored.digest:
                return slot
            self._keep(staging, verified)
            model = DesiredModel(name=stored.name, version=stored.version, digest=stored.digest)
            held = replace(slot, held_generation=self._generation)
            self.slots[stored.name] = held
            await self._install(_Wanted(model=model, managed=False))
            return self.slots[stored.name]

    @property
    def _generation(self) -> int:
        return self._desired.generation if self._desired else 0

    def _floors(self) -> dict[str, int]:
        return {name: slot.floor for name, slot in self.slots.items()}

    async def _carry_out(self, action: Action) -> None:
        if isinstance(action, Remove):
            self._remove(action.name)
        elif isinstance(action, Install):
            slot = self.slots.get(action.model.name)
            if slot is not None and slot.held_generation is not None:
                self.slots[slot.name] = replace(slot, held_generation=None)
            await self._install(_Wanted(model=action.model, managed=True))

    async def _install(self, wanted: _Wanted) -> None:
        name = wanted.model.name
        slot = self.slots.get(name, Slot(name=name))
        if slot.phase in IN_PROGRESS:
            slot = slot.recover(unclean=False)
        self._cancel_probation(name)
        self._save(slot.start(wanted.model.digest, managed=wanted.managed))
        try:
            stored = await self._obtain(wanted)
            chosen = await self._worker.self_test(self._blobs.layout, stored)
            self._save(self.slots[name].advance())  # switching
            installed = Installed(
                release=Release(
                    digest=stored.digest, version=stored.version, sequence=stored.sequence
                ),
                variant=chosen.variant,
                signatures=stored.signatures,
                self_test=chosen.figures,
            )
            await self._switch(name, installed)
        except FetchError as exc:
            self._save(replace(self.slots[name], detail=str(exc)))
            self._retry_later()
        except RejectedError as exc:
            logger.warning("install.rejected model=%s reason=%s detail=%s", name, exc.reason, exc)
            self._save(self.slots[name].reject(exc.reason, str(exc), self._generation))
            self._collect()
            if self.slots[name].active != self.slots[name].confirmed:
                self._watch_probation(name)  # of the version that goes on answering
        else:
            self._retry_s = _FIRST_RETRY_S
            self._watch_probation(name)

    async def _obtain(self, wanted: _Wanted) -> Stored:
        """From `fetching` to `testing`: the bundle is verified and in the store."""
        model = wanted.model
        stored = self._journal.bundles().get(model.digest)
        if stored is not None:
            self._save(self.slots[model.name].advance())  # verifying what is on disk
            verified = await self._worker.verify_layout(
                self._blobs.layout,
                digest=stored.digest,
                signatures=stored.signatures,
                name=model.name,
                floors=self._floors(),
            )
            self._save(self.slots[model.name].advance())  # staging: it is there already
        else:
            self._fetching = asyncio.create_task(self._fetcher.fetch(model), name=model.digest)
            fetched = await self._await_fetch(self._fetching)
            self._save(self.slots[model.name].advance())  # verifying
            verified = await self._verify(fetched, model)
            self._save(self.slots[model.name].advance())  # staging
            self._keep(fetched.staging, verified)
        self._save(self.slots[model.name].advance())  # testing
        return verified.stored

    async def _await_fetch(self, task: "asyncio.Task[Fetched]") -> Fetched:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # the agent stops
                task.cancel()
                raise
            raise FetchError("the desired state changed meanwhile") from None
        finally:
            self._fetching = None

    async def _verify(self, fetched: Fetched, model: DesiredModel) -> Verified:
        if fetched.file is not None:
            return await self._worker.verify_file(
                fetched.file,
                fetched.staging,
                digest=model.digest,
                name=model.name,
                floors=self._floors(),
            )
        return await self._worker.verify_layout(
            fetched.staging,
            digest=model.digest,
            signatures=tuple(ref.digest for ref in model.signatures),
            name=model.name,
            floors=self._floors(),
        )

    def _keep(self, staging: Path, verified: Verified) -> None:
        self._blobs.adopt(staging, verified.blobs)
        self._journal.save_bundle(verified.stored)

    async def _switch(self, name: str, installed: Installed) -> None:
        before = self.slots[name]
        switched = before.switch(installed)
        try:
            await self._serving.serve(switched, self._blobs.layout)
        except EdgepackError as exc:
            raise RejectedError("load_failed", str(exc)) from exc
        self._save(switched)

    async def _serve_or_roll_back(self, name: str) -> None:
        """Let the active version answer, or the one before it if its files no longer load."""
        while (slot := self.slots[name]).active is not None:
            try:
                await self._serving.serve(slot, self._blobs.layout)
            except EdgepackError as exc:
                logger.warning("model.load_failed model=%s error=%s", name, exc)
                proven = (
                    slot if slot.phase is Phase.PROBATION else replace(slot, phase=Phase.CONFIRMED)
                )
                self._save(proven.roll_back("load_failed", str(exc), self._generation))
            else:
                return

    def _watch_probation(self, name: str) -> None:
        self._cancel_probation(name)
        self._probations[name] = asyncio.create_task(self._finish_probation(name))

    def _cancel_probation(self, name: str) -> None:
        task = self._probations.pop(name, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _finish_probation(self, name: str) -> None:
        config = self._probation
        counters = self._serving.probation(name)
        allowed = int(config.max_error_rate * config.requests)
        await counters.settled(config.requests, allowed, timeout_s=config.seconds)
        async with self._busy:
            slot = self.slots[name]
            answered, failures = counters.requests, counters.failures
            if failures > config.max_error_rate * max(1, answered + failures):
                detail = f"{failures} of {answered + failures} requests failed on probation"
                logger.warning("probation.failed model=%s failures=%d", name, failures)
                unproven = replace(slot, phase=Phase.PROBATION)
                self._save(unproven.roll_back("probation_errors", detail, self._generation))
                if self.slots[name].active is None:
                    self._serving.stop(name)
                await self._serve_or_roll_back(name)
            else:
                detail = "" if answered else "unexercised: no request during probation"
                self._save(slot.confirm(detail, self._wanted_floor(slot)))
            self._collect()
            self._probations.pop(name, None)

    def _wanted_floor(self, slot: Slot) -> int:
        models = self._desired.models if self._desired else ()
        active = slot.active.digest if slot.active else ""
        return max((model.floor for model in models if model.digest == active), default=0)

    def _remove(self, name: str) -> None:
        self._cancel_probation(name)
        self._serving.stop(name)
        self._journal.delete_slot(name)
        del self.slots[name]
        self._announcer.slot_removed(name)
        logger.info("model.removed model=%s", name)
        self._collect()

    def _save(self, slot: Slot) -> None:
        self._journal.save_slot(slot)
        self.slots[slot.name] = slot
        logger.info("model.%s model=%s digest=%s", slot.phase, slot.name, slot.target)
        self._announcer.slot_changed(slot)

    def _retry_later(self) -> None:
        asyncio.get_running_loop().call_later(self._retry_s, self._wake.set)
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)

    def _collect(self) -> None:
        """Drop the bundles that no slot needs."""
        kept = {item.digest for slot in self.slots.values() for item in slot.kept()}
        needed: set[str] = set()
        for digest, stored in self._journal.bundles().items():
            if digest not in kept:
                self._journal.delete_bundle(digest)
                continue
            try:
                bundle = open_layout(
                    self._blobs.layout, digest, signatures=stored.signatures, hash_blobs=False
                )
            except BundleError as exc:  # never delete by what cannot be read
                logger.warning("store.unreadable digest=%s error=%s", digest, exc)
                return
            needed.update(blob.digest for blob in bundle.blobs())
        freed = self._blobs.collect(needed)
        if freed:
            logger.info("store.collected freed_bytes=%d", freed)
