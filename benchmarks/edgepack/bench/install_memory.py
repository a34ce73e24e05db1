"""Memory of the agent and of all processes that it starts, while it installs."""

import contextlib
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from edgepack.bench.agent_footprint import (
    Caller,
    broker,
    install,
    prepare,
    running_agent,
    write_config,
)
from edgepack.bench.choice_models import dense_bundle
from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.bundle import open_bundle
from edgepack.monitor.median import median

LARGEST_RATIO: Final = 1.7
_RUNS: Final = 5
_LOOK_EVERY_S: Final = 0.01
_SETTLE_S: Final = 2.0


def measure() -> Figure:
    """Install a small and a large model, again and again, and watch."""
    lines: list[Line] = []
    for what, make, limit in (
        ("digits pipeline for onnxruntime", partial(prepare, formats=("onnx",)), LARGEST_RATIO),
        ("digits pipeline for LiteRT", partial(prepare, formats=("tflite",)), LARGEST_RATIO),
        # where LiteRT wins, the idle agent has an engine that is 15 MB smaller than the one tried
        ("digits pipeline for both", prepare, LARGEST_RATIO),
        ("large dense network, float32 only", _prepare_dense_alone, LARGEST_RATIO),
        # tries variants of 38 MB and chooses one of 9: the idle agent has the small one
        ("large dense network, 8 variants", dense_bundle, None),
    ):
        with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
            make(Path(name))
            runs = [_run(Path(name)) for _ in range(_RUNS)]
        lines += _lines(what, runs, limit)
    return Figure(
        name="install_memory",
        title="Memory of the agent's process tree during an install",
        method=(
            "Memory of the agent and all its descendants, every "
            f"{1e3 * _LOOK_EVERY_S:g} ms while `edgepack-agent install` installs a bundle from a "
            "file: of private pages their proportional size (PSS), and of each mapped file the "
            "largest part that one of the processes has in memory, which is the PSS of the tree on "
            f"a machine where nothing else runs. {_RUNS} installs, each on a new device. The idle "
            "agent with the model is the same agent after its install and its first answers. The "
            "command itself is not counted."
        ),
        lines=tuple(lines),
    )


def _prepare_dense_alone(folder: Path) -> Path:
    return dense_bundle(folder, alone=True)


def _run(folder: Path) -> tuple[float, float, float]:
    """Memory of the tree at its largest, of the idle agent before, and after; in bytes."""
    (bundle,) = folder.glob("*.edgepack")
    contract = open_bundle(bundle).contract
    with broker(folder) as port:
        config = write_config(folder, port)
        with running_agent(config) as agent:
            time.sleep(_SETTLE_S)
            before = tree_bytes(agent.pid)
            with _watching(agent) as seen:
                install(config, folder)
            columns = contract.inputs[0].shape[1]
            with Caller(port, model=contract.name, columns=columns) as caller:
                caller.first_answer_s()  # so that all of the model is in memory
            time.sleep(_SETTLE_S)
            after = tree_bytes(agent.pid)
    shutil.rmtree(folder / "state")
    if not seen:
        raise BenchError("the install must last long enough to be seen")
    return max(seen), before, after


@contextlib.contextmanager
def _watching(agent: "subprocess.Popen[str]") -> Iterator[list[float]]:
    seen: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            seen.append(tree_bytes(agent.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def tree_bytes(pid: int) -> float:
    """Memory of a process and all its descendants, as if nothing else ran on the machine.

    Private pages by their proportional size, because forked processes share them; of each file
    the largest part that one of the processes has in memory, because all have the same pages. PSS
    alone would leave out what other programs here happen to share (Python, numpy).
    """
    private = 0.0
    files: dict[str, float] = {}
    waiting, name = [pid], _command(pid)
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError, IndexError, ValueError):
            for thread in Path(f"/proc/{current}/task").iterdir():
                with contextlib.suppress(OSError):
                    waiting += map(int, (thread / "children").read_text().split())
            # Between vfork and exec a child has all of its parent's memory, and none of its own.
            if current != pid and _command(current) == name:
                continue
            text = Path(f"/proc/{current}/smaps").read_text(encoding="utf-8", errors="replace")
            mine: dict[str, float] = {}
            for path, resident, proportional, anonymous in _mappings(text):
                if resident:
                    private += anonymous * proportional / resident
                if path.startswith("/"):
                    mine[path] = mine.get(path, 0.0) + resident - anonymous
            for path, size in mine.items():
                files[path] = max(files.get(path, 0.0), size)
    return private + sum(files.values())


def _mappings(text: str) -> Iterator[tuple[str, float, float, float]]:
    """Path, resident, proportional and anonymous bytes of each mapping in a `smaps`."""
    path, sizes = "", {}
    for line in text.splitlines():
        key, _, rest = line.partition(" ")
        if key.endswith(":"):
            if key in ("Rss:", "Pss:", "Anonymous:"):
                sizes[key] = float(rest.split()[0]) * 1024
            if key == "Anonymous:":
                yield path, sizes["Rss:"], sizes["Pss:"], sizes["Anonymous:"]
        else:
            fields = line.split(maxsplit=5)
            path = fields[5] if len(fields) > 5 else ""


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _lines(what: str, runs: list[tuple[float, float, float]], largest: float | None) -> list[Line]:
    parts = (
        ("largest during the install", [peak / 1e6 for peak, _, _ in runs], "MB", None),
        ("idle agent before", [before / 1e6 for _, before, _ in runs], "MB", None),
        ("idle agent with the model", [after / 1e6 for _, _, after in runs], "MB", None),
        ("ratio", [peak / after for peak, _, after in runs], "times", largest),
    )
    lines = []
    for label, values, unit, limit in parts:
        found = median(values)
        lines.append(
            Line(
                what=f"{what}: {label}",
                value=found.value,
                unit=unit,
                low=found.low,
                high=found.high,
                limit=limit,
            )
        )
    return lines
