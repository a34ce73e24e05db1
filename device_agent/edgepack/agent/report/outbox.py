"""Reports that wait until the broker has them: bounded, events first.

An event is on disk before anything else happens. Metrics and predictions wait in memory; only
those that the broker does not take in time are written, in one transaction for all of them, so that
a device that is online writes next to nothing to its flash. When the box is full the oldest
metrics go first, then predictions, then events; what went is counted, also over restarts.

Each report carries a message id. One that was sent but not acknowledged is sent again with the same
id, so that whoever counts can tell.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from enum import IntEnum
from itertools import islice
from pathlib import Path

from edgepack.agent.errors import StoreError
from edgepack.trust.values import dataclass

logger = logging.getLogger(__name__)

_GROUP_ROWS = 200  # so many in memory are written, or rows deleted, together
_GROUP_BYTES = 256 * 1024
_MOST_IN_MEMORY = 2_000  # when the disk takes nothing
_ROW_BYTES = 64  # of a row beside its topic and its payload
_AT_ONCE = 100
_UNBOUNDED = 1 << 62
_SCHEMA = """
CREATE TABLE IF NOT EXISTS reports (
    rank INTEGER NOT NULL, id INTEGER NOT NULL, at_s INTEGER NOT NULL, size INTEGER NOT NULL,
    topic TEXT NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (rank, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
"""
_MIGRATION = """
BEGIN;
INSERT INTO reports SELECT CASE rank WHEN 0 THEN 0 ELSE 2 END, id, 0,
    length(topic) + length(payload) + 64, topic, payload FROM waiting;
DROP TABLE waiting;
COMMIT;
"""


class Rank(IntEnum):
    """What is sent first, and dropped last."""

    EVENT = 0
    PREDICTION = 1
    METRIC = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One report.

    Attributes:
        number: Its number in the box; later ones have larger ones.
        rank: What it is.
        topic: Where it goes.
        payload: A JSON object, with its message id.
        at_s: When it was made, in seconds since 1970; 0: the clock was not to be believed.
    """

    number: int
    rank: Rank
    topic: str
    payload: bytes
    at_s: int = 0

    @property
    def size_bytes(self) -> int:
        """What it weighs in the box."""
        return len(self.topic) + len(self.payload) + _ROW_BYTES


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many reports were dropped since the box was made, and how many of them were events."""

    reports: int = 0
    events: int = 0
    told: int = 0


class Outbox:
    """The database `outbox.db`; where the disk does not take it, reports wait in memory.

    Args:
        path: The database.
        max_rows: Largest number of reports.
        max_bytes: What they may weigh together.
        max_age_s: Seconds after which a report is worth nothing.
        now_s: Seconds since 1970, or None while the clock is not to be believed.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_rows: int,
        max_bytes: float = _UNBOUNDED,
        max_age_s: float = _UNBOUNDED,
        now_s: Callable[[], float | None] = time.time,
    ) -> None:
        self._path = path
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._now_s = now_s
        self._run = os.urandom(4).hex()
        self._unstored: dict[int, Waiting] = {}  # in memory only
        self._live: dict[int, Waiting] = {}  # made while connected; sent past what waited
        self._sent: dict[int, Waiting] = {}  # acknowledged, and still on disk
        self._unwritable = False
        try:
            self._open_on_disk(path)
        except (sqlite3.OperationalError, OSError) as exc:  # a full or a failing disk
            logger.warning("outbox.in_memory path=%s error=%s", path, exc)
            self._open(":memory:")

    def _open_on_disk(self, path: Path) -> None:
        try:
            self._open(path)
        except sqlite3.OperationalError:  # the disk's fault, not the file's
            raise
        except sqlite3.DatabaseError as exc:  # reports are not worth not starting
            logger.warning("outbox.damaged path=%s error=%s", path, exc)
            self._db.close()
            for end in ("", "-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)
            self._open(path)

    def _open(self, target: Path | str) -> None:
        self._db = sqlite3.connect(target, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'waiting'").fetchone():
            self._db.executescript(_MIGRATION)
        found = self._db.execute("SELECT COUNT(*), SUM(size), MAX(id) FROM reports").fetchone()
        self._rows, self._bytes, last = (int(value or 0) for value in found)
        self._next = last + 1
        kept = dict(self._db.execute("SELECT name, number FROM counts"))
        self._dropped = self._kept_dropped = Dropped(**kept)

    def __len__(self) -> int:
        return max(0, self._rows - len(self._sent)) + len(self._unstored)

    @property
    def size_bytes(self) -> int:
        """What everything that waits weighs."""
        return self._bytes + _weight(self._unstored.values()) - _weight(self._sent.values())

    @property
    def dropped(self) -> Dropped:
        """What was dropped."""
        return self._dropped

    @property
    def is_settled(self) -> bool:
        """Whether a power cut would neither lose a report nor repeat one."""
        return not self._unstored and not self._sent

    def close(self) -> None:
        """Write what is only in memory, and close the database."""
        self.flush()
        self._db.close()

    def put(self, topic: str, payload: bytes, *, rank: Rank, live: bool = False) -> None:
        """Add a report.

        Args:
            topic: Where it goes.
            payload: A JSON object; it gets a `message_id`.
            rank: An event is on disk when this returns.
            live: Whether the broker is there: then it is sent past what waited.
        """
        number = self._next
        self._next += 1
        now_s = self._now_s()
        report = Waiting(
            number=number,
            rank=rank,
            topic=topic,
            payload=with_member(payload, b'"message_id":"%s-%d"' % (self._run.encode(), number)),
            at_s=0 if now_s is None else int(now_s),
        )
        self._unstored[number] = report
        if live:
            self._live[number] = report
        if rank is Rank.EVENT or self._is_heavy():
            self.flush()

    def live(self, busy: Container[int]) -> list[Waiting]:
        """What was made while the broker was there and is not under way, events first."""
        waiting = [report for number, report in self._live.items() if number not in busy]
        return sorted(waiting, key=_order)

    def backlog(self, count: int, busy: Container[int] = ()) -> list[Waiting]:
        """What waited and is not under way: events first, each kind oldest first.

        Raises:
            StoreError: The disk does not give it.
        """
        taken = {number for number in self._live if number not in self._unstored}
        waiting = [
            report
            for number, report in self._unstored.items()
            if number not in self._live and number not in busy
        ]
        if self._rows > len(self._sent) + len(taken):
            try:
                self._write()  # else what is gone is read again
                waiting = list(islice(self._stored(busy), count))
            except sqlite3.Error as exc:
                raise StoreError(f"{self._path} cannot be used: {exc}") from exc
        return sorted(waiting, key=_order)[:count]

    def _stored(self, busy: Container[int]) -> Iterable[Waiting]:
        for rank, number, at_s, topic, payload in self._db.execute(
            "SELECT rank, id, at_s, topic, payload FROM reports ORDER BY rank, id"
        ):
            if number not in self._live and number not in busy:
                yield Waiting(
                    number=number,
                    rank=Rank(rank),
                    topic=topic,
                    payload=bytes(payload),
                    at_s=at_s,
                )

    def done(self, report: Waiting) -> None:
        """The broker has this one."""
        self._live.pop(report.number, None)
        if self._unstored.pop(report.number, None) is None:
            self._sent[report.number] = report
            if len(self._sent) >= _GROUP_ROWS:
                self.flush()

    def disconnected(self) -> None:
        """From now on everything is what waited."""
        self._live.clear()

    def flush(self) -> None:
        """Write what is only in memory, delete what was sent, drop what is too much.

        A disk that does not take it is tried again the next time.
        """
        if self.is_settled:
            return
        try:
            self._write()
        except sqlite3.Error as exc:
            if not self._unwritable:
                logger.warning("outbox.unwritable path=%s error=%s", self._path, exc)
            self._unwritable = True
            self._drop_from_memory()
        else:
            self._unwritable = False

    def drops_told(self) -> None:
        """What was dropped until now has been reported."""
        self._dropped = Dropped(self._dropped.reports, self._dropped.events, self._dropped.reports)
        with suppress(sqlite3.Error):  # then it is told again
            self._db.execute(
                "INSERT OR REPLACE INTO counts VALUES ('told', ?)", (self._dropped.told,)
            )

    def _is_heavy(self) -> bool:
        return len(self._unstored) >= _GROUP_ROWS or (
            _weight(self._unstored.values()) >= _GROUP_BYTES
        )

    def _write(self) -> None:
        """One transaction for all that changed.

        Raises:
            sqlite3.Error: The disk does not take it; then nothing has changed.
        """
        if self.is_settled:
            return
        urgent = any(report.rank is Rank.EVENT for report in self._unstored.values())
        self._db.execute(f"PRAGMA synchronous={'FULL' if urgent else 'NORMAL'}")
        before = self._rows, self._bytes, self._dropped
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for report in self._sent.values():
                self._delete(report.rank, report.number)
            for report in self._unstored.values():
                self._insert(report)
            self._drop_old()
            self._drop_surplus()
            if self._dropped != self._kept_dropped:
                counts = [("reports", self._dropped.reports), ("events", self._dropped.events)]
                self._db.executemany("INSERT OR REPLACE INTO counts VALUES (?, ?)", counts)
            self._db.execute("COMMIT")
            self._kept_dropped = self._dropped
        except sqlite3.Error:
            self._rows, self._bytes, self._dropped = before
            if self._db.in_transaction:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise
        self._unstored.clear()
        self._sent.clear()

    def _insert(self, report: Waiting) -> None:
        self._db.execute(
            "INSERT INTO reports (rank, id, at_s, size, topic, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (
                int(report.rank),
                report.number,
                report.at_s,
                report.size_bytes,
                report.topic,
                report.payload,
            ),
        )
        self._rows += 1
        self._bytes += report.size_bytes

    def _delete(self, rank: int, number: int) -> int:
        """How many rows that were."""
        gone = self._db.execute(
            "DELETE FROM reports WHERE rank = ? AND id = ? RETURNING size", (int(rank), number)
        ).fetchall()
        self._rows -= len(gone)
        self._bytes -= sum(size for (size,) in gone)
        return len(gone)

    def _drop(self, rank: int, number: int) -> None:
        gone = self._delete(rank, number)
        self._count_drop(Rank(rank), gone)

    def _count_drop(self, rank: Rank, number: int = 1) -> None:
        self._dropped = Dropped(
            self._dropped.reports + number,
            self._dropped.events + (number if rank is Rank.EVENT else 0),
            self._dropped.told,
        )

    def _drop_old(self) -> None:
        now_s = self._now_s()
        if now_s is None:
            return
        for rank in Rank:
            oldest = self._db.execute(
                "SELECT id, at_s FROM reports WHERE rank = ? ORDER BY id LIMIT ?",
                (int(rank), _AT_ONCE),
            ).fetchall()
            limit_s = now_s - self._max_age_s
            old = [index for index, (_, at_s) in enumerate(oldest) if 0 < at_s < limit_s]
            # what came before one that is too old is older still, whatever its clock said
            for number, _ in oldest[: max(old) + 1] if old else []:
                self._drop(rank, number)

    def _drop_surplus(self) -> None:
        while self._rows > self._max_rows or self._bytes > self._max_bytes:
            least = self._db.execute(
                "SELECT rank, id FROM reports ORDER BY rank DESC, id LIMIT ?", (_AT_ONCE,)
            ).fetchall()
            for rank, number in least:
                if self._rows <= self._max_rows and self._bytes <= self._max_bytes:
                    return
                self._drop(rank, number)

    def _drop_from_memory(self) -> None:
        surplus = len(self._unstored) - min(_MOST_IN_MEMORY, self._max_rows)
        if surplus <= 0:
            return
        worst = sorted(self._unstored.values(), key=lambda one: (-one.rank, one.number))
        for report in worst[:surplus]:
            del self._unstored[report.number]
            self._live.pop(report.number, None)
            self._count_drop(report.rank)


def with_member(payload: bytes, member: bytes) -> bytes:
    """Add a member, as JSON text, to a JSON object.

    >>> with_member(b'{"a":1}', b'"b":2')
    b'{"a":1,"b":2}'
    """
    head = payload.rstrip()[:-1].rstrip()
    return head + (b"" if head.endswith(b"{") else b",") + member + b"}"


def _order(report: Waiting) -> tuple[int, int]:
    return (report.rank, report.number)


def _weight(reports: Iterable[Waiting]) -> int:
    return sum(report.size_bytes for report in reports)
