"""Whether the user who runs the agent may do something with a file: asked by root or by itself."""

import os
import pwd
from pathlib import Path


def may(path: Path, mode: int, owner: os.stat_result) -> bool:
    """Whether the user may, all folders on the way included.

    Args:
        path: What is there.
        mode: `os.R_OK`, `os.W_OK` and `os.X_OK`, joined.
        owner: Of the state folder: who runs the agent.
    """
    if owner.st_uid == os.geteuid():
        return os.access(path, mode)
    if owner.st_uid == 0:
        return True
    groups = _groups(owner)
    ways = all(_bits(parent, owner.st_uid, groups) & os.X_OK for parent in path.absolute().parents)
    return ways and _bits(path, owner.st_uid, groups) & mode == mode


def user_name(number: int) -> str:
    """A user by name, or by number where there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _bits(path: Path, user: int, groups: set[int]) -> int:
    """What the mode allows: R_OK, W_OK and X_OK are its bits."""
    found = path.stat()
    if found.st_uid == user:
        return found.st_mode >> 6 & 7
    return found.st_mode >> (3 if found.st_gid in groups else 0) & 7


def _groups(owner: os.stat_result) -> set[int]:
    try:
        known = pwd.getpwuid(owner.st_uid)
    except KeyError:
        return {owner.st_gid}
    return {owner.st_gid, *os.getgrouplist(known.pw_name, known.pw_gid)}
