"""The agent as a service: started, stopped, looked at. systemd behind the smallest Protocol."""

import shutil
import subprocess
from pathlib import Path
from typing import Protocol

from edgepack.agent.disk import fsync_folder, storage_error
from edgepack.agent.errors import UpgradeError
from edgepack.wire.installation import UNIT_NAME, Installation

_TIMEOUT_S = 360.0  # longer than the unit's own


class Service(Protocol):
    """What runs the agent."""

    def start(self) -> None:
        """Start it; returns when it says that it is up, or failed."""

    def stop(self) -> None:
        """Stop it."""

    def restart(self) -> None:
        """Stop and start it."""

    def reload(self) -> None:
        """The unit's file is another one."""


class Systemd:
    """`systemctl`."""

    def start(self) -> None:
        """Start it; that it does not come up is what `health` sees."""
        self._call("start", UNIT_NAME, must=False)

    def stop(self) -> None:
        """Stop it.

        Raises:
            UpgradeError: systemd does not.
        """
        self._call("stop", UNIT_NAME, must=True)

    def disable(self) -> None:
        """Stop it, and start it no more.

        Raises:
            UpgradeError: systemd does not.
        """
        self._call("disable", "--now", UNIT_NAME, must=True)

    def restart(self) -> None:
        """Stop and start it; that it does not come up is what `health` sees."""
        self._call("restart", UNIT_NAME, must=False)

    def reload(self) -> None:
        """Read the units anew."""
        self._call("daemon-reload", must=False)

    def is_active(self) -> bool:
        """Whether it runs."""
        return self._call("is-active", "--quiet", UNIT_NAME, must=False) == 0

    def _call(self, *words: str, must: bool) -> int:
        try:
            done = subprocess.run(
                ["systemctl", *words],  # noqa: S607 (the system's own)
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            code, why = 1, f"took over {_TIMEOUT_S:.0f} s"
        else:
            code, why = done.returncode, done.stderr.strip()[:200]
        if must and code != 0:
            raise UpgradeError(f"systemctl {' '.join(words)} failed: {why}")
        return code


def service_of(installation: Installation) -> Systemd | None:
    """The service, or None where this agent is not run by systemd."""
    booted = (installation.root / "run/systemd/system").is_dir()
    found = shutil.which("systemctl") is not None
    return Systemd() if booted and found and installation.unit.exists() else None


def write_unit(unit: Path, text: str) -> None:
    """Put a text into the unit's file, whole or not at all.

    Raises:
        StoreError: The disk does not take it.
    """
    fresh = unit.with_name(f".{unit.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(unit)
        fsync_folder(unit.parent)
    except OSError as exc:
        raise storage_error(unit, exc) from exc


def unit_of(release: Path) -> str | None:
    """The unit as a release has it; None where it has none."""
    done = subprocess.run(
        [str(release / "bin/python"), "-m", "edgepack.agent.systemd.unit"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout if done.returncode == 0 and done.stdout else None
