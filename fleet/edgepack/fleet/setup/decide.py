"""Whether a host is a place for an agent, and what goes there. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgepack.fleet.setup.errors import UnfitError
from edgepack.fleet.setup.probe import Facts, RemotePython

_HOMES = ("/home/", "/root" + "/")
MIN_PYTHON = (3, 11)
_CLOCK_SLACK_S = 300
_OLDEST_GLIBC_MINOR = 17
_SPACE_FACTOR = 5  # a wheel, unpacked and compiled, and what stands beside it meanwhile
_SPACE_MORE_KB = 32 * 1024

# Where a wheel is missing for a processor, Debian's own package is as good.
SYSTEM_PACKAGES = {
    "armv7l": {"numpy": "python3-numpy", "cryptography": "python3-cryptography"},
}
_ENGINES = {
    "x86_64": ("onnxruntime",),
    "aarch64": ("onnxruntime",),
    "armv7l": ("tflite-runtime",),
}
ENGINE_REQUIREMENTS = {
    "onnxruntime": ("onnxruntime>=1.17",),
    "ai-edge-litert": ("ai-edge-litert>=2",),
    "tflite-runtime": ("tflite-runtime>=2.14", "numpy<2"),  # numpy 2 breaks it
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Platform:
    """For what wheels are needed; hosts that are alike share them.

    Attributes:
        machine: As wheels name the processor.
        python: Major, minor.
        glibc: Major, minor.
        engines: Distributions of engines.
    """

    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int]
    engines: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.machine}, Python {self.python[0]}.{self.python[1]}, "
            f"glibc {self.glibc[0]}.{self.glibc[1]}"
        )

    @property
    def from_system(self) -> Mapping[str, str]:
        """Distribution → Debian package, of what comes from the host itself."""
        return SYSTEM_PACKAGES.get(self.machine, {})

    @property
    def tags(self) -> tuple[str, ...]:
        """Platform tags of wheels that run there, the newest first."""
        newest = self.glibc[1]
        tags = [
            f"manylinux_2_{minor}_{self.machine}"
            for minor in range(newest, _OLDEST_GLIBC_MINOR - 1, -1)
        ]
        return (*tags, f"manylinux2014_{self.machine}", f"linux_{self.machine}")


def platform_of(python: RemotePython, engines: Sequence[str] = ()) -> Platform:
    """The platform of a host.

    Args:
        python: Its Python.
        engines: What the caller wants; empty for what fits.

    Raises:
        UnfitError: There are no wheels for it.
    """
    if python.glibc is None or python.glibc[0] != 2:
        raise UnfitError(f"wheels of an engine need glibc, got another C library ({python})")
    if python.machine not in _ENGINES:
        known = ", ".join(_ENGINES)
        raise UnfitError(f"there are engines for {known}, got {python.machine}")
    return Platform(
        machine=python.machine,
        python=python.version[:2],
        glibc=python.glibc,
        engines=tuple(engines) or _ENGINES[python.machine],
    )


def shortcomings(facts: Facts, *, needs_systemd: bool) -> list[str]:
    """All that keeps an agent from a host, one line each."""
    wrong = []
    if facts.system != "Linux":
        wrong.append(f"the agent is for Linux, got {facts.system}")
    if facts.root == "password":
        wrong.append(
            "sudo asks for a password there: --sudo-password-file, or log in as root, or "
            '`echo "$USER ALL=(ALL) NOPASSWD: ALL" | sudo tee /etc/sudoers.d/edgepack-setup` on it'
        )
    if facts.root == "refused":
        wrong.append("sudo there does not take the password of --sudo-password-file")
    if facts.root == "missing":
        wrong.append("neither root nor sudo: log in as root, or install sudo")
    if facts.lacks:
        wrong.append(f"missing there: {', '.join(facts.lacks)}")
    if needs_systemd and not facts.has_systemd:
        wrong.append("systemd does not run there; --no-start only installs")
    if facts.is_undecided:
        wrong.append(
            "an interrupted upgrade is undecided: `systemctl restart edgepack-agent` first"
        )
    return wrong + _python_shortcomings(facts)


def _python_shortcomings(facts: Facts) -> list[str]:
    python = facts.python
    where = f" ({facts.distribution})" if facts.distribution else ""
    if python is None:
        return [f"Python 3.11 or later is needed, got none{where}: apt-get install python3"]
    if python.version[:2] < MIN_PYTHON:
        version = ".".join(map(str, python.version))
        return [f"Python 3.11 or later is needed, got {version}{where}"]
    if python.implementation != "cpython":
        return [f"CPython is needed, got {python.implementation}"]
    if not python.has_venv:
        return ["Python there has no venv module: apt-get install python3-venv"]
    wanted = SYSTEM_PACKAGES.get(python.machine, {})
    missing = [debian for name, debian in wanted.items() if name not in python.packages]
    if missing:
        return [
            f"there are no wheels of this for {python.machine}: "
            f"apt-get install {' '.join(missing)} there"
        ]
    return []


def space_shortcoming(facts: Facts, wheels_bytes: int) -> str:
    """What free space is missing, or ""."""
    kb = wheels_bytes // 1024 + 1
    needed = {
        "/var/tmp": (facts.tmp_free_kb, kb),  # noqa: S108 (there, in a folder of its own)
        "/opt/edgepack": (facts.opt_free_kb, kb * _SPACE_FACTOR + _SPACE_MORE_KB),
    }
    short = [
        f"{folder} needs {need // 1024} MB free, got {free // 1024}"
        for folder, (free, need) in needed.items()
        if free < need
    ]
    return "; ".join(short)


def clock_note(facts: Facts, now_s: float) -> str:
    """What is strange about the host's clock, or ""."""
    off = facts.clock_s - now_s
    if abs(off) < _CLOCK_SLACK_S:
        return ""
    amount = f"{abs(off) / 86400:.1f} days" if abs(off) > 86400 else f"{abs(off) / 60:.0f} minutes"
    return f"its clock is {amount} {'ahead' if off > 0 else 'behind'}: TLS may fail until it is set"


def python_note(python: RemotePython) -> str:
    """What is wrong with where a Python lies, or "": the service sees no home folder."""
    if not python.path.startswith(_HOMES):
        return ""
    return (
        f"its Python, {python.path}, lies in a home folder, which the service does not see: "
        "install the system's, or allow it with ProtectHome=read-only in a drop-in"
    )


def is_release_name(text: str) -> bool:
    """Whether it can be the name of a release's folder."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}", text) is not None
