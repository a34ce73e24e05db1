"""How much slower than the best variant the one is that a device chooses for itself."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgepack.bench.choice_models import BUNDLES
from edgepack.bench.contest_process import Choice, choose
from edgepack.bench.figure import Figure, Line
from edgepack.bench.static_process import StaticProcess, static_process
from edgepack.bundle import open_bundle
from edgepack.bundle.contract import Variant
from edgepack.monitor.median import Median, median
from edgepack.runtime import SessionOptions

LARGEST_RATIO: Final = 1.05
_CONTESTS: Final = 3
_RESTARTS: Final = 5  # two processes of the same model differ by a tenth, by where it lies
_ROUNDS: Final = 12
_FIRST_ROUNDS: Final = 5
_HOPELESS: Final = 2.0
_BLOCK_US: Final = 5000.0
_MOST_CALLS: Final = 300


def measure() -> Figure:
    """Let a device choose, then time every variant against its choice."""
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        for what, make in BUNDLES:
            lines += _lines(what, make, Path(name))
    return Figure(
        name="variant_choice",
        title="The variant that a device chooses, against the best one",
        method=(
            f"Each bundle is tried {_CONTESTS} times as on a device, each time in a new process. "
            "Then every variant, and a variant whose weights lie apart both repacked and as they "
            "lie, is loaded in a process of its own under the chosen number of threads, and all "
            f"are timed in turns, {_ROUNDS} rounds of blocks of some milliseconds in each of "
            f"{_RESTARTS} sets of new processes; those that take twice as long are let go after "
            f"{_FIRST_ROUNDS}. The ratio is of neighbouring "
            "blocks: chosen against best, the worst of the choices; best is the one with the "
            "smallest median ratio."
        ),
        lines=tuple(lines),
    )


def _lines(what: str, make: Callable[[Path], Path], folder: Path) -> list[Line]:
    bundle = make(folder)
    choices = [choose(bundle) for _ in range(_CONTESTS)]
    worst = max((_regret(bundle, choice) for choice in _distinct(choices)), key=_by_value)
    seconds = median([choice.seconds for choice in choices])
    names = ", ".join(sorted({choice.variant for choice in choices}))
    variants = open_bundle(bundle).contract.variants
    return [
        Line(
            what=f"{what}, {len(variants)} variants: chosen ({names}) against the best",
            value=worst.value,
            unit="times",
            low=worst.low,
            high=worst.high,
            limit=LARGEST_RATIO,
        ),
        Line(
            what=f"{what}: the choice takes",
            value=seconds.value,
            unit="s",
            low=seconds.low,
            high=seconds.high,
        ),
    ]


def _distinct(choices: list[Choice]) -> list[Choice]:
    return list({(choice.variant, choice.options): choice for choice in choices}.values())


def _by_value(found: Median) -> float:
    return found.value


def _regret(bundle: Path, choice: Choice) -> Median:
    """Chosen / best, over neighbouring blocks."""
    rivals = _rivals(open_bundle(bundle).contract.variants, choice)
    if not rivals:
        return Median(value=1.0, low=1.0, high=1.0)
    ratios: list[list[float]] = [[] for _ in rivals]
    for _ in range(_RESTARTS):
        with contextlib.ExitStack() as stack:
            chosen = stack.enter_context(static_process(bundle, choice.variant, choice.options))
            others = [
                stack.enter_context(static_process(bundle, name, options))
                for name, options in rivals
            ]
            for values, more in zip(ratios, _ratios(chosen, others), strict=True):
                values.extend(more)
    best = max(ratios, key=lambda values: median(values).value)  # the one it looks worst against
    found = median(best)
    if found.value < 1:  # nobody is faster: the chosen one is the best
        return Median(value=1.0, low=1.0, high=1.0)
    return found


def _rivals(variants: tuple[Variant, ...], choice: Choice) -> list[tuple[str, SessionOptions]]:
    found = []
    for variant in variants:
        apart = len(variant.files) > 1 and variant.engine.engine == "onnxruntime"
        for repack in (False, True) if apart else (None,):
            options = SessionOptions(threads=choice.options.threads, repack=repack)
            if (variant.name, repack) != (choice.variant, choice.options.repack):
                found.append((variant.name, options))
    return found


def _ratios(chosen: StaticProcess, rivals: list[StaticProcess]) -> list[list[float]]:
    calls = {side: _calls(side) for side in (chosen, *rivals)}
    found: list[list[float]] = [[] for _ in rivals]
    for round_ in range(_ROUNDS):
        for place, rival in enumerate(rivals):
            early = found[place]
            if round_ >= _FIRST_ROUNDS and max(early[:_FIRST_ROUNDS]) < 1 / _HOPELESS:
                continue
            sides = (chosen, rival) if round_ % 2 == 0 else (rival, chosen)
            times = {side: side.time_us(calls[side]) for side in sides}
            early.append(times[chosen] / times[rival])
    return found


def _calls(side: StaticProcess) -> int:
    return max(3, min(_MOST_CALLS, int(_BLOCK_US / side.time_us(5))))
