"""What machine the figures are of. No host name, user or path: figures are published."""

import importlib.metadata
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("edgepack", "numpy", "onnxruntime", "onnx", "scikit-learn", "skl2onnx")
_MODEL_KEYS: Final = ("model name", "Hardware", "Model", "cpu model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where something was measured.

    Attributes:
        cpu: The processor's name.
        cores: Cores that this process may use.
        system: Operating system and its kernel's version.
        architecture: "x86_64", "aarch64", …
        python: Version of Python.
        packages: Versions of the packages that matter, those that are installed.
        memory_bytes: Of the machine; None if it does not tell.
    """

    cpu: str
    cores: int
    system: str
    architecture: str
    python: str
    packages: dict[str, str]
    memory_bytes: int | None = None


def describe_machine() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        python=platform.python_version(),
        packages=_packages(),
    )


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process so far.

    Not `getrusage` where there is /proc: its maximum is inherited from whoever started us.
    """
    found = _proc_bytes("/proc/self/status", "VmHWM")
    if found is not None or sys.platform == "win32":
        return found
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def resident_bytes() -> int | None:
    """Resident memory of this process now; None where there is no /proc."""
    return _proc_bytes("/proc/self/status", "VmRSS")


def _cores() -> int:
    return os.cpu_count() or 1


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^([^\t:]+?)\s*: (.+)$", text, re.MULTILINE))
    return next((found[key] for key in _MODEL_KEYS if key in found), platform.machine())


def _memory_bytes() -> int | None:
    return _proc_bytes("/proc/meminfo", "MemTotal")


def _proc_bytes(path: str, key: str) -> int | None:
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{key}:\s+([0-9]+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
