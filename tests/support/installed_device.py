"""A device as `edgepack setup` leaves it, under a folder of the test's own, with a `systemctl`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import fake_systemctl
from support.agent_process import wait_until
from support.agent_wheel import bring_pip, unpack_release, write_wheel

from edgepack.agent.systemd.unit import unit_text
from edgepack.trust import GeneratedKeys, PrivateKey
from edgepack.wire.installation import Installation
from edgepack.wire.wheelhouse import sign_wheelhouse

OLD = "0.1.0"


class InstalledDevice:
    """Release 0.1.0 of this checkout, its configuration and its service."""

    def __init__(self, prefix: Path, keys: GeneratedKeys, *, broker: str = "") -> None:
        self.prefix = prefix
        self.keys = keys
        self.installation = here = Installation(prefix)
        for folder in (here.releases, here.etc, here.state, here.unit.parent, here.command.parent):
            folder.mkdir(parents=True)
        for folder in ("run/systemd/system", "bin", "wheels"):
            (prefix / folder).mkdir(parents=True)
        unpack_release(here.releases / OLD, write_wheel(prefix / "wheels", OLD))
        here.current.symlink_to(f"releases/{OLD}")
        here.command.symlink_to(here.current / "bin/edgepack-agent")
        here.unit.write_text(unit_text())
        here.root_json.write_bytes(keys.root_json.read_bytes())
        here.config.write_text(
            f'device = "d1"\nroot = "root.json"\nstate = "{here.state}"\n'
            "[probation]\nrequests = 5\nseconds = 1\n"
            f"[limits]\nself_test_compare_s = 0.05\n{broker}"
        )
        systemctl = prefix / "bin/systemctl"
        systemctl.write_text(
            f'#!/bin/sh\nexec {sys.executable} {fake_systemctl.__file__} {prefix} "$@"\n'
        )
        systemctl.chmod(0o755)

    def command(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed `edgepack-agent`."""
        return subprocess.run(
            self.words(*arguments),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=self.environment | dict(environment or {}),
        )

    def words(self, verb: str, *rest: str) -> list[str]:
        """The words of a command."""
        return [
            str(self.installation.command),
            verb,
            "--config",
            str(self.installation.config),
            *rest,
        ]

    @property
    def environment(self) -> dict[str, str]:
        """In which `systemctl` is the fake one."""
        return {**os.environ, "PATH": f"{self.prefix}/bin:{os.environ['PATH']}"}

    def systemctl(self, *words: str) -> None:
        """Call the fake systemctl."""
        subprocess.run([self.prefix / "bin/systemctl", *words], check=True, timeout=60)

    def wheelhouse(
        self,
        version: str,
        changes: Mapping[str, tuple[str, str]] | None = None,
        *,
        sequence: int = 1000,
        key: Path | None = None,
    ) -> Path:
        """A signed wheelhouse of another version."""
        folder = self.prefix / f"house-{version}-{sequence}"
        folder.mkdir()
        write_wheel(folder, version, changes)
        bring_pip(folder)
        signer = PrivateKey.load(key or self.keys.release_key)
        sign_wheelhouse(folder, [signer], sequence=sequence)
        return folder

    def upgrade(self, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
        """`edgepack-agent upgrade`, with little patience."""
        return self.command(
            "upgrade",
            str(folder),
            "--prefix",
            str(self.prefix),
            "--wait",
            "60",
            "--steady",
            "0.5",
            *more,
        )

    def status(self) -> dict[str, Any]:
        """`status --json`."""
        done = self.command("status", "--json")
        assert 0 == done.returncode, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def wait_release(self, release: str) -> dict[str, Any]:
        """Wait until a release answers; its status."""

        def answers() -> dict[str, Any] | None:
            status = self.status()
            return status if status.get("agent", {}).get("release") == release else None

        found: dict[str, Any] = wait_until(answers, f"release {release} answers", 120)
        return found

    def current(self) -> str:
        """The release that `current` names."""
        return self.installation.current.readlink().name

    def leftovers(self) -> list[str]:
        """What an upgrade that is decided leaves beside the releases: nothing."""
        known = {"releases", "current", "upgrade.lock"}
        return sorted(p.name for p in self.installation.base.iterdir() if p.name not in known)
