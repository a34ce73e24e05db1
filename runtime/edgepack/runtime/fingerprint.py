"""What a self-test's result depends on: the processor and the versions of the engines."""

import contextlib
import hashlib
import os
import platform
import re
from pathlib import Path
from typing import Final

from edgepack.runtime.engines import engine_named, engine_names
from edgepack.runtime.errors import EngineMissingError

# What tells processors apart, on x86 and on ARM; not their clock, which changes by the second.
_LINES: Final = re.compile(
    r"^(model name|vendor_id|cpu family|model|stepping|flags|Hardware|Revision|Features"
    r"|CPU implementer|CPU architecture|CPU variant|CPU part|CPU revision)\s*: (.*)$",
    re.MULTILINE,
)
_LARGEST_BYTES: Final = 1 << 20


def fingerprint() -> str:
    """Name this device's processor and engines: another name, and a test must be done again.

    For example "x86_64 2 processors 1f0c9a2b; litert 2.3.0; onnxruntime 1.31.1".
    """
    versions: dict[str, str] = {}
    for name in engine_names():
        with contextlib.suppress(EngineMissingError):
            versions |= engine_named(name).versions()
    engines = "; ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    processors = len(os.sched_getaffinity(0))
    plural = "processor" if processors == 1 else "processors"
    return f"{platform.machine()} {processors} {plural} {_processor()}; {engines}"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LARGEST_BYTES)
    except OSError:
        text = f"model name : {platform.processor()}"
    lines = sorted({f"{name}={value}" for name, value in _LINES.findall(text)})
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
