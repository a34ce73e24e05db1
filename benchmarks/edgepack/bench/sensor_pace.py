"""Processor time at a sensor's pace: the settings that a device measured, against a sweep."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from edgepack.bench.choice_models import BUNDLES
from edgepack.bench.contest_process import Choice, choose
from edgepack.bench.figure import Figure, Line
from edgepack.bench.static_process import static_process
from edgepack.bundle import open_bundle
from edgepack.monitor.median import Median, median
from edgepack.runtime import SessionOptions, choose_variant

LARGEST_RATIO: Final = 1.1
_PAUSE_S: Final = 0.05
_CALLS: Final = 12
_ROUNDS: Final = 9


def measure() -> Figure:
    """Sweep over every static configuration of the variant that a device chooses."""
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        for what, make in BUNDLES:
            bundle = make(Path(name))
            choice = choose(bundle)
            lines += _lines(what, bundle, choice)
    return Figure(
        name="sensor_pace",
        title="Processor time of an inference at 20 requests a second",
        method=(
            "The variant and the settings that a device chooses, against every static "
            "configuration of the same variant: threads from one to all, spinning, arena, weights "
            "repacked or as they lie, as far as its engine has them. Each configuration has a "
            f"process of its own; {_ROUNDS} rounds through all of them, in each {_CALLS} "
            "predictions of one sample with pauses between them. Processor time is of the whole "
            "process, pauses included. The ratio is chosen against the thriftiest by median, of "
            "the same rounds."
        ),
        lines=tuple(lines),
    )


def _lines(what: str, bundle: Path, choice: Choice) -> list[Line]:
    configurations = _sweep(bundle, choice)
    used: list[list[float]] = [[] for _ in configurations]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(static_process(bundle, choice.variant, options))
            for options in configurations
        ]
        for round_ in range(_ROUNDS):
            order = list(enumerate(processes))
            for place, process in order if round_ % 2 == 0 else order[::-1]:
                used[place].append(process.cpu_us(_CALLS, _PAUSE_S))
    chosen = used[configurations.index(choice.options)]
    best = min(used, key=lambda values: median(values).value)
    ratio = median([one / other for one, other in zip(chosen, best, strict=True)])
    return [
        _line(f"{what} ({choice.variant}): chosen settings", median(chosen), "µs"),
        _line(f"{what}: best of {len(configurations)}", median(best), "µs"),
        _line(f"{what}: ratio", ratio, "times", LARGEST_RATIO),
    ]


def _sweep(bundle: Path, choice: Choice) -> list[SessionOptions]:
    variant = choose_variant(open_bundle(bundle).contract, choice.variant)
    onnx = variant.engine.engine == "onnxruntime"
    apart = onnx and len(variant.files) > 1
    swept = [
        SessionOptions(threads=threads, spinning=spinning, arena=arena, repack=repack)
        for threads in range(1, len(os.sched_getaffinity(0)) + 1)
        for spinning in ((False, True) if onnx and threads > 1 else (False,))
        for arena in ((True, False) if onnx else (True,))
        for repack in ((False, True) if apart else (None,))
    ]
    return list(dict.fromkeys([choice.options, *swept]))


def _line(what: str, found: Median, unit: str, limit: float | None = None) -> Line:
    return Line(
        what=what, value=found.value, unit=unit, low=found.low, high=found.high, limit=limit
    )
