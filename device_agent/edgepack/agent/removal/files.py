"""Deleting an installation: only what it made, and nothing that looks like something else."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from edgepack.agent.config import AgentConfig
from edgepack.agent.disk import LOCK_NAME, is_locked, storage_error
from edgepack.agent.errors import ConfigError
from edgepack.agent.install.spare import DATABASE
from edgepack.wire.installation import USER, Installation

_OURS = frozenset({DATABASE, LOCK_NAME, "store", "staging", "outbox.db"})


def doomed(installation: Installation, config: AgentConfig, *, purge: bool) -> list[Path]:
    """What would be deleted, in that order; what is not there is left out.

    Raises:
        ConfigError: The state folder holds what no agent wrote.
    """
    state = config.state_dir
    if state.exists():
        names = {path.name for path in state.iterdir()}
        if names and not names & _OURS:
            raise ConfigError(
                f"{state} does not look like an agent's state folder: nothing deleted"
            )
    paths = [installation.unit, installation.command, state]
    if purge:
        paths.append(installation.etc)
    paths.append(installation.base)
    return [path for path in paths if path.exists() or path.is_symlink()]


def delete(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it.

    Raises:
        StoreError: The disk does not let go of it.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as exc:
        raise storage_error(path, exc) from exc


def runs(config: AgentConfig) -> bool:
    """Whether an agent still has the state folder."""
    return is_locked(config.state_dir / LOCK_NAME)


def has_user(installation: Installation) -> bool:
    """Whether the agent's user is there, and is this installation's to delete."""
    if installation.root != Path("/") or os.geteuid() != 0:
        return False
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def delete_user() -> bool:
    """Delete the agent's user and its group."""
    done = subprocess.run(["userdel", USER], capture_output=True, check=False)  # noqa: S607
    return done.returncode == 0
