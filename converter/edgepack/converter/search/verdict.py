"""Whether a quantized candidate is good enough, and how sure that is. Pure.

The task's own metric decides: accuracy or R² against the truth where there are labels, agreement
or R² with the original where there are none. A drop is the original's metric less the
candidate's on the same rows; its interval is that of matched proportions for labels, and comes
from resampling the rows (Efron 1979) for numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepack.bundle.contract import Parity, Task
from edgepack.converter.draft import Candidate, Draft
from edgepack.converter.errors import one_line
from edgepack.converter.parity import HeldOut, answers_of
from edgepack.monitor.quality import wilson_interval
from edgepack.runtime.errors import EngineError, InputError, ParityError
from edgepack.runtime.figures import rows_agreeing, same_labels
from edgepack.runtime.parity import FLOAT_PRECISIONS, compare, labels_of, several_labels_of
from edgepack.runtime.tensors import Array

RESAMPLES: Final = 1000
LEVEL: Final = 0.95
_Z: Final = 1.959964  # the normal distribution's quantile for it
_ROOM: Final = 4.0  # R² of a few golden rows scatters round that of all held-out ones
_LEAST: Final = 1e-6
# What a changed answer counts beside a lost one. Rows of other origin may lose what these gained:
# uci_har, judged on the six subjects it was trained on, gained 0.6 points in a candidate that
# answered 0.7 % of the rows otherwise, and lost 1.1 points on three others.
_SAMENESS_WEIGHT: Final = 0.25
_LABEL_TASKS: Final = frozenset({Task.CLASSIFICATION, Task.OUTLIER, Task.CLUSTERING})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """What came of judging one candidate.

    Attributes:
        passed: Whether it may be packed.
        reason: One line: why not, or by how much it passed.
        parity: As the contract stores it; None if it could not be run.
        quality: The metric that candidates are ranked by, larger is better.
        outputs: Its answers for the held-out rows, empty if it could not be run.
    """

    passed: bool
    reason: str
    parity: Parity | None
    quality: float
    outputs: dict[str, Array]


def judge(draft: Draft, candidate: Candidate, held_out: HeldOut) -> Verdict:
    """Run a candidate on the held-out rows and judge it by the task's metric."""
    try:
        got = answers_of(draft, candidate, held_out.inputs)
        return judge_outputs(draft, candidate.precision, held_out, got)
    except (EngineError, InputError, ParityError) as exc:
        return Verdict(passed=False, reason=one_line(exc), parity=None, quality=-1.0, outputs={})


def judge_outputs(
    draft: Draft, precision: str, held_out: HeldOut, got: Mapping[str, Array]
) -> Verdict:
    """Judge answers.

    Raises:
        ParityError: They are not of the kind that the original's are.
    """
    comparison = compare(
        draft.task,
        held_out.expected,
        got,
        tolerances=draft.tolerances,
        precision=precision,
        truth=held_out.truth,
        class_names=draft.class_names,
    )
    if precision in FLOAT_PRECISIONS:
        return Verdict(
            passed=comparison.passed,
            reason=comparison.reason or "answers as the original",
            parity=comparison.parity,
            quality=comparison.parity.value,
            outputs=dict(got),
        )
    parity = comparison.parity
    drop, low, high = _drop(draft, held_out, got)
    figures = {**parity.figures, "drop": drop, "drop_low": low, "drop_high": high}
    if parity.metric == "agreement":
        hits = round(parity.value * parity.rows)
        figures["agreement_low"], figures["agreement_high"] = wilson_interval(hits, parity.rows)
    most = draft.tolerances.max_drop
    broken = figures.get("nonfinite_mismatches", 0.0)
    passed = drop <= most and not broken
    what = _metric_name(draft, held_out)
    reason = f"{what} drops by {drop:.4f} [{low:.4f}, {high:.4f}], at most {most:g}"
    if broken:
        reason = f"{broken:.0f} values are NaN or infinite in one only"
    # The device's own test has no need of truths: it must meet what was measured here.
    room = most if parity.metric == "agreement" else max(most, _ROOM * (1 - parity.value), _LEAST)
    bound = min(parity.value, 1.0) - room
    return Verdict(
        passed=passed,
        reason=reason,
        parity=replace(parity, figures=figures, bound=bound),
        quality=_quality(drop, parity.value),
        outputs=dict(got),
    )


def _quality(drop: float, sameness: float) -> float:
    """What candidates are ranked by: nobody is better for gaining by chance.

    Sameness with the original (agreement or R²) tells candidates apart whose drop is none.
    """
    return -max(drop, 0.0) - _SAMENESS_WEIGHT * (1 - sameness)


def _metric_name(draft: Draft, held_out: HeldOut) -> str:
    has_truth = held_out.truth is not None
    if draft.task is Task.CLASSIFICATION or (draft.task is Task.OUTLIER and has_truth):
        return "accuracy" if has_truth else "agreement"
    if several_labels_of(draft.task, held_out.expected) is not None:
        return "accuracy of all labels" if has_truth else "agreement of all labels"
    if draft.task in _LABEL_TASKS:
        return "agreement"
    return "R² to the truth" if has_truth and draft.task is Task.REGRESSION else "R²"


def _drop(draft: Draft, held_out: HeldOut, got: Mapping[str, Array]) -> tuple[float, float, float]:
    """The loss of the task's metric and its 95 % interval."""
    truth = held_out.truth
    if draft.task in _LABEL_TASKS:
        labels = labels_of(held_out.expected, draft.class_names)
        ours = labels_of(got, draft.class_names)
        if truth is None or draft.task is Task.CLUSTERING:
            lost = 1.0 - same_labels(labels, ours).astype(np.float64)
        else:
            right = same_labels(truth, labels).astype(np.float64)
            lost = right - same_labels(truth, ours).astype(np.float64)
        return _mean_interval(lost)
    several = several_labels_of(draft.task, held_out.expected)
    if several is not None:
        if truth is None:
            return _mean_interval(1.0 - rows_agreeing(several, got["label"]).astype(np.float64))
        right = rows_agreeing(truth, several).astype(np.float64)
        return _mean_interval(right - rows_agreeing(truth, got["label"]).astype(np.float64))
    name = first_numbers(held_out.expected)
    if name is None:
        return _mean_interval(1.0 - rows_alike(held_out.expected, got))
    first, second = _flat(held_out.expected[name]), _flat(got[name])
    if truth is not None and draft.task is Task.REGRESSION:
        return _r2_interval(_flat(truth), first, second)
    return _r2_interval(first, first, second)


def first_numbers(outputs: Mapping[str, Array]) -> str | None:
    """The first output of fractions, which metrics of numbers are of; None if there is none."""
    return next((name for name, values in outputs.items() if values.dtype.kind == "f"), None)


def rows_alike(expected: Mapping[str, Array], got: Mapping[str, Array]) -> NDArray[np.float64]:
    """For each row 1 if all its outputs are the same, else 0."""
    rows = next(iter(expected.values())).shape[0]
    alike = np.ones(rows, dtype=np.bool_)
    for name, values in expected.items():
        alike &= same_labels(values, got[name]).reshape(rows, -1).all(axis=1)
    return alike.astype(np.float64)


def _flat(array: Array) -> NDArray[np.float64]:
    return array.reshape(array.shape[0], -1).astype(np.float64)


def _mean_interval(lost: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of a loss per row, -1, 0 or 1, and its interval.

    Half a row is added to each of the four kinds of pairs (Agresti and Min 2005, "Simple improved
    confidence intervals for comparing matched proportions"), so that no loss in few rows is not
    taken for certainty.
    """
    rows = len(lost) + 2
    lose, win = float((lost > 0).sum() + 0.5) / rows, float((lost < 0).sum() + 0.5) / rows
    half = _Z * math.sqrt(max(0.0, lose + win - (lose - win) ** 2) / rows)
    middle = lose - win
    return float(lost.mean()), max(-1.0, middle - half), min(1.0, middle + half)


def _r2_interval(
    truth: NDArray[np.float64], original: NDArray[np.float64], ours: NDArray[np.float64]
) -> tuple[float, float, float]:
    """R² of the original less that of the candidate: of the worst column, and its interval."""
    kept = (np.isfinite(truth) & np.isfinite(original) & np.isfinite(ours)).all(axis=1)
    if not kept.any():
        return math.inf, math.inf, math.inf
    truth, original, ours = truth[kept], original[kept], ours[kept]
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    # R² of a constant is not defined: what was lost then counts against the size of the constant.
    scale = np.where(total > 0, total, np.maximum((truth**2).sum(axis=0), 1e-30))
    lost = (ours - truth) ** 2 - (original - truth) ** 2
    drops = lost.sum(axis=0) / scale
    worst = int(drops.argmax())
    rows = len(lost)
    random = np.random.Generator(np.random.PCG64(rows))
    draws = random.integers(0, rows, size=(min(RESAMPLES, max(50, 10_000_000 // rows)), rows))
    sums = lost[:, worst][draws].sum(axis=1) / scale[worst]
    low, high = np.quantile(sums, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(drops[worst]), float(low), float(high)
