"""Running the real command, in this process or as one of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bundle import write_tiny_bundle

from edgepack.cli.main import main
from edgepack.trust import PrivateKey

EDGEPACK = [sys.executable, "-m", "edgepack.cli.main"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def edgepack(capsys: pytest.CaptureFixture[str]):
    """`edgepack("inspect", path)`: run a command in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def process():
    """`process("broker", "--json")`: start a command as a process; it is ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **kwargs: object) -> subprocess.Popen[str]:
        command = [*EDGEPACK, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **kwargs}
        started.append(subprocess.Popen(command, env={**os.environ}, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def keys(tmp_path: Path, edgepack) -> Path:
    """A folder that keygen filled."""
    folder = tmp_path / "keys"
    assert 0 == edgepack("keygen", folder).code
    return folder


@pytest.fixture
def bundle(tmp_path: Path, keys: Path) -> Path:
    """A bundle that these keys have signed."""
    key = PrivateKey.load(keys / "release.key")
    return write_tiny_bundle(tmp_path, key=key, sequence=100)
