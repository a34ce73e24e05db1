"""What the agent and the device use, from /proc and /sys; what a device does not have is left out.

Parsing is apart from reading, and everything is read below one folder, so that the trees of a
Raspberry Pi, a PC and a container can be tried anywhere.
"""

import os
import re
import shutil
from pathlib import Path

from edgepack.trust.values import dataclass
from edgepack.wire.messages import Scalar

_MAX_BYTES = 64 * 1024
_MAX_ZONES = 8
_PLAUSIBLE_C = (-60.0, 200.0)
_UNDERVOLTAGE, _SLOWED = 0x1, 0x2 | 0x4 | 0x8  # capped frequency, throttled, soft limit
_SEEN = 16  # the same bits, since the start


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Processor time that went by, in clock ticks.

    Attributes:
        process: Of this process.
        busy: Of the device's processors, doing something.
        total: Of the device's processors.
    """

    process: int
    busy: int
    total: int


class Resources:
    """Looks at one device again and again.

    Args:
        state_dir: Folder on the disk that counts.
        root: The tree; another one in tests.
    """

    def __init__(self, state_dir: Path, root: Path = Path("/")) -> None:
        self._state_dir = state_dir
        self._root = root
        self._before: Ticks | None = self._ticks()

    def figures(self) -> dict[str, Scalar | None]:
        """Flat figures; shares of processors are since the last call."""
        before, self._before = self._before, self._ticks()
        return {
            **shares(before, self._before),
            "memory_bytes": resident_bytes(self._read("proc/self/statm")),
            "device_memory_available_bytes": self._memory_bytes(),
            "device_load_1m": first_number(self._read("proc/loadavg")),
            "device_uptime_s": first_number(self._read("proc/uptime")),
            "disk_free_bytes": self._disk_bytes(),
            **self._temperatures(),
            "cpu_mhz": _scaled(
                self._read("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"), 1e-3
            ),
            **throttling(self._read("sys/devices/platform/soc/soc:firmware/get_throttled")),
            "throttle_count": _whole(
                self._read("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")
            ),
        }

    def _ticks(self) -> Ticks | None:
        return ticks(self._read("proc/stat"), self._read("proc/self/stat"))

    def _memory_bytes(self) -> int | None:
        """Of the device, or of the container that the agent is in, whichever is less."""
        free = available_bytes(self._read("proc/meminfo"))
        limit = _whole(self._read("sys/fs/cgroup/memory.max"))
        used = _whole(self._read("sys/fs/cgroup/memory.current"))
        if limit is None or used is None:
            return free
        left = max(0, limit - used)
        return left if free is None else min(free, left)

    def _disk_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(self._state_dir).free
        except OSError:
            return None

    def _temperatures(self) -> dict[str, Scalar | None]:
        zones = sorted((self._root / "sys/class/thermal").glob("thermal_zone*"))[:_MAX_ZONES]
        found = [
            (self._read(f"sys/class/thermal/{zone.name}/type").strip(), degrees)
            for zone in zones
            if (degrees := _scaled(self._read(f"sys/class/thermal/{zone.name}/temp"), 1e-3))
            is not None
        ]
        return temperatures(found)

    def _read(self, path: str) -> str:
        try:
            with (self._root / path).open("rb") as handle:
                return handle.read(_MAX_BYTES).decode("ascii", "replace")
        except OSError:  # a sensor may also be there and not answer
            return ""


def ticks(stat: str, own_stat: str) -> Ticks | None:
    """Parse /proc/stat and /proc/self/stat (proc(5)).

    >>> ticks("cpu  10 0 5 80 5 0 0 0 0 0", "7 (a b) S 1 1 1 0 -1 0 0 0 0 0 3 4 0 0")
    Ticks(process=7, busy=15, total=100)
    """
    try:
        cpu = [int(word) for word in stat.partition("\n")[0].split()[1:9]]
        own = own_stat.rpartition(")")[2].split()  # the name may hold anything
        process = int(own[11]) + int(own[12])
    except (ValueError, IndexError):
        return None
    if len(cpu) < 4:
        return None
    idle = sum(cpu[3:5])  # waiting for a disk is not work
    return Ticks(process=process, busy=sum(cpu) - idle, total=sum(cpu))


def shares(before: Ticks | None, now: Ticks | None) -> dict[str, Scalar | None]:
    """Percent of one processor that the agent took, and of all processors that are busy."""
    if before is None or now is None or now.total <= before.total:
        return {}
    passed = now.total - before.total
    cores = os.cpu_count() or 1
    return {
        "cpu_percent": round(100 * cores * max(0, now.process - before.process) / passed, 2),
        "device_cpu_percent": round(100 * max(0, now.busy - before.busy) / passed, 2),
    }


def resident_bytes(statm: str) -> int | None:
    """Parse /proc/self/statm.

    >>> resident_bytes("100 25 3 1 0 9 0") == 25 * os.sysconf("SC_PAGE_SIZE")
    True
    """
    try:
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, IndexError):
        return None


def available_bytes(meminfo: str) -> int | None:
    """Parse /proc/meminfo.

    >>> available_bytes("MemAvailable:     512 kB")
    524288
    """
    found = re.search(r"^MemAvailable:\s+(\d{1,15}) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def temperatures(zones: list[tuple[str, float]]) -> dict[str, Scalar | None]:
    """The hottest one, and each by name where there are several.

    >>> temperatures([("cpu-thermal", 48.3)])
    {'temperature_c': 48.3}
    """
    low, high = _PLAUSIBLE_C
    good = [(name, round(degrees, 1)) for name, degrees in zones if low < degrees < high]
    if not good:
        return {}
    found: dict[str, Scalar | None] = {"temperature_c": max(degrees for _, degrees in good)}
    if len(good) > 1:
        for name, degrees in good:
            key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:32] or "unnamed"
            found.setdefault(f"temperature_{key}_c", degrees)
    return found


def throttling(get_throttled: str) -> dict[str, Scalar | None]:
    """What a Raspberry Pi's firmware says: now, and since it was started.

    >>> throttling("50005")["undervoltage"]
    True
    """
    text = get_throttled.strip().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{1,8}", text):
        return {}
    flags = int(text, 16)
    return {
        "undervoltage": bool(flags & _UNDERVOLTAGE),
        "throttled": bool(flags & _SLOWED),
        "undervoltage_seen": bool(flags >> _SEEN & _UNDERVOLTAGE),
        "throttled_seen": bool(flags >> _SEEN & _SLOWED),
    }


def first_number(text: str) -> float | None:
    """The first word, as a number.

    >>> first_number("0.52 0.58 0.59 3/602 11")
    0.52
    """
    found = re.match(r"\d{1,15}(\.\d{1,9})?(?=\s|$)", text)
    return float(found[0]) if found else None


def _whole(text: str) -> int | None:
    found = re.fullmatch(r"\d{1,18}", text.strip())
    return int(found[0]) if found else None


def _scaled(text: str, factor: float) -> float | None:
    found = re.fullmatch(r"-?\d{1,12}", text.strip())
    return round(int(found[0]) * factor, 3) if found else None
