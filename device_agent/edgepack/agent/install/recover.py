"""After a restart: what worked answers again, without the network and before anything else."""

import logging
from dataclasses import replace
from pathlib import Path

from edgepack.agent.errors import StoreError
from edgepack.agent.install.serving import Serving
from edgepack.agent.install.slot import MAX_UNCLEAN_EXITS, Slot
from edgepack.agent.install.slots import Slots
from edgepack.agent.install.transitions import Phase
from edgepack.bundle import BundleError
from edgepack.trust.errors import EdgepackError

logger = logging.getLogger(__name__)


async def recover(
    slots: Slots,
    serving: Serving,
    layout: Path,
    *,
    unclean: bool,
    suspects: frozenset[str] = frozenset(),
) -> None:
    """Let every model that worked answer.

    Args:
        slots: What the journal remembers; changed where an install was interrupted.
        serving: Answers requests.
        layout: The store.
        unclean: True when the agent did not end by itself last time.
        suspects: The models whose engines were at work then. Where one of them is on probation the
            others are not to blame; else nobody knows who is, and it counts for all of them.
    """
    unproven = {slot.name for slot in slots.by_key.values() if slot.is_unproven}
    blamed = (suspects & unproven) or unproven
    for key, slot in list(slots.by_key.items()):
        recovered = slot.recover(unclean=unclean and slot.name in blamed)
        if recovered.is_unproven and recovered.unclean_exits >= MAX_UNCLEAN_EXITS:
            detail = f"the agent ended uncleanly {recovered.unclean_exits} times on probation"
            recovered = rolled_back(recovered, "unclean_exits", detail, slots.now_s())
        if recovered != slot:
            _save(slots, recovered)
        if not slot.shadow:  # a challenger begins when there is time for it
            await serve_or_roll_back(slots, serving, layout, key)


async def serve_or_roll_back(slots: Slots, serving: Serving, layout: Path, name: str) -> None:
    """Let the active version answer, or the one before it if its files no longer load."""
    while (slot := slots[name]).active is not None:
        try:
            await serving.serve(slot, layout)
        except EdgepackError as exc:
            logger.warning("model.load_failed model=%s error=%s", name, exc)
            back = rolled_back(slot, "load_failed", str(exc), slots.now_s())
            if isinstance(exc, BundleError):  # its files went bad, not the version: fetch it anew
                back = replace(
                    back,
                    failed=slot.failed,
                    failed_generation=slot.failed_generation,
                    failures=slot.failures,
                )
            _save(slots, back)
        else:
            return
    serving.stop(name)


def _save(slots: Slots, slot: Slot) -> None:
    try:
        slots.save(slot)
    except StoreError as exc:  # on a full disk it holds until the next start
        logger.warning("model.storage model=%s error=%s", slot.name, exc)
        slots.by_key[slot.key] = slot


def rolled_back(slot: Slot, reason: str, detail: str, now_s: float) -> Slot:
    """The slot without its active version, whatever later version its phase tells of."""
    return replace(slot, phase=Phase.PROBATION).roll_back(reason, detail, slot.wish, now_s=now_s)
