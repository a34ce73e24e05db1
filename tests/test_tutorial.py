"""docs/tutorial.md is what happens: every command is run, and says what the page says."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.agent_process import wait_until
from support.repository import REPOSITORY

PAGE = REPOSITORY / "docs/tutorial.md"
TIMEOUT_S = 600

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def blocks(kind):
    """The fenced blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def session():
    """Each command of the page, and the lines that it is said to print."""
    steps = []
    for block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
    return steps


def pattern(lines):
    """What output must match: "…" stands for anything in a line, alone for any lines."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:[^\n]*\n)*?")
            continue
        words = [
            r"[^\n]*".join(re.escape(piece) for piece in word.split("…")) for word in line.split()
        ]
        parts.append(r"[ ]*" + r"[ ]+".join(words).replace(r"[ ]+[^\n]*", r"[^\n]*") + r"\n")
    return "".join(parts)


def script(steps, port):
    """One shell session; a mark with the exit code follows each command."""
    lines = ["set -m"]  # %1, %2 name jobs, as at a terminal
    for number, (command, _) in enumerate(steps):
        lines.append(re.sub(r"\b1883\b", str(port), command))
        lines.append(f'echo "=== {number} $?"')
    lines.append("exit 0")
    return "\n".join(lines)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def commands_here(folder):
    """A folder with `edgepack` and `edgepack-agent` of these sources."""
    folder.mkdir()
    modules = {"edgepack": "edgepack.cli.main", "edgepack-agent": "edgepack.agent.main"}
    for name, module in modules.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
        path.chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    return folder


def test_every_command_of_the_tutorial(tmp_path):
    """Each ends well and prints what the page shows."""
    for source in blocks("python"):
        name = source.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(source)
    assert (tmp_path / "make_model.py").exists()
    steps, port = session(), free_port()
    assert len(steps) > 20
    (tmp_path / "home").mkdir()
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "PATH": f"{commands_here(tmp_path / 'bin')}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "COLUMNS": "120",
    }
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "EDGEPACK_KEYS", "EDGEPACK_ROOT"):
        environment.pop(name, None)
    with (tmp_path / "errors").open("w+") as errors:
        process = subprocess.Popen(
            ["bash", "-c", script(steps, port)],
            cwd=tmp_path, env=environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S - 30)
            wait_until(lambda: not living(tmp_path), "everything that was started has ended")
        finally:
            end(tmp_path)
        errors.seek(0)
        told = errors.read()[-6000:]
    assert 0 == process.returncode, told
    rest, wrong = output, []
    for number, (command, lines) in enumerate(steps):
        said, mark, rest = rest.partition(f"=== {number} ")
        assert mark, f"{command}\n{output[-2000:]}\n{told}"
        code, _, rest = rest.partition("\n")
        assert "0" == code, f"{command}\n{said}\n{told}"
        expected = re.sub(r"\b1883\b", str(port), pattern(lines))
        whole = said if said.endswith("\n") or not said else f"{said}\n"  # curl ends no line
        if not re.fullmatch(expected, whole):
            wrong.append(f"{command}\n--- said\n{said}\n--- expected\n{expected}")
    assert [] == wrong
    assert "" == rest.strip()


def living(folder):
    """Processes that still work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            cwd = (path / "cwd").readlink()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if cwd == folder and state != "Z":
            found.append(int(path.name))
    return found


def end(folder):
    """End what a broken session left."""
    for pid in living(folder):
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
