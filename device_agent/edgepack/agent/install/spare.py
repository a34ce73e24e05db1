"""A second copy of what a device must not lose when its database is damaged.

`spare.json` beside `agent.db`: the confirmed version of each model, the floors and the accepted
desired state, written whenever a model is confirmed or removed. It is no history and no backup of
the reports. A damaged database is set aside, not repaired: what a broken disk still gives of it
is nothing to install by.
"""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path

from edgepack.agent.disk import fsync_folder, storage_error, write_durably
from edgepack.agent.errors import DamagedError, StoreError
from edgepack.agent.install.chain import ENVELOPE, GENERATION, ROOT_VERSION, SIGNERS
from edgepack.agent.install.clock import ISSUED
from edgepack.agent.install.journal import Journal, Stored
from edgepack.agent.install.slot import Slot
from edgepack.agent.install.transitions import Phase
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import parse, render
from edgepack.trust.values import dataclass

logger = logging.getLogger(__name__)

DATABASE = "agent.db"
SPARE = "spare.json"
_METAS = (GENERATION, ENVELOPE, SIGNERS, ROOT_VERSION, ISSUED)
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """What is kept twice.

    Attributes:
        metas: What is remembered of the desired state that was accepted last.
        floors: Smallest accepted sequence by model, of models that are gone as well.
        slots: The models with a confirmed version, as if nothing had happened since.
        bundles: The bundles of those versions.
    """

    metas: dict[str, str] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    slots: tuple[Slot, ...] = ()
    bundles: tuple[Stored, ...] = ()


class SpareKeeper:
    """Writes the second copy.

    Args:
        state_dir: The agent's state folder.
        journal: Where the first one is.
    """

    def __init__(self, state_dir: Path, journal: Journal) -> None:
        self._path = state_dir / SPARE
        self._journal = journal

    def keep(self, slots: Mapping[str, Slot]) -> None:
        """Write it anew; a disk that does not take it only costs the second copy."""
        models = [slot for slot in slots.values() if not slot.shadow]
        confirmed = tuple(_confirmed(slot) for slot in models if slot.confirmed)
        digests = {slot.target for slot in confirmed}
        try:
            floors = {slot.name: slot.floor for slot in models if slot.floor}
            kept = {key: self._journal.meta(key) for key in _METAS}
            spare = Spare(
                metas={key: value.decode() for key, value in kept.items() if value},
                floors={**self._journal.removed_floors(), **floors},
                slots=confirmed,
                bundles=tuple(b for d, b in self._journal.bundles().items() if d in digests),
            )
            write_durably(self._path, render(encode(spare)))
        except StoreError as exc:
            logger.warning("spare.storage error=%s", exc)


def open_journal(state_dir: Path) -> tuple[Journal, str]:
    """Open the database; a damaged one is set aside, and the second copy takes its place.

    Returns:
        The journal, and one line that says what is forgotten, or "".

    Raises:
        StoreError: The disk does not take it, or a newer agent wrote it.
    """
    path = state_dir / DATABASE
    spare = _read(state_dir / SPARE)
    try:
        return _checked(path, gone=spare is not None and not path.exists()), ""
    except DamagedError as exc:
        damage = str(exc)
    logger.warning("state.damaged error=%s", damage)
    aside = _set_aside(path)
    journal = Journal(path)
    if spare is None:
        return journal, f"{damage}; set aside as {aside}. Models, floors and history are forgotten"
    journal.restore(spare.slots, spare.bundles, spare.floors)
    journal.set_metas({key: spare.metas[key].encode() for key in _METAS if key in spare.metas})
    return journal, (
        f"{damage}; set aside as {aside}. Models and floors are those of the last confirmation, "
        "the history begins anew"
    )


def _checked(path: Path, *, gone: bool) -> Journal:
    if gone:
        raise DamagedError(f"{path} is gone")
    journal = Journal(path)
    try:
        journal.check()
    except BaseException:
        journal.close()
        raise
    return journal


def _confirmed(slot: Slot) -> Slot:
    assert slot.confirmed is not None
    return replace(
        slot,
        phase=Phase.CONFIRMED,
        target=slot.confirmed.digest,
        active=slot.confirmed,
        previous=None,
        reason="",
        detail="",
        unclean_exits=0,
    )


def _set_aside(path: Path) -> str:
    """Rename the database; one that was set aside before goes."""
    aside = path.with_name(path.name + ".damaged")
    try:
        for end in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + end).replace(aside.with_name(aside.name + end))
        fsync_folder(path.parent)
    except OSError as exc:
        raise storage_error(path, exc) from exc
    return aside.name


def _read(path: Path) -> Spare | None:
    try:
        with path.open("rb") as handle:
            data = handle.read(_MAX_BYTES + 1)
        value = parse(data, what=path.name, max_bytes=_MAX_BYTES)
        return decode(Spare, value, what=path.name, ignore_unknown=True)
    except FileNotFoundError:
        return None
    except (OSError, DocumentError) as exc:
        logger.warning("spare.damaged error=%s", exc)
        return None
