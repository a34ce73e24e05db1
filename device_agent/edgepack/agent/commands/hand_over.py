"""Giving the agent a file of a person who has more rights than it.

The agent runs as a user of its own and sees no home folder. What root brings is copied to where
that user may read it; and what root does while no agent runs is done as that user, or the agent
could not use its own state folder afterwards.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgepack.agent.disk import storage_error


def agent_user(state: Path) -> tuple[int, int] | None:
    """User and group of the state folder, where they have fewer rights than this process."""
    if os.geteuid() != 0:
        return None
    try:
        owner = state.stat()
    except OSError:
        return None
    return (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else None


@contextlib.contextmanager
def handed_over(state: Path, files: Sequence[Path]) -> Iterator[list[Path]]:
    """Files under names that the agent may read; their copies are gone afterwards.

    Args:
        state: The agent's state folder.
        files: What a person named.

    Raises:
        StoreError: One cannot be read, or there is no room for a copy.
    """
    user = agent_user(state)
    if user is None:
        yield list(files)
        return
    path = state.parent
    try:
        folder = Path(tempfile.mkdtemp(prefix="edgepack-", dir=path))  # only root writes there
    except OSError as exc:
        raise storage_error(path, exc) from exc
    try:
        copies = []
        for number, path in enumerate(files):
            copy = folder / str(number) / path.name
            copy.parent.mkdir(mode=0o700)
            shutil.copyfile(path, copy)
            copies.append(copy)
        for made in (*copies, *(copy.parent for copy in copies), folder):
            os.chown(made, *user)
        yield copies
    except OSError as exc:
        raise storage_error(path, exc) from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def acting_as_agent(state: Path) -> Iterator[None]:
    """Be the agent's user meanwhile; a process that is started inside never gets more rights."""
    user = agent_user(state)
    if user is None:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(user[1], user[1], 0)
    os.setresuid(user[0], user[0], 0)  # an exec forgets the saved one
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)
