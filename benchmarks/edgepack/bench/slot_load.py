"""A model of 100 MB from a device's confirmed slot: what loading it costs, and what it answers in.

`python -m edgepack.bench.slot_load STORE DIGEST HOW` is the process that loads it once.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.bundle import open_bundle, open_layout
from edgepack.monitor.median import median
from edgepack.runtime import SessionOptions, load, parse_golden
from edgepack.runtime.engines import engine_named
from edgepack.runtime.memory import process_memory

LARGEST_LOAD_MS: Final = 30.0
LARGEST_PRIVATE_MB: Final = 10.0
_INNER: Final = 12_288  # 2 * 1024 * 12,288 weights of 4 bytes
_RUNS: Final = 9
_CALLS: Final = 31
_TIMEOUT_S: Final = 120.0
_WAYS: Final = (
    ("mapped", "weights as they lie"),
    ("hashed", "the same after an unclean stop, hashed first"),
    ("repacked", "weights repacked for the kernels"),
)


def measure() -> Figure:
    """Load it in each way in turn, each time in a new process."""
    from edgepack.bench.choice_models import dense_bundle

    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        folder = Path(name)
        store, digest = _store(dense_bundle(folder, alone=True, inner=_INNER), folder / "store")
        for how, _ in _WAYS:
            _run(store, digest, how)  # byte code, and the files into the disk cache
        runs: dict[str, list[dict[str, float]]] = {how: [] for how, _ in _WAYS}
        for _ in range(_RUNS):
            for how, found in runs.items():
                found.append(_run(store, digest, how))
    lines = [
        line
        for how, what in _WAYS
        for line in (
            _line(
                f"{what}: time to load",
                [run["load_ms"] for run in runs[how]],
                "ms",
                LARGEST_LOAD_MS if how == "mapped" else None,
            ),
            _line(
                f"{what}: private memory after it answered",
                [run["private_mb"] for run in runs[how]],
                "MB",
                LARGEST_PRIVATE_MB if how == "mapped" else None,
            ),
            _line(f"{what}: one inference", [run["run_ms"] for run in runs[how]], "ms", None),
        )
    ]
    return Figure(
        name="slot_load",
        title="A model of 100 MB from a confirmed slot",
        method=(
            f"Two float32 matrix products, 1024 by {_INNER} and back, packed by the converter and "
            "put into a store as a device does. Each of "
            f"{_RUNS} rounds loads it once in each way in a new process that has imported the "
            "engine, as the agent does: open the bundle in its store, read the contract, make the "
            "session with one thread. The files are in the disk cache. Private memory is what the "
            "process has more of its own (anonymous pages) than before. One inference is the "
            f"median of {_CALLS}. Which of the ways serves is what the self-test on the device "
            "measures."
        ),
        lines=tuple(lines),
    )


def _store(path: Path, folder: Path) -> tuple[Path, str]:
    bundle = open_bundle(path)
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in bundle.blobs():
        with (blobs / blob.hex).open("wb") as file:
            file.writelines(bundle.stream_blob(blob.digest))
    return folder, bundle.digest


def _run(store: Path, digest: str, how: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "edgepack.bench.slot_load", str(store), digest, how],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{how} failed: {(done.stderr.splitlines() or ['no message'])[-1][:200]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _line(what: str, values: list[float], unit: str, limit: float | None) -> Line:
    found = median(values)
    return Line(
        what=what, value=found.value, unit=unit, low=found.low, high=found.high, limit=limit
    )


def main(arguments: list[str]) -> int:
    """Load it once, and say what that cost."""
    store, digest, how = arguments
    engine_named("onnxruntime").prepare()
    bundle = open_layout(store, digest, hash_blobs=False)
    golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
    sample = {name: array[:1] for name, array in golden.inputs.items()}
    before = process_memory()
    started = time.perf_counter()
    bundle = open_layout(store, digest, hash_blobs=False)
    options = SessionOptions(repack=how == "repacked")
    with load(bundle, options=options, hash_mapped=how == "hashed") as model:
        load_s = time.perf_counter() - started
        times = []
        for _ in range(_CALLS):
            started = time.perf_counter()
            model.predict(sample)
            times.append(time.perf_counter() - started)
        after = process_memory()
    if before is None or after is None:
        raise BenchError("memory must be readable in /proc")
    answer = {
        "load_ms": 1e3 * load_s,
        "private_mb": (after.private - before.private) / 1e6,
        "run_ms": 1e3 * median(times).value,
    }
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
