"""Reports that wait on disk until the broker has them: bounded, events before metrics.

Rows are kept until the broker acknowledged them. When the box is full the oldest metrics go
first, then the oldest events; what went is counted and reported.
"""

import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edgepack.agent.errors import StoreError

logger = logging.getLogger(__name__)

EVENT = 0
METRIC = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY, rank INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS waiting_rank ON waiting (rank, id);
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One report: its number in the box, topic and payload."""

    number: int
    topic: str
    payload: bytes


class Outbox:
    """The database `outbox.db`; synchronous=NORMAL, since losing the last second is bearable.

    Where the disk does not take it, reports wait in memory: they are not worth not answering.
    """

    def __init__(self, path: Path, *, max_rows: int) -> None:
        self._path = path
        self._max_rows = max_rows
        self.dropped = 0
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
        self._rows = int(self._db.execute("SELECT COUNT(*) FROM waiting").fetchone()[0])

    def __len__(self) -> int:
        return self._rows

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def put(self, topic: str, payload: bytes, *, rank: int) -> None:
        """Add a report (rank EVENT or METRIC) and make room if there is none.

        Raises:
            StoreError: The disk does not take it.
        """
        try:
            self._db.execute(
                "INSERT INTO waiting (rank, topic, payload) VALUES (?, ?, ?)",
                (rank, topic, payload),
            )
            self._rows += 1
            if self._rows > self._max_rows:
                gone = self._db.execute(
                    "DELETE FROM waiting WHERE id IN "
                    "(SELECT id FROM waiting ORDER BY rank DESC, id LIMIT ?)",
                    (self._rows - self._max_rows,),
                ).rowcount
                self._rows -= gone
                self.dropped += gone
        except sqlite3.Error as exc:
            raise self._error(exc) from exc

    def peek(self, count: int) -> list[Waiting]:
        """The next reports to send: events first, each kind oldest first."""
        try:
            rows = self._db.execute(
                "SELECT id, topic, payload FROM waiting ORDER BY rank, id LIMIT ?", (count,)
            ).fetchall()
        except sqlite3.Error as exc:
            raise self._error(exc) from exc
        return [Waiting(number, topic, bytes(payload)) for number, topic, payload in rows]

    def done(self, number: int) -> None:
        """The broker has this one."""
        try:
            self._rows -= self._db.execute("DELETE FROM waiting WHERE id = ?", (number,)).rowcount
        except sqlite3.Error as exc:
            raise self._error(exc) from exc

    def _error(self, exc: sqlite3.Error) -> StoreError:
        return StoreError(f"{self._path} cannot be used: {exc}")
