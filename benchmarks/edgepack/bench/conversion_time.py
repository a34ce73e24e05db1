"""What a conversion costs beside a script that imports, exports and compares the same.

Both are whole processes, started in turns: from the shell's point of view, nothing is left out.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgepack.bench.errors import BenchError
from edgepack.bench.figure import Figure, Line
from edgepack.monitor.median import median

LARGEST_RATIO: Final = 1.3
_PAIRS: Final = 15
_TRAINING_ROWS: Final = 1200
_TIMEOUT_S: Final = 120.0
_MODEL: Final = "digits.joblib"
_DATA: Final = "digits.npz"
# What somebody without edgepack writes: the same imports, export and parity, and nothing else.
_SCRIPT: Final = """
import joblib
import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

model = joblib.load("digits.joblib")
rows = np.load("digits.npz")["X"]
onnx = to_onnx(
    model,
    initial_types=[("x", FloatTensorType([None, rows.shape[1]]))],
    options={id(model): {"zipmap": False}},
    target_opset=17,
).SerializeToString()
session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
label, probabilities = session.run(None, {"x": rows.astype(np.float32)})
assert (label == model.predict(rows)).all()
assert np.allclose(probabilities, model.predict_proba(rows), rtol=1e-4, atol=1e-5)
open("digits.onnx", "wb").write(onnx)
"""
_CONVERT: Final = (
    "-c",
    "import sys; from edgepack.cli.main import main; sys.exit(main())",
    "convert",
    _MODEL,
    "--data",
    _DATA,
    "--precision",
    "fp32",
    "--format",
    "onnx",
    "--no-cache",
    "--output",
    "out",
    "--version",
    "1.0.0",
    "--overwrite",
)


def measure() -> Figure:
    """Run both in turns, each the first one in every other pair."""
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        folder = Path(name)
        _prepare(folder)
        commands: tuple[Sequence[str], Sequence[str]] = (_CONVERT, ("-c", _SCRIPT))
        for command in commands:
            _seconds(command, folder)  # byte code and disk cache
        times: tuple[list[float], list[float]] = ([], [])
        for pair in range(_PAIRS):
            for which in (0, 1) if pair % 2 == 0 else (1, 0):
                times[which].append(_seconds(commands[which], folder))
    ratio = median([ours / script for ours, script in zip(*times, strict=True)])
    ours, script = median(times[0]), median(times[1])
    return Figure(
        name="conversion_time",
        title="Conversion of the digits model, whole process, int8 left out",
        method=(
            "A scaler and a logistic regression on scikit-learn's handwritten digits, with 597 "
            f"rows of data. {_PAIRS} pairs of processes in turns: `edgepack convert` (original and "
            "variant compared, packed, signed, tested as on a device) against a script that does "
            "the same imports, `to_onnx` and parity."
        ),
        lines=(
            Line(
                what="edgepack convert against the script",
                value=ratio.value,
                unit="times",
                low=ratio.low,
                high=ratio.high,
                limit=LARGEST_RATIO,
            ),
            Line(what="edgepack convert", value=ours.value, unit="s", low=ours.low, high=ours.high),
            Line(what="the script", value=script.value, unit="s", low=script.low, high=script.high),
        ),
    )


def _prepare(folder: Path) -> None:
    digits = load_digits()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(digits.data[:_TRAINING_ROWS], digits.target[:_TRAINING_ROWS])
    joblib.dump(model, folder / _MODEL)
    np.savez(folder / _DATA, X=digits.data[_TRAINING_ROWS:], y=digits.target[_TRAINING_ROWS:])


def _seconds(command: Sequence[str], folder: Path) -> float:
    # onnxruntime's telemetry would cost the script a thread and a file: neither pays for it.
    environment = {
        **os.environ,
        "ORT_DISABLE_TELEMETRY": "1",
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    elapsed_s = time.perf_counter() - started
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise BenchError(f"{command[0]} failed with code {done.returncode}: {lines[-1][:200]}")
    return elapsed_s
