"""What a running agent says of itself to whoever stands at the device."""

import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.agent.serve.served import ServedModel
from edgepack.wire.installation import release_of


def process_facts() -> dict[str, Any]:
    """This process: `pid`, `release`, `uptime_s`, `memory_bytes`, `python`."""
    return {
        "pid": os.getpid(),
        "release": release_of(Path(sys.prefix)),
        "uptime_s": _uptime_s(),
        "memory_bytes": _resident_bytes(),
        "python": platform.python_version(),
    }


def serving_facts(served: Mapping[str, ServedModel]) -> dict[str, dict[str, float]]:
    """What answers: `requests`, `failures` and the median latency `p50_ms` since the switch."""
    facts: dict[str, dict[str, float]] = {}
    for name, model in served.items():
        figures = model.figures()
        facts[name] = {"requests": figures.requests, "failures": figures.failures}
        if figures.latency is not None:
            facts[name]["p50_ms"] = round(figures.latency.median_ms, 4)
    return facts


def _uptime_s() -> float:
    ticks = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
    started_s = int(ticks) / os.sysconf("SC_CLK_TCK")
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - started_s, 1)


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
