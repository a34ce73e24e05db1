"""Write files and folders so that nobody ever sees half of one."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgepack.bundle.errors import BundleWriteError, DestinationError


@contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Give a file that becomes `path` when the block ends well, and vanishes otherwise.

    Raises:
        BundleWriteError: The disk refused.
    """
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as exc:
        raise BundleWriteError(f"cannot write {path}: {exc.strerror}") from exc
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def fill_folder_atomically(folder: Path) -> Iterator[Path]:
    """Give a new folder that becomes `folder` when the block ends well, and vanishes otherwise.

    Raises:
        DestinationError: There is something at `folder` that is not an empty folder.
        BundleWriteError: The disk refused.
    """
    folder = folder.absolute()  # "." has no name beside which to write
    taken = DestinationError(f"{folder} must not exist or be an empty folder")
    temporary = _beside(folder)
    try:
        if folder.is_symlink() or (
            folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        ):
            raise taken
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for inner in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
            sync_folder(inner)
        if os.name != "posix" and folder.exists():
            folder.rmdir()  # elsewhere a rename does not replace even an empty folder
        temporary.rename(folder)
        sync_folder(folder.parent)
    except (FileExistsError, NotADirectoryError) as exc:
        raise taken from exc
    except OSError as exc:
        raise BundleWriteError(f"cannot write {folder}: {exc.strerror}") from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
