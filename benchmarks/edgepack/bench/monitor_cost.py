"""What watching a model costs: recording a latency, and looking at a sample for drift."""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

import numpy as np

from edgepack.bench.figure import Figure, Line
from edgepack.monitor import DriftDetector, LatencyHistogram, build_reference
from edgepack.monitor.median import median

LARGEST_RECORD_US: Final = 0.3
_BLOCKS: Final = 200


def measure() -> Figure:
    """Measure the monitors' hot paths."""
    rng = np.random.default_rng(0)
    record = LatencyHistogram().record
    detector = DriftDetector(build_reference({"x": rng.random((1000, 64))}))
    row = {"x": rng.random((1, 64), dtype=np.float32)}
    return Figure(
        name="monitor_cost",
        title="What watching costs",
        method=(
            f"Medians over {_BLOCKS} blocks of calls, each block's mean; the counting of whole "
            "blocks of latencies and whole windows of drift is included."
        ),
        lines=(
            _line("record one latency", lambda: record(7000), 5000, LARGEST_RECORD_US),
            _line(
                "look at one sample of 64 features for drift", lambda: detector.observe(row), 400
            ),
        ),
    )


def _line(what: str, call: Callable[[], object], calls: int, limit: float | None = None) -> Line:
    blocks = []
    for _ in range(_BLOCKS):
        started_ns = perf_counter_ns()
        for _ in range(calls):
            call()
        blocks.append((perf_counter_ns() - started_ns) / calls / 1e3)
    found = median(blocks)
    return Line(
        what=what, value=found.value, unit="µs", low=found.low, high=found.high, limit=limit
    )
