"""The machine: versions, clock, disk."""

import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from edgepack.agent.disk import fsync_folder
from edgepack.agent.doctor.finding import Finding, fail, ok, warn
from edgepack.agent.doctor.patient import Patient

_PACKAGES = ("numpy", "paho-mqtt", "aiomqtt", "cryptography")
_OLDEST_PYTHON = (3, 11)
_LEAST_BYTES = 16 * 10**6  # an install needs this much besides what it fetches
_FEW_BYTES = 100 * 10**6
_FEW_INODES = 1000


def check_versions(_: Patient) -> Iterator[Finding]:
    """Python, edgepack and what it needs."""
    found, missing = [], []
    for name in ("edgepack", *_PACKAGES):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        mend = f"install: pip install {' '.join(missing)}"
        yield fail("versions", f"{', '.join(missing)} not installed in {sys.prefix}", mend)
    if sys.version_info < _OLDEST_PYTHON:
        yield fail("versions", f"Python {platform.python_version()}", "use Python 3.11 or later")
    else:
        yield ok("versions", f"Python {platform.python_version()}, {', '.join(found)}")


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Whether it can be right: 1970, or far in the future."""
    verdict = patient.clock
    if verdict.complaint:
        yield fail(
            "clock",
            verdict.complaint,
            "set it, and let something keep it (systemd-timesyncd, chrony, a battery): "
            "certificates and expiry cannot be checked; installs go on",
        )
    else:
        yield ok("clock", f"{datetime.fromtimestamp(verdict.now_s, UTC):%Y-%m-%d %H:%M} UTC")


def check_disk(patient: Patient) -> Iterator[Finding]:
    """Space, inodes, and whether it takes anything at all."""
    state = patient.config.state_dir
    folder = next((path for path in (state, *state.parents) if path.exists()), Path("/"))
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    room = f"{free / 1e6:.0f} MB free under {state}"
    if found.f_flag & os.ST_RDONLY:
        yield fail("disk", f"{folder} is mounted read-only", "mount it writable; look at `dmesg`")
        return
    if free < _LEAST_BYTES:
        yield fail("disk", room, "make room: nothing can be installed, reports are dropped")
    elif free < _FEW_BYTES:
        yield warn("disk", room, "make room: larger bundles will not fit")
    else:
        yield ok("disk", room)
    if found.f_files and found.f_favail < _FEW_INODES:
        yield fail("inodes", f"{found.f_favail} free", "delete small files: no more can be made")
    if state.exists():
        yield from _writes(state)


def _writes(state: Path) -> Iterator[Finding]:
    """Write a file, really, and delete it again."""
    trial = state / f".doctor.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        handle = os.open(trial, flags, 0o600)
        try:
            os.write(handle, b"x" * 4096)
            os.fsync(handle)
        finally:
            os.close(handle)
            trial.unlink()
        fsync_folder(state)
    except PermissionError:
        yield warn("disk", f"{state} is another user's", "call doctor as root, or as that user")
    except OSError as exc:
        yield fail("disk", f"{state} takes no file: {exc.strerror}", "look at `dmesg` and `df`")
