"""One version's way from what was fetched to its place: verified, tested, switched to.

Every step is in the journal before the next one begins. Who asks for it, the desired state or a
person, is no matter here.
"""

import asyncio
import logging

from edgepack.agent.errors import RejectedError
from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.fetch import Fetched
from edgepack.agent.install.judge import Figures
from edgepack.agent.install.obtain import Obtainer
from edgepack.agent.install.probation import Probations
from edgepack.agent.install.reconcile import key_of
from edgepack.agent.install.serving import Challengers, Serving
from edgepack.agent.install.slot import Hold, Installed, Slot
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.transitions import IN_PROGRESS, Phase
from edgepack.agent.install.worker import Worker
from edgepack.trust.errors import EdgepackError
from edgepack.wire.desired import DesiredModel, Mode
from edgepack.wire.messages import Release

logger = logging.getLogger(__name__)


class Trials:
    """Tries versions; whoever calls holds the slot's lock.

    Args:
        slots: The slots.
        blobs: The store.
        obtainer: Verifies what was fetched.
        worker: Self-tests in a child process.
        serving: Answers requests.
        challengers: Runs challengers.
        probations: Watches what was switched to.
        testing: Held while a version is verified and tested: one at a time, since each needs
            memory, and two that are measured together are both slow.
    """

    def __init__(
        self,
        slots: Slots,
        blobs: BlobStore,
        obtainer: Obtainer,
        worker: Worker,
        serving: Serving,
        *,
        challengers: Challengers,
        probations: Probations,
        testing: asyncio.Lock,
    ) -> None:
        self._slots = slots
        self._blobs = blobs
        self._obtainer = obtainer
        self._worker = worker
        self._serving = serving
        self._challengers = challengers
        self._probations = probations
        self._testing = testing

    def begin(self, slot: Slot, digest: str) -> None:
        """Bring a slot to `fetching`."""
        if slot.phase in IN_PROGRESS:
            slot = slot.recover(unclean=False)
        self._slots.save(slot.start(digest))

    async def run(
        self,
        model: DesiredModel,
        fetched: Fetched | None,
        wish: int,
        *,
        hold: Hold = Hold.NONE,
    ) -> None:
        """Bring a slot from `fetching` to `probation` (`shadowing`), or to `rejected`.

        Args:
            model: What is installed.
            fetched: What came, or None when it is on disk.
            wish: The wish that a failure counts under.
            hold: The decision of a person that this is, if it is one.

        Raises:
            FetchError: What is on disk is no longer good; a source may do better.
            StoreError: The disk does not take it.
        """
        key = key_of(model)
        try:
            async with self._testing:
                stored = await self._obtainer.verify(key, model, fetched)
                chosen = await self._worker.self_test(self._blobs.layout, stored)
            self._slots.save(self._slots[key].advance())  # switching
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
            if model.mode is Mode.SHADOW:
                cast = self._slots[key].cast_shadow(installed)
                await self._challengers.cast(cast)
                self._slots.save(cast)
            else:
                await self.switch(key, installed, hold)
                self._probations.watch(key)
        except RejectedError as exc:
            self.reject(model, exc, wish)

    async def switch(self, key: str, installed: Installed, hold: Hold) -> None:
        """Let a version answer; whoever calls sees to its probation.

        Raises:
            RejectedError: It does not load; what answered before goes on.
            StoreError: The disk does not take it.
        """
        slot = self._slots[key]
        switched = slot.switch(installed, self._baseline(slot))
        if hold is not Hold.NONE:
            switched = switched.held_by(hold)
        try:
            await self._serving.serve(switched, self._blobs.layout)
        except RejectedError:
            raise
        except EdgepackError as exc:
            raise RejectedError("load_failed", str(exc)) from exc
        self._slots.save(switched)

    def reject(self, model: DesiredModel, exc: RejectedError, wish: int) -> None:
        """A version is refused; nothing that answers changes."""
        slot = self._slots[key_of(model)]
        if slot.shadow:
            self._challengers.stop(slot.name)
        logger.warning("install.rejected model=%s reason=%s detail=%s", slot.key, exc.reason, exc)
        self._slots.save(slot.reject(exc.reason, str(exc), wish, now_s=self._slots.now_s()))
        self._blobs.discard_staging(model.digest)
        self._slots.collect()

    def is_fetching(self, model: DesiredModel) -> bool:
        """Whether the slot still waits for this version."""
        slot = self._slots.by_key.get(key_of(model))
        return slot is not None and (slot.phase, slot.target) == (Phase.FETCHING, model.digest)

    def _baseline(self, slot: Slot) -> Figures | None:
        """How the proven version does, or did when what is on probation now took its place."""
        if slot.is_unproven:
            return slot.baseline
        counters = self._serving.counters(slot.name)
        return counters.figures() if counters is not None else None
