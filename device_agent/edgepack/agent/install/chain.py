"""The device's own history: one event for each change of a slot, bound to the one before by a hash.

Events are written in the transaction that changes the slot, so that a kill leaves both or neither;
they are signed later, in a child process (`sealing.py`). Nothing here imports `cryptography`.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from edgepack.agent.errors import StoreError
from edgepack.agent.install.slot import Slot
from edgepack.trust.values import dataclass
from edgepack.wire.audit import AuditEvent, payload_hash, render_event

SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, payload BLOB NOT NULL, envelope BLOB,
    sent INTEGER NOT NULL DEFAULT 0);
"""
GENERATION = "desired_generation"
ENVELOPE = "desired_envelope"
SIGNERS = "desired_signers"
ROOT_VERSION = "root_version"
CHECKPOINT = "audit_checkpoint"  # the signed envelope
PRUNED = "audit_pruned"  # number and hash of the last event that is not kept
MAX_KEPT = 10_000  # events, signed or not
_MAX_FIGURES = 32

_ACTOR: ContextVar[str] = ContextVar("actor", default="")


@contextmanager
def acting(actor: str) -> Iterator[None]:
    """Whatever happens inside, and in tasks begun inside, happens on this one's word."""
    token = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Whose chain it is, and what its clock is worth: `plausible`, `behind` or `ahead`."""

    device: str
    prefix: str
    instance: str
    clock: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Head:
    """The last event: its number and the hash of its payload; 0 and "" before the first."""

    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it is kept: number, payload, and the signed envelope once there is one."""

    number: int
    payload: bytes
    envelope: bytes | None


class Chain:
    """The table `audit` of a journal's database.

    The journal calls what appends, inside its own transaction. Without `who` (a database that is
    only read, or a test of something else) nothing is chained.

    Args:
        db: The journal's connection.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.who: Who | None = None
        self.appended: Callable[[], None] = lambda: None

    def head(self) -> Head:
        """The last event."""
        rows = self._run("SELECT number, payload FROM audit ORDER BY number DESC LIMIT 1")
        if rows:
            return Head(int(rows[0][0]), payload_hash(bytes(rows[0][1])))
        number, _, digest = self._meta(PRUNED).partition(" ")
        return Head(int(number or 0), digest)

    def transition(self, slot: Slot) -> None:
        """A slot is saved."""
        about = slot.active if slot.active and slot.active.digest == slot.target else None
        figures = dict(sorted(about.self_test.items())[:_MAX_FIGURES]) if about else {}
        self.append(
            "transition",
            actor=_ACTOR.get() or _actor_of(slot),
            model=slot.name,
            shadow=slot.shadow,
            phase=slot.phase.value,
            digest=slot.target,
            active=slot.active.digest if slot.active else "",
            version=about.release.version if about else "",
            sequence=about.release.sequence if about else 0,
            variant=about.variant if about else "",
            self_test=figures,
            floor=slot.floor,
            reason=slot.reason,
            detail=slot.detail,
        )

    def removed(self, slot: Slot) -> None:
        """A model is gone, or its challenger."""
        actor = _ACTOR.get() or "desired"
        self.append("removed", actor=actor, model=slot.name, shadow=slot.shadow)

    def append(self, kind: str, **fields: object) -> None:
        """Add an event after the last one; the caller's transaction makes it durable.

        Raises:
            WireError: A field breaks a rule of the format; a defect.
        """
        who = self.who
        if who is None:
            return
        head, clock = self.head(), who.clock()
        event = AuditEvent(
            device=who.device,
            prefix=who.prefix,
            instance=who.instance,
            number=head.number + 1,
            previous=head.hash,
            kind=kind,
            ts=time.time_ns() // 1_000_000,
            clock=clock,
            generation=int(self._meta(GENERATION) or 0),
            signers=tuple(self._meta(SIGNERS).split()),
            root_version=int(self._meta(ROOT_VERSION) or 0),
            unchecked="" if clock == "plausible" else "expiry",
        )
        event = replace(event, **fields)  # type: ignore[arg-type]  # names and types of AuditEvent
        payload = render_event(event)
        self._run("INSERT INTO audit (number, payload) VALUES (?, ?)", event.number, payload)
        self._run("DELETE FROM audit WHERE number <= ?", event.number - MAX_KEPT)
        self.appended()

    # What sealing asks for

    def unsigned(self, limit: int) -> list[Entry]:
        """Events without a signature, oldest first."""
        return self._entries("envelope IS NULL", limit)

    def unsent(self, limit: int) -> list[Entry]:
        """Signed events that the broker does not have, oldest first."""
        return self._entries("envelope IS NOT NULL AND sent = 0", limit)

    def kept(self) -> list[Entry]:
        """All events that are kept, oldest first."""
        return self._entries("1", MAX_KEPT)

    def sign(self, number: int, envelope: bytes) -> None:
        """Keep a signature."""
        self._run("UPDATE audit SET envelope = ? WHERE number = ?", envelope, number)

    def sent(self, number: int) -> None:
        """The broker has this one."""
        self._run("UPDATE audit SET sent = 1 WHERE number = ?", number)

    def resend(self, last: int) -> None:
        """Publish the last events again: the broker lost them."""
        self._run("UPDATE audit SET sent = number <= ?", self.head().number - last)

    def leave_unsent(self, last: int) -> None:
        """Publish no more than the last events: earlier ones would only be overwritten."""
        self._run("UPDATE audit SET sent = 1 WHERE number <= ?", self.head().number - last)

    def checkpoint(self) -> bytes | None:
        """The signed checkpoint before the first event that is kept, or None."""
        return self._meta(CHECKPOINT).encode() or None

    def count(self) -> int:
        """How many events are kept."""
        return int(self._run("SELECT COUNT(*) FROM audit")[0][0])

    def prune(self, last: Head, checkpoint: bytes) -> None:
        """Keep a signed checkpoint instead of the events up to `last`; the caller's transaction."""
        pruned = f"{last.number} {last.hash}".encode()
        for key, value in ((CHECKPOINT, checkpoint), (PRUNED, pruned)):
            self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)
        self._run("DELETE FROM audit WHERE number <= ?", last.number)

    def _entries(self, where: str, limit: int) -> list[Entry]:
        rows = self._run(
            f"SELECT number, payload, envelope FROM audit WHERE {where} ORDER BY number LIMIT ?",  # noqa: S608 (ours)
            limit,
        )
        return [
            Entry(int(number), bytes(payload), None if envelope is None else bytes(envelope))
            for number, payload, envelope in rows
        ]

    def _meta(self, key: str) -> str:
        rows = self._run("SELECT value FROM meta WHERE key = ?", key)
        return bytes(rows[0][0]).decode() if rows else ""

    def _run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise StoreError(f"the history of this device cannot be used: {exc}") from exc


def _actor_of(slot: Slot) -> str:
    if slot.consent and slot.consent == slot.target:
        return slot.consent_by
    if slot.held_generation is not None or not slot.managed:
        return "local"
    return "desired"
