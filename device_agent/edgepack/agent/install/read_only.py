"""A state folder on a disk that is read-only at the start: what answered goes on answering.

The databases are opened from a copy in memory, since SQLite has to write beside a database that was
not closed tidily. What is remembered there is forgotten at the next stop; so nothing is installed,
no desired state is accepted, and nothing is signed.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from edgepack.agent.disk import storage_error
from edgepack.agent.install.spare import DATABASE, SPARE

COMPLAINT = (
    "the state folder is on a read-only disk: what answers goes on, nothing is installed or "
    "remembered; mend the disk and start the agent again"
)
_MEMORY = Path("/dev/shm")  # noqa: S108 (only a folder in it that only this user may enter)
_COPIED = (DATABASE, f"{DATABASE}-wal", SPARE)


def copy_in_memory(state_dir: Path) -> Path:
    """A folder of this process's own that has what the agent remembers.

    Raises:
        StoreError: There is no room for it, or the disk does not give it.
    """
    try:
        folder = _own_folder(state_dir)
        for name in _COPIED:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(state_dir / name, folder / name)
    except OSError as exc:
        raise storage_error(state_dir, exc) from exc
    return folder


def _own_folder(state_dir: Path) -> Path:
    """One to a state folder, so that an agent that is killed again and again fills no memory."""
    digest = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    folder = parent / f"edgepack-agent-{os.getuid()}-{digest}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:  # somebody else's: leave it
        return Path(tempfile.mkdtemp(prefix="edgepack-agent-", dir=parent))
    return folder
