"""What is known of a host after a look: the lines of `probe.sh`, as values."""

import base64
import binascii
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from edgepack.fleet.setup.errors import ReachError, SettingsError
from edgepack.fleet.setup.ssh import Ssh

_MAX_FILE_BYTES = 256 * 1024
_PROBE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePython:
    """A Python there.

    Attributes:
        path: Of the interpreter.
        version: Major, minor, micro.
        machine: As wheels name it: a 32-bit Python on a 64-bit kernel is armv7l or i686.
        implementation: `cpython`.
        glibc: Major, minor; None for another C library.
        packages: Debian's packages that it sees: name → version.
        has_venv: Whether it can make environments.
    """

    path: str
    version: tuple[int, int, int]
    machine: str
    implementation: str = "cpython"
    glibc: tuple[int, int] | None
    packages: Mapping[str, str] = field(default_factory=dict)
    has_venv: bool = True

    def __str__(self) -> str:
        libc = "no glibc" if self.glibc is None else f"glibc {self.glibc[0]}.{self.glibc[1]}"
        version = ".".join(map(str, self.version[:2]))
        return f"{self.machine}, Python {version}, {libc}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A host.

    Attributes:
        root: How commands become root: `login`, `sudo`, `told` (sudo with the password that we
            have), `refused` (it does not take that), `password` (it wants one) or `missing`.
        system: As `uname -s` says.
        host_name: What it calls itself.
        machine_id: Systemd's secret name of it, from which the default device id follows; "" for
            none. It is neither shown nor kept.
        clock_s: Its time, in seconds since 1970.
        distribution: Its name, or "".
        has_systemd: Whether systemd runs it.
        opt_free_kb, tmp_free_kb: Free space under /opt and /var/tmp, in 1024 bytes.
        lacks: Programs that are missing.
        python: The best Python, or None.
        release: The agent's release that is current, or None.
        is_undecided: Whether an upgrade of the agent was interrupted.
        agent_toml, root_json: Files that are there.
    """

    root: str
    system: str
    host_name: str
    machine_id: str = field(default="", repr=False)
    clock_s: int
    distribution: str
    has_systemd: bool
    opt_free_kb: int
    tmp_free_kb: int
    lacks: tuple[str, ...] = ()
    python: RemotePython | None
    release: str | None = None
    is_undecided: bool = False
    agent_toml: bytes | None = None
    root_json: bytes | None = None


async def probe(ssh: Ssh, sudo_password: str | None = None) -> Facts:
    """Look at a host.

    Args:
        ssh: The host.
        sudo_password: What sudo is told if it asks; it goes through standard input.

    Raises:
        ReachError: It cannot be logged in to, or gives no sensible answer.
    """
    script = files("edgepack.fleet.setup").joinpath("probe.sh").read_bytes()
    if sudo_password is not None:
        script = f"sudo_password={shlex.quote(sudo_password)}\n".encode() + script
    answer = await ssh.run("sh", "-s", stdin=script, timeout_s=_PROBE_S)
    return parse_probe(answer.stdout)


def parse_probe(text: str) -> Facts:
    """Parse what `probe.sh` prints.

    Raises:
        ReachError: It is not that: the login shell is no shell, say.
        SettingsError: A file there is too large.
    """
    found: dict[str, str] = {}
    lacks = []
    for line in text.splitlines():
        name, _, value = line.partition("\t")
        if name == "lacks":
            lacks.append(value)
        found[name] = value
    if "end" not in found:
        raise ReachError("the host gives no answer that makes sense to a look at it")
    try:
        return Facts(
            root=found["root"],
            system=found["system"],
            host_name=found["host_name"],
            machine_id=found.get("machine_id", ""),
            clock_s=int(found["clock_s"]),
            distribution=found.get("distribution", ""),
            has_systemd="systemd" in found,
            opt_free_kb=int(found["opt_free_kb"]),
            tmp_free_kb=int(found["tmp_free_kb"]),
            lacks=tuple(lacks),
            python=_python(found.get("python"), found["machine"]),
            release=found.get("release"),
            is_undecided="undecided" in found,
            agent_toml=_file(found, "agent_toml"),
            root_json=_file(found, "root_json"),
        )
    except (KeyError, ValueError, TypeError, binascii.Error) as exc:
        raise ReachError(f"the host's answer to a look at it is incomplete: {exc}") from exc


def _python(text: str | None, machine: str) -> RemotePython | None:
    if text is None:
        return None
    value: dict[str, Any] = json.loads(text)
    major, minor, micro = (int(part) for part in value["version"])
    libc = re.fullmatch(r"glibc (\d+)\.(\d+).*", str(value["libc"]))
    return RemotePython(
        path=str(value["path"]),
        version=(major, minor, micro),
        machine=_wheel_machine(machine, int(value["bits"])),
        implementation=str(value["implementation"]),
        glibc=None if libc is None else (int(libc[1]), int(libc[2])),
        packages={str(name): str(version) for name, version in value["packages"].items()},
        has_venv=bool(value["venv"]),
    )


def _wheel_machine(machine: str, bits: int) -> str:
    """What wheels call the processor that a Python sees."""
    machine = {"arm64": "aarch64", "armv8l": "armv7l", "amd64": "x86_64"}.get(machine, machine)
    if bits == 32:
        return {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


def _file(found: Mapping[str, str], name: str) -> bytes | None:
    if name not in found:
        return None
    data = base64.b64decode(found[name], validate=True)
    if len(data) > _MAX_FILE_BYTES:
        raise SettingsError(f"{name} on the host must be at most {_MAX_FILE_BYTES} bytes, got more")
    return data
