"""Writing that survives a power cut: temporary file, fsync, rename, fsync of the folder."""

import errno
import fcntl
import os
import time
from pathlib import Path

from edgepack.agent.errors import StoreError

LOCK_NAME = "agent.lock"  # in the state folder
_LOOK_S = 0.1


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: The disk does not take it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Make a folder (and its parents) that only this user may enter.

    Args:
        folder: The folder.
        durable: Whether it is there after a power cut, before anything in it counts as kept.

    Raises:
        StoreError: The disk does not take it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in made if durable else ():
            fsync_folder(path.parent)
    except OSError as exc:
        raise storage_error(folder, exc) from exc


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file so that after a power cut the old or the new one is there, whole.

    Raises:
        StoreError: The disk does not take it.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise storage_error(path, exc) from exc


def storage_error(path: Path, exc: OSError) -> StoreError:
    """One line for a disk that does not do what it must."""
    hint = " (disk full)" if exc.errno == errno.ENOSPC else ""
    return StoreError(f"{path} cannot be used: {exc.strerror or exc}{hint}")


class FolderLock:
    """Only one process may own a state folder; the lock goes when the process does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self.is_read_only = False

    def acquire(self) -> None:
        """Take the lock; `is_read_only` tells whether the disk is.

        Raises:
            StoreError: Another process has it, or the folder cannot be written.
        """
        try:
            self._handle = self._open()
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_S)  # somebody may just be looking (`is_locked`)
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self.release()
            raise StoreError(
                f"{self._path.parent} is in use by another edgepack-agent; stop it first"
            ) from exc
        except OSError as exc:
            raise storage_error(self._path, exc) from exc

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno != errno.EROFS or not self._path.exists():
                raise
            self.is_read_only = True
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def release(self) -> None:
        """Give it back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_locked(path: Path) -> bool:
    """Whether a process holds the `FolderLock` at `path` now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
