"""The slots as they are now: kept in the journal, told to the world, and the garbage of change."""

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from edgepack.agent.install.blobs import BlobStore
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.slot import Slot
from edgepack.agent.install.transitions import Phase
from edgepack.bundle import BundleError, open_layout

logger = logging.getLogger(__name__)


class Announcer(Protocol):
    """What tells the world."""

    def slot_changed(self, slot: Slot) -> None:
        """A slot went to another phase."""

    def slot_removed(self, slot: Slot) -> None:
        """A model, or its challenger, is gone."""

    def refused(self, detail: str) -> None:
        """A desired state is not followed; empty when it is."""


class Spare(Protocol):
    """What keeps the confirmed versions a second time."""

    def keep(self, slots: Mapping[str, Slot]) -> None:
        """Write them."""


class Slots:
    """All slots of this device, by `Slot.key`.

    Args:
        journal: Where every change is durable before anything follows from it.
        blobs: The store, cleared of what no slot needs any more.
        announcer: Hears of every change.
        now_s: The clock, in seconds since 1970.
        spare: Keeps what is confirmed a second time.
    """

    def __init__(
        self,
        journal: Journal,
        blobs: BlobStore,
        announcer: Announcer,
        *,
        now_s: Callable[[], float] = time.time,
        spare: Spare | None = None,
    ) -> None:
        self._journal = journal
        self._spare = spare
        self._blobs = blobs
        self._announcer = announcer
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_hand: Counter[str] = Counter()
        self.now_s = now_s
        self.by_key = journal.slots()
        self.generation = journal.generation()  # of the desired state that is followed

    def __getitem__(self, key: str) -> Slot:
        return self.by_key[key]

    def get(self, name: str, *, shadow: bool = False) -> Slot:
        """The slot of a model or of its challenger, an idle one if it is new."""
        floor = 0 if shadow else self._journal.removed_floors().get(name, 0)
        new = Slot(name=name, shadow=shadow, wish=self.generation, floor=floor)
        return self.by_key.get(new.key, new)

    def answering(self) -> set[str]:
        """Names of the models that are to answer."""
        return {slot.name for slot in self.by_key.values() if slot.active and not slot.shadow}

    def lock(self, key: str) -> asyncio.Lock:
        """Held while a slot changes in more than one step."""
        return self._locks[key]

    def floors(self) -> dict[str, int]:
        """Smallest accepted sequence by model."""
        kept = {slot.name: slot.floor for slot in self.by_key.values() if not slot.shadow}
        return {**self._journal.removed_floors(), **kept}

    def save(self, slot: Slot) -> None:
        """Keep a changed slot, then tell of it."""
        self._journal.save_slot(slot)
        self.by_key[slot.key] = slot
        logger.info("model.%s model=%s digest=%s", slot.phase, slot.key, slot.target)
        if slot.phase is Phase.CONFIRMED and self._spare is not None:
            self._spare.keep(self.by_key)
        try:
            self._announcer.slot_changed(slot)
        except Exception:  # what cannot be told is no reason to go back
            logger.exception("report.defect model=%s", slot.key)

    def note(self, slot: Slot) -> None:
        """Keep what nobody but the agent needs to know of a slot."""
        self._journal.note_slot(slot)
        self.by_key[slot.key] = slot

    def remove(self, key: str) -> None:
        """Forget a model, or a challenger, and delete what only it needed."""
        slot = self.by_key[key]
        self._journal.delete_slot(slot)
        del self.by_key[key]
        logger.info("model.removed model=%s", key)
        if self._spare is not None:
            self._spare.keep(self.by_key)
        self._announcer.slot_removed(slot)
        self.collect()

    @contextlib.contextmanager
    def holding(self, digest: str) -> Iterator[None]:
        """Keep a bundle on disk that no slot needs yet: it is about to be tried."""
        self._in_hand[digest] += 1
        try:
            yield
        finally:
            self._in_hand[digest] -= 1
            if not self._in_hand[digest]:
                del self._in_hand[digest]

    def collect(self) -> None:
        """Delete the bundles that no slot needs."""
        kept = {item.digest for slot in self.by_key.values() for item in slot.kept()}
        kept.update(self._in_hand)
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
