"""The only disk access of trust: small files read with a bound, secrets written for one reader."""

import os
import stat
from pathlib import Path

from edgepack.trust.errors import KeyFileError

MAX_KEY_FILE_BYTES = 4096
_OWNER_ONLY = 0o600
_OTHERS = 0o077
# Not on every system: where they are missing there are no FIFOs and links of that kind either.
_O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_O_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_O_BINARY = getattr(os, "O_BINARY", 0)


def read_small(path: Path, *, max_bytes: int) -> bytes:
    """Read a regular file of bounded size.

    Raises:
        KeyFileError: It is missing, not a regular file, or larger.
    """
    data, _ = _read(path, max_bytes)
    return data


def read_secret(path: Path) -> bytes:
    """Read a key file that nobody but its owner can read.

    Raises:
        KeyFileError: It is missing, too large, or open to other users.
    """
    data, mode = _read(path, MAX_KEY_FILE_BYTES)
    if os.name == "posix" and mode & _OTHERS:
        raise KeyFileError(
            f"private key {path} must be readable by its owner only (mode 0600), "
            f"got mode {stat.S_IMODE(mode):04o}; mend it with: chmod 600 {path}"
        )
    return data


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file with mode 0600 and flush it to the disk.

    Raises:
        KeyFileError: The file is there already, or cannot be written.
    """
    write_new(path, data, mode=_OWNER_ONLY)


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet and flush it to the disk.

    Raises:
        KeyFileError: The file is there already, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _O_NOFOLLOW | _O_BINARY
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError as exc:
        raise KeyFileError(f"{path} is there already; keys are never overwritten") from exc
    except OSError as exc:
        raise KeyFileError(f"cannot write {path}: {exc.strerror}") from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except OSError as exc:
        path.unlink(missing_ok=True)  # half a key is worse than none
        raise KeyFileError(f"cannot write {path}: {exc.strerror}") from exc


def replace_file(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file anew: whoever reads it meanwhile sees the old or the new one, whole.

    Raises:
        KeyFileError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write_new(temporary, data, mode=mode)
    try:
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise KeyFileError(f"cannot write {path}: {exc.strerror}") from exc


def _read(path: Path, max_bytes: int) -> tuple[bytes, int]:
    try:
        # Non-blocking: opening a FIFO would otherwise wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | _O_NONBLOCK | _O_BINARY)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyFileError(f"{path} must be a regular file, got something else")
            data = file.read(max_bytes + 1)
    except OSError as exc:
        raise KeyFileError(f"cannot read {path}: {exc.strerror}") from exc
    if len(data) > max_bytes:
        raise KeyFileError(f"{path} must be at most {max_bytes} bytes, got more")
    return data, mode


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # other systems cannot open a folder
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
