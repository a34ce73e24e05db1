"""The agent's memory in SQLite: slots, the accepted desired state, which bundles are on disk.

Every change is durable before the call returns (WAL, synchronous=FULL). What the values mean is
`slot.py`; this only keeps them.
"""

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgepack.agent.errors import DamagedError, StoreError
from edgepack.agent.install.chain import GENERATION, SCHEMA, Chain
from edgepack.agent.install.slot import Slot
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import parse, render
from edgepack.trust.values import dataclass

logger = logging.getLogger(__name__)

T = TypeVar("T")
RUNNING = "running"  # b"1" from the start of an agent to its tidy end
_SCHEMA_VERSION = 1
_MAX_ROW_BYTES = 64 * 1024
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_KEPT_STEPS = 1000
_FLOORS = "removed_floors"
_KEPT_FLOORS = 1024
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slot (name TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS step (
    id INTEGER PRIMARY KEY, ts_ms INTEGER NOT NULL, model TEXT NOT NULL, phase TEXT NOT NULL,
    digest TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS bundle (digest TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A verified bundle whose blobs are all in the store."""

    digest: str
    name: str
    version: str
    sequence: int
    signatures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Floors:
    floors: dict[str, int]


class Journal:
    """The database `agent.db` of one state folder.

    Not for several threads: the agent uses it from its event loop only.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        try:
            self._db = self._look() if read_only else self._open()
        except (sqlite3.Error, OSError) as exc:
            raise self._error(exc) from exc
        self.chain = Chain(self._db)

    def _look(self) -> sqlite3.Connection:
        # SQLite needs to write beside a database to read it, unless it was closed tidily.
        if self._path.exists() and os.statvfs(self._path).f_flag & os.ST_RDONLY:
            return _copied(self._path)
        target = f"{self._path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(target, uri=True, isolation_level=None)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect("NORMAL")
        except sqlite3.OperationalError:
            # On a full disk there is no room for the memory that is shared with other processes:
            # alone it can be read all the same, and what answered answers.
            logger.warning("journal.alone path=%s", self._path)
            return self._connect("EXCLUSIVE")

    def _connect(self, locking: str) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, isolation_level=None)
        try:
            database.execute(f"PRAGMA locking_mode={locking}")
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.executescript(_SCHEMA + SCHEMA)
            self._migrate(database)
        except BaseException:
            database.close()
            raise
        return database

    def check(self) -> None:
        """Read what an agent must know; after an unclean stop look at every page.

        Raises:
            DamagedError: It cannot be made out.
            StoreError: The disk does not give it.
        """
        try:
            self.slots()
            self.bundles()
            self.removed_floors()
            self.generation()
            unclean = self.meta(RUNNING) == b"1"
        except (TypeError, ValueError) as exc:
            raise DamagedError(f"{self._path} is damaged: {exc}") from exc
        found = self._query("PRAGMA quick_check(1)") if unclean else [("ok",)]
        if found != [("ok",)]:
            raise DamagedError(f"{self._path} is damaged: {str(found[0][0])[:200]}")

    def restore(
        self, slots: Iterable[Slot], bundles: Iterable[Stored], floors: Mapping[str, int]
    ) -> None:
        """Begin a new database with what a second copy knows; all or none."""
        with self.transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO slot VALUES (?, ?)",
                [(slot.name, render(encode(slot))) for slot in slots],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO bundle VALUES (?, ?)",
                [(stored.digest, render(encode(stored))) for stored in bundles],
            )
            self._db.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                (_FLOORS, render(encode(dict(floors)))),
            )

    def close(self) -> None:
        """Close the database; the next open needs no recovery."""
        self._db.close()

    def instance(self) -> str:
        """Random id of this installation, made at the first start."""
        kept = self.meta("instance")
        if kept is None:
            kept = uuid.uuid4().hex.encode()
            self.set_meta("instance", kept)
        return kept.decode()

    def generation(self) -> int:
        """Generation of the desired state that was accepted last; 0 before the first."""
        return int(self.meta(GENERATION) or 0)

    def meta(self, key: str) -> bytes | None:
        """One remembered value, or None."""
        row = self._query("SELECT value FROM meta WHERE key = ?", key)
        return bytes(row[0][0]) if row else None

    def set_meta(self, key: str, value: bytes) -> None:
        """Remember one value."""
        self.set_metas({key: value})

    def set_metas(self, values: Mapping[str, bytes], *, event: str = "", **fields: object) -> None:
        """Remember several values, and an event that tells of them; all or none."""
        with self.transaction():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())
            if event:
                self.chain.append(event, **fields)

    def slots(self) -> dict[str, Slot]:
        """All slots by `Slot.key`."""
        rows = self._query("SELECT name, document FROM slot ORDER BY name")
        return {name: self._decode(Slot, document) for name, document in rows}

    def entered_ms(self) -> dict[str, int]:
        """When each slot, by key, came to its phase: ms since 1970, by this device's clock."""
        last = "SELECT MAX(id) FROM step GROUP BY model"
        return dict(self._query(f"SELECT model, ts_ms FROM step WHERE id IN ({last})"))  # noqa: S608

    def save_slot(self, slot: Slot) -> None:
        """Keep a slot, a line of its history and its event in the chain; all or none."""
        with self.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO slot VALUES (?, ?)", (slot.key, render(encode(slot)))
            )
            self._db.execute(
                "INSERT INTO step (ts_ms, model, phase, digest, reason) VALUES (?, ?, ?, ?, ?)",
                (time.time_ns() // 1_000_000, slot.key, slot.phase, slot.target, slot.reason),
            )
            self._db.execute(
                "DELETE FROM step WHERE id <= (SELECT MAX(id) FROM step) - ?", (_KEPT_STEPS,)
            )
            self.chain.transition(slot)

    def note_slot(self, slot: Slot) -> None:
        """Keep what is no step of an install, and nobody's business."""
        self._write("INSERT OR REPLACE INTO slot VALUES (?, ?)", slot.key, render(encode(slot)))

    def delete_slot(self, slot: Slot) -> None:
        """Forget a model, but not its floor; or a challenger."""
        floors = {**self.removed_floors(), **({slot.name: slot.floor} if slot.floor else {})}
        kept = dict(list(floors.items())[-_KEPT_FLOORS:])
        with self.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (_FLOORS, render(encode(kept)))
            )
            self._db.execute("DELETE FROM slot WHERE name = ?", (slot.key,))
            self.chain.removed(slot)

    def removed_floors(self) -> dict[str, int]:
        """Floors of models that are gone, by name: a replay must not come after a removal."""
        return dict(self._decode(_Floors, b'{"floors":%b}' % (self.meta(_FLOORS) or b"{}")).floors)

    def bundles(self) -> dict[str, Stored]:
        """All bundles in the store by digest."""
        rows = self._query("SELECT digest, document FROM bundle ORDER BY digest")
        return {digest: self._decode(Stored, document) for digest, document in rows}

    def save_bundle(self, stored: Stored) -> None:
        """Remember that a bundle's blobs are all on disk."""
        self._write(
            "INSERT OR REPLACE INTO bundle VALUES (?, ?)", stored.digest, render(encode(stored))
        )

    def delete_bundle(self, digest: str) -> None:
        """Forget a bundle; called before its blobs go."""
        self._write("DELETE FROM bundle WHERE digest = ?", digest)

    def _migrate(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer agent: schema {version}, "
                f"this one knows {_SCHEMA_VERSION}"
            )
        if version < _SCHEMA_VERSION:
            database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or none of what is done inside.

        Raises:
            StoreError: The disk does not take it; nothing was done.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as exc:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(exc, sqlite3.Error):
                raise self._error(exc) from exc
            raise

    def _decode(self, cls: type[T], document: bytes) -> T:
        try:
            value = parse(document, what=self._path.name, max_bytes=_MAX_ROW_BYTES)
            return decode(cls, value, what=self._path.name, ignore_unknown=True)
        except DocumentError as exc:
            raise DamagedError(f"{self._path} is damaged: {exc}") from exc

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise self._error(exc) from exc

    def _write(self, sql: str, *values: object) -> None:
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as exc:
            raise self._error(exc) from exc

    def _error(self, exc: sqlite3.Error | OSError) -> StoreError:
        if getattr(exc, "sqlite_errorcode", None) in _DAMAGED:
            return DamagedError(f"{self._path} is damaged: {exc}")
        return StoreError(f"{self._path} cannot be used: {exc}")


def _copied(path: Path) -> sqlite3.Connection:
    """What a database holds, in memory."""
    with tempfile.TemporaryDirectory(prefix="edgepack-agent-") as folder:
        for name in (path.name, f"{path.name}-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(name), Path(folder) / name)
        copy = sqlite3.connect(":memory:", isolation_level=None)
        with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as source:
            source.backup(copy)
    return copy
