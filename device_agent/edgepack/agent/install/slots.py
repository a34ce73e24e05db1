"""The slots as they are now: kept in the journal, told to the world, and the garbage of change."""

import logging
from typing import Protocol

from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.slot import Slot
from edgepack.bundle import BundleError, open_layout

logger = logging.getLogger(__name__)


class Announcer(Protocol):
    """What tells the world."""

    def slot_changed(self, slot: Slot) -> None:
        """A slot went to another phase."""

    def slot_removed(self, name: str) -> None:
        """A model is gone."""

    def refused(self, detail: str) -> None:
        """A desired state is not followed; empty when it is."""


class Slots:
    """All slots of this device, by model name.

    Args:
        journal: Where every change is durable before anything follows from it.
        blobs: The store, cleared of what no slot needs any more.
        announcer: Hears of every change.
    """

    def __init__(self, journal: Journal, blobs: BlobStore, announcer: Announcer) -> None:
        self._journal = journal
        self._blobs = blobs
        self._announcer = announcer
        self.by_name = journal.slots()
        self.generation = journal.generation()  # of the desired state that is followed

    def __getitem__(self, name: str) -> Slot:
        return self.by_name[name]

    def get(self, name: str) -> Slot:
        """The slot of a model, an idle one if the model is new."""
        return self.by_name.get(name) or Slot(
            name=name, floor=self._journal.removed_floors().get(name, 0)
        )

    def floors(self) -> dict[str, int]:
        """Smallest accepted sequence by model."""
        kept = {name: slot.floor for name, slot in self.by_name.items()}
        return {**self._journal.removed_floors(), **kept}

    def save(self, slot: Slot) -> None:
        """Keep a changed slot, then tell of it."""
        self._journal.save_slot(slot)
        self.by_name[slot.name] = slot
        logger.info("model.%s model=%s digest=%s", slot.phase, slot.name, slot.target)
        self._announcer.slot_changed(slot)

    def remove(self, name: str) -> None:
        """Forget a model and delete what only it needed."""
        self._journal.delete_slot(name)
        del self.by_name[name]
        logger.info("model.removed model=%s", name)
        self._announcer.slot_removed(name)
        self.collect()

    def collect(self) -> None:
        """Delete the bundles that no slot needs."""
        kept = {item.digest for slot in self.by_name.values() for item in slot.kept()}
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
