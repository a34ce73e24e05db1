"""A watched folder: images and WAV files, one sample each, in the order in which they came.

A file counts when it has not changed for a while, so that one that is still being written is left
alone; names that begin with a dot or end like those of unfinished downloads are passed over.
Looking costs one `stat` as long as nothing comes.
"""

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgepack.agent.config.inputs import FilesConfig, Handled
from edgepack.agent.feed.errors import MessageError
from edgepack.agent.feed.feeder import Feeder
from edgepack.agent.feed.mapping import Sample
from edgepack.bundle.contract import Contract
from edgepack.runtime.errors import DatasetError
from edgepack.runtime.tensors import Array
from edgepack.trust.values import dataclass

logger = logging.getLogger(__name__)

DONE: Final = "done"
FAILED: Final = "failed"
_UNFINISHED: Final = re.compile(r"\..*|.*(~|\.(tmp|temp|part|partial|filepart|crdownload))", re.I)
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_MAX_FILES: Final = 10_000  # of a folder that are looked at
_RACY_S: Final = 2.0  # in one tick of a file system's clock several files may come
_FOR_LATER: Final = frozenset({"busy", "no_model", "mismatch"})


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file looked like: it changes when somebody writes to it."""

    size_bytes: int
    changed_ns: int
    inode: int


class Watch:
    """Decides which files are complete. Pure: it is told what is there and what time it is.

    Args:
        settle_s: How long a file must not have changed.
        known: Files that are passed over as long as they stay as they are.
    """

    def __init__(self, settle_s: float, known: dict[str, Seen]) -> None:
        self._settle_s = settle_s
        self._known = known
        self._since: dict[str, tuple[Seen, float]] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a file is there that is not complete yet."""
        return bool(self._since)

    def look(self, found: dict[str, Seen], now_s: float) -> list[str]:
        """The names of the files that are complete, in the order in which they were written."""
        self._known = {name: seen for name, seen in self._known.items() if found.get(name) == seen}
        since: dict[str, tuple[Seen, float]] = {}
        for name, seen in found.items():
            if name in self._known:
                continue
            before, first_s = self._since.get(name, (seen, now_s))
            since[name] = (seen, first_s if before == seen else now_s)
        self._since = since
        ripe = [name for name, (_, first_s) in since.items() if now_s - first_s >= self._settle_s]
        return sorted(ripe, key=lambda name: (found[name].changed_ns, name))

    def handled(self, name: str) -> None:
        """A file was handled; if it is still there, it is passed over."""
        seen, _ = self._since.pop(name)
        self._known[name] = seen


class FolderSource:
    """Feeds what appears in a folder.

    Args:
        config: The folder.
        feeder: What it feeds.
        clock: Monotonic, in seconds.

    Attributes:
        is_watching: Whether it has looked at what was there at the start.
    """

    def __init__(
        self, config: FilesConfig, feeder: Feeder, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._folder = Path(config.path)
        self._feeder = feeder
        self._clock = clock
        self._stamp = -1
        self._stamp_s = 0.0
        self._problem = ""
        self.is_watching = False

    async def run(self) -> None:
        """Watch until cancelled; a folder that is not there is waited for."""
        known = await asyncio.to_thread(self._at_start)
        watch = Watch(self._config.settle_s, known)
        self.is_watching = True
        while True:
            await self._feeder.ready()
            if self._may_have_changed() or watch.is_waiting:
                found = await asyncio.to_thread(self._list)
                for name in watch.look(found, self._clock()):
                    if await self._handle(name):
                        watch.handled(name)
            await asyncio.sleep(self._config.poll_s)

    def _at_start(self) -> dict[str, Seen]:
        return self._list() if self._config.handled is Handled.KEEP else {}

    def _may_have_changed(self) -> bool:
        try:
            stamp = self._folder.stat().st_mtime_ns
        except OSError as exc:
            self._say(f"folder {self._folder} cannot be read: {exc.strerror}")
            return False
        if stamp != self._stamp:
            self._stamp, self._stamp_s = stamp, self._clock()
        return self._clock() - self._stamp_s <= max(_RACY_S, 2 * self._config.poll_s)

    def _list(self) -> dict[str, Seen]:
        found: dict[str, Seen] = {}
        problem = ""
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if _UNFINISHED.fullmatch(entry.name) or not entry.name.isprintable():
                        continue
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    if len(found) == _MAX_FILES:
                        problem = f"folder {self._folder} holds more than {_MAX_FILES} files"
                        break
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat(follow_symlinks=False)
                        found[entry.name] = Seen(stat.st_size, stat.st_mtime_ns, stat.st_ino)
        except OSError as exc:
            problem = f"folder {self._folder} cannot be read: {exc.strerror}"
        self._say(problem)
        return found

    def _say(self, problem: str) -> None:
        if problem and problem != self._problem:
            logger.warning("feed.unusable name=%s error=%s", self._feeder.config.name, problem)
        self._problem = problem

    async def _handle(self, name: str) -> bool:
        """Have a file answered and put away; False when it has to be tried again."""
        contract = self._feeder.contract()
        if contract is None:
            return False
        self._feeder.received()
        path = self._folder / name
        place = DONE
        try:
            inputs = await asyncio.to_thread(_read, path, contract, self._config.max_file_mb)
            request_id = name if _REQUEST_ID.fullmatch(name) else None
            source = self._feeder.config.name
            await self._feeder.answer(Sample(inputs=inputs, source=source, request_id=request_id))
        except MessageError as exc:
            self._feeder.reject(exc)
            if exc.reason in _FOR_LATER:
                return False
            place = FAILED
        await asyncio.to_thread(self._put_away, path, place)
        return True

    def _put_away(self, path: Path, place: str) -> None:
        handled = self._config.handled
        try:
            if handled is Handled.DELETE and place == DONE:
                path.unlink(missing_ok=True)
            elif handled is not Handled.KEEP:
                folder = self._folder / place
                folder.mkdir(exist_ok=True)
                _make_room(folder, self._config.max_done - 1)
                path.replace(_free_name(folder, path.name))
        except OSError as exc:
            self._say(f"{path} cannot be put away: {exc.strerror}")


def _read(path: Path, contract: Contract, max_file_mb: float) -> dict[str, Array]:
    from edgepack.runtime.dataset_one import read_one  # and Pillow: only where files come

    try:
        if path.lstat().st_size > max_file_mb * 1e6:
            raise MessageError("too_large", f"{path.name} must be at most {max_file_mb} MB")
        return read_one(path, contract)
    except OSError as exc:
        raise MessageError("unreadable", f"{path.name} cannot be read: {exc.strerror}") from exc
    except DatasetError as exc:
        raise MessageError("wrong_value", str(exc)) from exc


def _free_name(folder: Path, name: str) -> Path:
    free = path = folder / name
    number = 1
    while free.exists():
        number += 1
        free = folder / f"{path.stem}-{number}{path.suffix}"
    return free


def _make_room(folder: Path, most: int) -> None:
    """Delete the oldest files of a folder down to so many."""
    with os.scandir(folder) as entries:
        files = [
            (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path)
            for entry in entries
            if entry.is_file(follow_symlinks=False)
        ]
    for _, path in sorted(files)[: max(0, len(files) - most)]:
        Path(path).unlink(missing_ok=True)
