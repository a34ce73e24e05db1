"""What a large model costs to load: read whole, or mapped from a device's store."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.converter.external_data import split, weights_name
from edgepack.monitor.median import median

LARGEST_LOAD_MS: Final = 50.0
LARGEST_PRIVATE_MB: Final = 8.0
_RUNS: Final = 7
_LAYERS: Final = 25
_WIDTH: Final = 1024
_TIMEOUT_S: Final = 120.0
_WAYS: Final = (
    ("whole", "one file, read whole"),
    ("memory", "weights of their own, read into memory"),
    ("repack", "weights mapped, then repacked for the kernels"),
    ("mapped", "weights mapped as they lie: the default from 32 MiB on"),
)
# One process for each: memory that was freed once would be used again.
_PROGRAM: Final = """
import hashlib, json, sys, time
from pathlib import Path
import numpy as np
from edgepack.bundle.contract import Datatype, EngineRequirements, Parity, TensorBinding, Variant
from edgepack.runtime import SessionOptions
from edgepack.runtime.engines import engine_named

def private_bytes():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.partition("Anonymous:")[2].split()[0]) * 1024

how, width, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
files = names[:1] if how == "whole" else names[1:]
x, y = (TensorBinding(name=name, tensor=name, dtype=Datatype.FP32) for name in "xy")
variant = Variant(
    name="v", files=tuple(files), precision="fp32", size_bytes=1,
    engine=EngineRequirements(engine="onnxruntime", opsets={"": 17}), inputs=(x,), outputs=(y,),
    parity=Parity(rows=1, metric="none", value=1.0, bound=1.0),
)
engine = engine_named("onnxruntime")
engine.prepare()
options = SessionOptions(repack=how != "mapped")
before, started = private_bytes(), time.perf_counter()
if how in ("whole", "memory"):
    session = engine.open({name: Path(name).read_bytes() for name in files}, variant, options)
else:
    session = engine.open_on_disk(Path(files[0]), variant, options)
load_s = time.perf_counter() - started
taken = private_bytes() - before
row = [np.ones((1, width), np.float32)]
session.run(row)
times = []
for _ in range(31):
    started = time.perf_counter()
    session.run(row)
    times.append(time.perf_counter() - started)
started = time.perf_counter()
with open(files[-1], "rb") as file:
    hashlib.file_digest(file, "sha256")
print(json.dumps({
    "load_ms": 1e3 * load_s, "private_mb": taken / 1e6, "run_ms": 1e3 * sorted(times)[15],
    "hash_ms": 1e3 * (time.perf_counter() - started),
}))
"""


def measure() -> Figure:
    """Load a model of 100 MB in a process of its own, in each way in turn."""
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        files = _write(Path(name))
        _run("whole", name, files)  # byte code, and the files into the disk cache
        _run("mapped", name, files)
        runs: dict[str, list[dict[str, float]]] = {how: [] for how, _ in _WAYS}
        for _ in range(_RUNS):
            for how, found in runs.items():
                found.append(_run(how, name, files))
    lines = []
    for how, what in _WAYS:
        limits = {"load_ms": LARGEST_LOAD_MS, "private_mb": LARGEST_PRIVATE_MB}
        for key, label, unit in (
            ("load_ms", "time to load", "ms"),
            ("private_mb", "private memory", "MB"),
            ("run_ms", "one inference", "ms"),
        ):
            limit = limits.get(key) if how == "mapped" else None
            lines.append(_line(f"{what}: {label}", [r[key] for r in runs[how]], unit, limit))
    hashes = [r["hash_ms"] for r in runs["mapped"]]
    lines.append(_line("SHA-256 of the weights before each load", hashes, "ms", None))
    return Figure(
        name="mapped_weights",
        title="A model of 100 MB: read, or mapped",
        method=(
            f"{_LAYERS} float32 matrix products of {_WIDTH} by {_WIDTH}, batch 1, one thread. Each "
            f"of {_RUNS} rounds loads it once in each way in a new process; the files are in the "
            "disk cache. Private memory is what the process has of its own after loading "
            "(anonymous pages). Repacking copies the weights into the order that the kernels "
            "read fastest. The runtime hashes files before it loads them, which comes on top."
        ),
        lines=tuple(lines),
    )


def _line(what: str, values: list[float], unit: str, limit: float | None) -> Line:
    found = median(values)
    return Line(
        what=what, value=found.value, unit=unit, low=found.low, high=found.high, limit=limit
    )


def _write(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    nodes, weights, tensor = [], [], "x"
    for layer in range(_LAYERS):
        matrix = rng.standard_normal((_WIDTH, _WIDTH), np.float32) / np.float32(np.sqrt(_WIDTH))
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        out = "y" if layer == _LAYERS - 1 else f"h{layer}"
        nodes.append(helper.make_node("MatMul", [tensor, f"w{layer}"], [out]))
        tensor = out
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, _WIDTH]) for n in "xy"]
    graph = helper.make_graph(nodes, "large", shapes[:1], shapes[1:], weights)
    imports = [helper.make_opsetid("", 17)]
    whole = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    model, outside = split(whole)
    if outside is None:
        raise BenchError("the model must have weights to take out")
    parts = {
        "whole.onnx": whole,
        hashlib.sha256(model).hexdigest(): model,
        weights_name(outside): outside,
    }
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    os.sync()  # pages that wait to be written would count as private
    return list(parts)


def _run(how: str, folder: str, files: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how, str(_WIDTH), *files],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{how} failed: {(done.stderr.splitlines() or ['no message'])[-1][:200]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
