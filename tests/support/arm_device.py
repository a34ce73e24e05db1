"""A device of another processor: the agent in an emulated Debian root (`make test-arm`)."""

import subprocess
from pathlib import Path

import pytest
from support.agent_process import AgentProcess
from support.repository import REPOSITORY

from edgepack.trust import GeneratedKeys

ROOTS = REPOSITORY / "build" / "arm"
PLACE = "/mnt"  # where a device's own folder is inside the root
_PATH = f"PYTHONPATH={PLACE}/site:/opt/packages"
# The mounts are seen by this process alone and go when it does; what replaces it keeps its id.
_ENTER = """
set -e
mount --bind "$2" "$1/mnt"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1; shift 2
exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 "$@"
"""


def arm_root(arch: str) -> Path:
    """The root of an architecture, or a skip where `make test-arm` could not make one."""
    root = ROOTS / arch
    if not (ROOTS / f"{arch}.made").exists():
        pytest.skip(f"{root.relative_to(REPOSITORY)} is not made: see `make test-arm`")
    return root


class ArmDevice(AgentProcess):
    """`edgepack-agent` inside a root, with the wheel of the moment.

    Args:
        folder: The device's own folder, outside the root.
        arch: Debian's name of the architecture.
        wheel: edgepack's wheel, for any processor.
        keys: Whom it trusts.
        broker_port: The broker's port on loopback, outside the root.
    """

    def __init__(
        self, folder: Path, arch: str, wheel: Path, keys: GeneratedKeys, broker_port: int
    ) -> None:
        self.root = arm_root(arch)
        super().__init__(
            folder,
            keys,
            broker_port,
            # An emulator is tens of times slower than what it stands for.
            limits="[limits]\nself_test_s = 600\n",
            metrics="[metrics]\ninterval_s = 2\nslow_s = 2\n",
            probation="[probation]\nrequests = 5\nseconds = 20\n",
        )
        (folder / "root.json").write_bytes(keys.root_json.read_bytes())
        text = self.config.read_text().replace(str(keys.root_json), f"{PLACE}/root.json")
        self.config.write_text(text)
        install = ("-m", "pip", "install", "--quiet", "--no-deps", "--target", folder / "site")
        subprocess.run(
            [str(REPOSITORY / ".venv/bin/python"), *map(str, install), str(wheel)], check=True
        )

    def start(self) -> "ArmDevice":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._inside(*_agent("run", "-v")), stderr=log, stdout=log
            )
        return self

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        verb, *rest = arguments
        return self.python(*_agent(verb)[1:], *rest)

    def python(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run the root's Python; `text` goes to its standard input."""
        return subprocess.run(
            self._inside("python3", *arguments),
            input=text,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def _inside(self, *command: str) -> list[str]:
        enter = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(self.root), str(self.folder)]
        return [*enter, _PATH, *command]


def _agent(verb: str, *options: str) -> list[str]:
    config = ("--config", f"{PLACE}/agent.toml")
    return ["python3", "-m", "edgepack.agent.main", verb, *options, *config]
