"""How much memory a process has, from /proc; None where there is none."""

import contextlib
import re
from pathlib import Path

from edgepack.trust.values import dataclass

_FIELDS = re.compile(r"^(VmHWM|VmRSS|RssAnon|RssFile|VmData):\s+([0-9]+) kB$", re.MULTILINE)
_LARGEST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Of one process, in bytes.

    Attributes:
        peak: Largest resident memory since it started, or since `reset_peak`.
        resident: Resident now: private and of files.
        private: What only it has (anonymous pages).
        files: Pages of files, which other processes may share.
        data: Private memory that it asked for, used or not: what RLIMIT_DATA bounds.
    """

    peak: int
    resident: int
    private: int
    files: int
    data: int


def process_memory(pid: int | None = None) -> ProcessMemory | None:
    """Look at a process, by default at this one; None if it is gone or cannot be seen."""
    try:
        with Path(f"/proc/{pid or 'self'}/status").open(encoding="ascii", errors="replace") as file:
            text = file.read(_LARGEST_BYTES)
    except OSError:
        return None
    found = {name: int(kib) * 1024 for name, kib in _FIELDS.findall(text)}
    if "VmRSS" not in found:  # it has ended
        return None
    resident = found["VmRSS"]
    return ProcessMemory(
        peak=found.get("VmHWM", resident),
        resident=resident,
        private=found.get("RssAnon", resident),  # before Linux 4.5 nothing tells them apart
        files=found.get("RssFile", 0),
        data=found.get("VmData", 0),
    )


def reset_peak() -> None:
    """Let this process's peak begin anew, where the kernel allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def available_bytes() -> int | None:
    """Memory that may be taken now without swapping; None if the system does not tell.

    The limit of a container is not looked at: there, whoever takes too much is ended by the
    kernel, and a process that offers itself first is ended first.
    """
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            found = re.search(r"^MemAvailable:\s+([0-9]+) kB$", file.read(4096), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def die_first() -> None:
    """Offer this process to the kernel when memory runs out, before the one that serves."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
