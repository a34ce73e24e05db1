"""The files of an upgrade: releases, the link to the current one, and what is being tried.

A try is two files beside `releases`: `upgrade.json` says what replaces what, and the link `trying`
names the OLD release while nothing is decided, so that systemd finds code that is known to work.
Every step is one atomic change; in whatever order power is lost, `upgrade.settle` goes on.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from edgepack.agent.disk import fsync_folder, storage_error, write_durably
from edgepack.agent.errors import UpgradeError
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import parse, render
from edgepack.trust.values import dataclass
from edgepack.wire.installation import Installation

_COMPLETE = ".complete"
_MAX_BYTES = 64 * 1024
DATABASES = ("agent.db", "outbox.db")
_ENDS = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An upgrade that is not decided.

    Attributes:
        old, new: Names of the releases.
        keeps_state: Whether the databases are kept as they were: the new release changes their
            form, so that the old one could not read them afterwards.
        unit_before: The systemd unit's text, where the new release brings another one.
        is_made: Whether the new release was made for this: it goes where it is taken back.
    """

    old: str
    new: str
    keeps_state: bool = False
    unit_before: str | None = None
    is_made: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a complete release was made of: version, and the sequence of its wheelhouse."""

    version: str
    sequence: int = 0


class Place:
    """What lies under `/opt/edgepack`; only root changes it.

    Args:
        installation: Where everything is.
    """

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        base = installation.base
        self.trying = base / "trying"
        self._record = base / "upgrade.json"
        self._kept = base / "state-before"

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other upgrade is under way; while inside, none begins.

        Raises:
            StoreError: The folder cannot be written.
        """
        path = self.installation.base / "upgrade.lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise storage_error(path, exc) from exc
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def release(self, name: str) -> Path:
        """The folder of a release."""
        return self.installation.releases / name

    def program(self, name: str) -> Path:
        """The command of a release."""
        return self.release(name) / "bin" / "edgepack-agent"

    def current(self) -> str:
        """Name of the release that `current` names.

        Raises:
            UpgradeError: There is none: the agent was not installed in this layout.
        """
        link = self.installation.current
        try:
            name = Path(link.readlink()).name
        except OSError:
            name = ""
        if not name or not self.program(name).exists():
            raise UpgradeError(
                f"{link} must name a release of the agent, got none; "
                "`edgepack setup` installs in this way"
            )
        return name

    def switch(self, name: str) -> None:
        """Let `current` name another release, in one step."""
        self._link(self.installation.current, name)

    def attempt(self) -> Attempt | None:
        """The upgrade that is not decided, or None.

        Raises:
            UpgradeError: What is written about it cannot be read.
        """
        try:
            data = self._record.read_bytes()[:_MAX_BYTES]
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise storage_error(self._record, exc) from exc
        try:
            value = parse(data, what=self._record.name, max_bytes=_MAX_BYTES)
            return decode(Attempt, value, what=self._record.name, ignore_unknown=True)
        except DocumentError as exc:
            raise UpgradeError(f"{self._record} is damaged: {exc}") from exc

    def begin(self, attempt: Attempt) -> None:
        """Remember that nothing is decided; nothing has changed yet."""
        write_durably(self._record, render(encode(attempt)))
        self._link(self.trying, attempt.old)

    def note(self, attempt: Attempt) -> None:
        """Remember more about it."""
        write_durably(self._record, render(encode(attempt)))

    def end(self) -> None:
        """It is decided, as soon as the record is gone; what else is left is only tidied away."""
        self._record.unlink(missing_ok=True)
        fsync_folder(self._record.parent)
        shutil.rmtree(self._kept, ignore_errors=True)
        self.trying.unlink(missing_ok=True)

    def keep_state(self, state: Path) -> None:
        """Copy the databases of an agent that does not run."""
        part = self._kept.with_name(f".{self._kept.name}")
        for folder in (part, self._kept):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            part.mkdir(mode=0o700)
            for name in self._files(state):
                _copy_file(state / name, part / name)
            fsync_folder(part)
            part.rename(self._kept)
            fsync_folder(self._kept.parent)
        except OSError as exc:
            raise storage_error(part, exc) from exc

    def bring_state_back(self, state: Path) -> None:
        """Put the copies where they were; the agent does not run. Again is as good as once."""
        if not (self._kept / DATABASES[0]).exists():
            return
        try:
            owner = state.stat()
            for name in self._files(state):
                if not (self._kept / name).exists():
                    (state / name).unlink()
            for name in self._files(self._kept):
                copy = state / f".{name}.back"
                copy.unlink(missing_ok=True)
                _copy_file(self._kept / name, copy)
                if os.geteuid() == 0:
                    os.chown(copy, owner.st_uid, owner.st_gid, follow_symlinks=False)
                copy.replace(state / name)
            fsync_folder(state)
        except OSError as exc:
            raise storage_error(state, exc) from exc

    def origin(self, name: str) -> Origin | None:
        """What a release was made of; None for one that is not complete.

        One that `edgepack setup` made has no such note, and is taken for what it is called.
        """
        path = self.release(name) / _COMPLETE
        try:
            value = parse(path.read_bytes()[:_MAX_BYTES], what=_COMPLETE, max_bytes=_MAX_BYTES)
            return decode(Origin, value, what=_COMPLETE, ignore_unknown=True)
        except (OSError, DocumentError):
            return None

    def completed(self, name: str, origin: Origin) -> None:
        """A release is whole; everything in it is on disk."""
        os.sync()
        write_durably(self.release(name) / _COMPLETE, render(encode(origin)))

    def discard(self, name: str) -> None:
        """Delete a release; half of one is not taken for a whole one."""
        (self.release(name) / _COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(self.release(name), ignore_errors=True)

    def prune(self, kept: set[str]) -> None:
        """Delete every release but those."""
        for path in self.installation.releases.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _files(self, folder: Path) -> list[str]:
        names = [name + end for name in DATABASES for end in _ENDS]
        return [name for name in names if (folder / name).exists()]

    def _link(self, link: Path, release: str) -> None:
        fresh = link.with_name(f".{link.name}.new")
        try:
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(Path("releases") / release)
            fresh.replace(link)
            fsync_folder(link.parent)
        except OSError as exc:
            raise storage_error(link, exc) from exc


def _copy_file(source: Path, target: Path) -> None:
    """Copy a regular file to a new one, durably.

    The state folder belongs to a user with fewer rights than whoever upgrades: no link of its is
    followed, neither to read nor to write.
    """
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(reading, "rb") as old:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(source))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o600), "wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())
