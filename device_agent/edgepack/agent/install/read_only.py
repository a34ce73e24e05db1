"""A state folder on a disk that is read-only at the start: what answered goes on answering.

The databases are opened from a copy in memory, since SQLite has to write beside a database that was
not closed tidily. What is remembered there is forgotten at the next stop; so nothing is installed,
no desired state is accepted, and nothing is signed.
"""

import contextlib
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
_MEMORY = Path("/dev/shm")  # noqa: S108 (only a folder in it that mkdtemp makes)
_COPIED = (DATABASE, f"{DATABASE}-wal", SPARE)


def copy_in_memory(state_dir: Path) -> Path:
    """A folder of this process's own that has what the agent remembers.

    Raises:
        StoreError: There is no room for it, or the disk does not give it.
    """
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    try:
        folder = Path(tempfile.mkdtemp(prefix="edgepack-agent-", dir=parent))
        for name in _COPIED:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(state_dir / name, folder / name)
    except OSError as exc:
        raise storage_error(state_dir, exc) from exc
    return folder
