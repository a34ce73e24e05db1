"""What `Model.predict` costs beside a bare `InferenceSession.run` of the same file."""

from typing import Final

from edgepack.bench.figure import Figure, Line
from edgepack.bench.pairs import Pairs, time_pairs
from edgepack.bench.workloads import (
    Workload,
    digits_network,
    digits_pipeline,
    digits_text_labels,
    image_network,
)
from edgepack.monitor.median import Median
from edgepack.runtime import SessionOptions, load

LARGEST_DIFFERENCE_US: Final = 3.0
LARGEST_RATIO: Final = 1.02

_SMALL_PAIRS: Final = 600
_SMALL_CALLS: Final = 400
_LARGE_PAIRS: Final = 4000
_LARGE_CALLS: Final = 1


def measure() -> Figure:
    """Compare on models of microseconds and of a millisecond."""
    lines: list[Line] = []
    for what, workload in (
        ("digits, scaler and logistic regression", digits_pipeline()),
        ("digits, scaler and a network of 64 units", digits_network()),
    ):
        pairs = compare(workload, pairs=_SMALL_PAIRS, calls_per_block=_SMALL_CALLS)
        lines += _lines(what, pairs, difference_limit=LARGEST_DIFFERENCE_US)
    pairs = compare(digits_text_labels(), pairs=_SMALL_PAIRS, calls_per_block=_SMALL_CALLS)
    lines += _lines(
        "digits, scaler and logistic regression, classes as text",
        pairs,
        difference_limit=LARGEST_DIFFERENCE_US,
    )
    pairs = compare(image_network(), pairs=_LARGE_PAIRS, calls_per_block=_LARGE_CALLS)
    lines += _lines("convolutions on a 96 x 96 colour image", pairs, ratio_limit=LARGEST_RATIO)
    return Figure(
        name="predict_overhead",
        title="What predict costs beside a bare InferenceSession.run",
        method=(
            "One process, one thread of onnxruntime without spinning for both. `predict` with all "
            "checks and the recording of its latency, against `InferenceSession.run(None, feeds)` "
            f"of the same file and sample. Blocks of {_SMALL_CALLS} calls ({_LARGE_CALLS} for the "
            f"model of a millisecond) alternate A B B A, {_SMALL_PAIRS} ({_LARGE_PAIRS}) pairs; "
            "medians over the pairs with the 95 % interval of the median. A negative difference "
            "is possible: predict binds its buffers once, a bare run makes them at every call."
        ),
        lines=tuple(lines),
    )


def compare(workload: Workload, *, pairs: int, calls_per_block: int) -> Pairs:
    """Time predict (A) against the bare session (B)."""
    import onnxruntime

    from edgepack.runtime.engines.onnxruntime import session_options

    options = SessionOptions()
    bare = onnxruntime.InferenceSession(
        workload.model, session_options(options), providers=["CPUExecutionProvider"]
    )
    ((name, tensor),) = workload.tensors.items()
    ((given, sample),) = workload.inputs.items()
    with load(workload, options=options) as model:
        predict, run = model.predict, bare.run
        return time_pairs(
            lambda: predict({given: sample}),
            lambda: run(None, {name: tensor}),
            pairs=pairs,
            calls_per_block=calls_per_block,
        )


def _lines(
    what: str,
    pairs: Pairs,
    *,
    difference_limit: float | None = None,
    ratio_limit: float | None = None,
) -> list[Line]:
    return [
        _line(f"{what}: bare run", pairs.b_us, "µs"),
        _line(f"{what}: predict", pairs.a_us, "µs"),
        _line(f"{what}: difference", pairs.difference_us, "µs", difference_limit),
        _line(f"{what}: ratio", pairs.ratio, "times", ratio_limit),
    ]


def _line(what: str, found: Median, unit: str, limit: float | None = None) -> Line:
    return Line(
        what=what, value=found.value, unit=unit, low=found.low, high=found.high, limit=limit
    )
