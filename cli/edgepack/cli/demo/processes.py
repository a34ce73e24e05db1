"""The demo's real processes: each command is the one that a user types."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EDGEPACK = [sys.executable, "-m", "edgepack.cli.main"]
AGENT = [sys.executable, "-m", "edgepack.agent.main"]
_COMMAND_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code.
        out: Standard output.
        error: Standard error, its last line.
    """

    code: int
    out: str
    error: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as one JSON object."""
        value: dict[str, Any] = json.loads(self.out)
        return value


class Commands:
    """Runs commands in one folder, with a configuration folder of the demo's own."""

    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
        for name in ("EDGEPACK_BROKER", "EDGEPACK_KEYS", "EDGEPACK_ROOT", "EDGEPACK_PREFIX"):
            self._environment.pop(name, None)
        self._folder = folder

    def edgepack(self, *arguments: str | Path) -> Ended:
        """Run `edgepack …` to its end."""
        return self._ended([*EDGEPACK, *map(str, arguments)])

    def agent(self, *arguments: str | Path) -> Ended:
        """Run `edgepack-agent …` to its end."""
        return self._ended([*AGENT, *map(str, arguments)])

    @contextmanager
    def broker(self) -> Iterator[tuple[str, int]]:
        """Run `edgepack broker`; host and port."""
        with self._running([*EDGEPACK, "broker", "--port", "0", "--json"], "broker.log") as process:
            if process.stdout is None:
                raise RuntimeError("the broker's output is not piped")
            place = json.loads(process.stdout.readline())
            yield str(place["host"]), int(place["port"])

    @contextmanager
    def device(self, config: Path) -> Iterator[subprocess.Popen[str]]:
        """Run `edgepack-agent run`."""
        command = [*AGENT, "run", "--config", str(config)]
        with self._running(command, "agent.log") as process:
            yield process

    def _ended(self, command: list[str]) -> Ended:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            env=self._environment,
            timeout=_COMMAND_TIMEOUT_S,
        )
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if "error:" in line] or lines
        return Ended(done.returncode, done.stdout, errors[-1] if errors else "")

    @contextmanager
    def _running(self, command: list[str], log: str) -> Iterator[subprocess.Popen[str]]:
        with (self._folder / log).open("w") as handle:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=handle,
                text=True,
                cwd=self._folder,
                env=self._environment,
            )
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()
