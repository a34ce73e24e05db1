"""Whose engine was at work when the agent died.

An engine that crashes takes the whole process with it, and the next start has to know which of
several models on probation that was. Each call of an engine is marked in a file that is mapped
into memory: what was written there outlives the process without a single write to the disk. It
does not outlive the machine, nor has it to: after a power cut no engine is to blame.
"""

import logging
import mmap
import os
import threading
from pathlib import Path
from types import TracebackType

logger = logging.getLogger(__name__)

FILE_NAME = "engines.marks"  # in the state folder
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HEAD_BYTES = 64
_RECORD_BYTES = 128  # how many calls are under way, and the model's name
_RECORDS = 31  # with the head no more than a page
_MOST = 255


class Mark:
    """One model's mark; enter it round every call of the engine, from any thread."""

    def __init__(self, memory: mmap.mmap, place: int) -> None:
        self._memory = memory
        self._place = place
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._add(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._add(-1)

    def _add(self, change: int) -> None:
        with self._lock:
            self._memory[self._place] = min(_MOST, max(0, self._memory[self._place] + change))


class EngineMarks:
    """The marks of this agent's models.

    Args:
        path: The file; made anew. Where the disk does not take it there are no marks.

    Attributes:
        left: The models whose engines were at work when the agent before this one died.
    """

    def __init__(self, path: Path) -> None:
        boot_id = _boot_id()
        self.left = _left(path, boot_id)
        self._marks: dict[str, Mark] = {}
        self._memory: mmap.mmap | None = None
        empty = boot_id.ljust(_HEAD_BYTES, b"\0") + bytes(_RECORDS * _RECORD_BYTES)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.pwrite(self._file, empty, 0)
            self._memory = mmap.mmap(self._file, len(empty))
        except OSError as exc:
            logger.warning("marks.off path=%s error=%s", path, exc.strerror)

    def of(self, name: str) -> Mark | None:
        """A model's mark, or None where there is no room for it."""
        known = self._marks.get(name)
        if known is not None or self._memory is None or len(self._marks) == _RECORDS:
            return known
        place = _HEAD_BYTES + len(self._marks) * _RECORD_BYTES
        try:
            os.pwrite(self._file, name.encode()[: _RECORD_BYTES - 1], place + 1)
        except OSError:
            return None
        self._marks[name] = Mark(self._memory, place)
        return self._marks[name]


def _left(path: Path, boot_id: bytes) -> frozenset[str]:
    try:
        with path.open("rb") as handle:
            data = handle.read(_HEAD_BYTES + _RECORDS * _RECORD_BYTES)
    except OSError:
        return frozenset()
    if not boot_id or data[:_HEAD_BYTES].rstrip(b"\0") != boot_id:
        return frozenset()  # another start of the machine: what is there is not what was last
    records = (data[at : at + _RECORD_BYTES] for at in range(_HEAD_BYTES, len(data), _RECORD_BYTES))
    busy = (record[1:].rstrip(b"\0") for record in records if record[0])
    return frozenset(name.decode(errors="replace") for name in busy)


def _boot_id() -> bytes:
    try:
        return _BOOT_ID.read_bytes().strip()[:_HEAD_BYTES]
    except OSError:
        return b""
