"""The search: tries plans on all cores, repairs what misses, and keeps what is worth its bytes."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgepack.bundle.contract import Parity, Tolerances
from edgepack.converter.calibrate import calibration_feeds
from edgepack.converter.draft import Candidate, Draft
from edgepack.converter.errors import ToleranceError, UnsupportedModelError, WorkerError
from edgepack.converter.parity import HeldOut
from edgepack.converter.report import VariantReport
from edgepack.converter.request import Precision, Stage, Teller
from edgepack.converter.search.lint import lint
from edgepack.converter.search.other_processor import look_there, may_saturate
from edgepack.converter.search.pareto import Point, dominated
from edgepack.converter.search.plans import Pinned, Plan, nothing_to_quantize, plans_for
from edgepack.converter.search.pool import ToolPool
from edgepack.converter.search.verdict import Verdict, judge
from edgepack.converter.tools.tool import Quantization, ToolJob
from edgepack.runtime.tensors import Array

_LARGEST_PART = 0.95
_MOST_FLOAT_PART = 2  # with more than every second layer in float there is little left to gain


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """What every candidate is made of and judged by.

    Attributes:
        draft: Of the contract.
        held_out: Rows that calibration never sees.
        arrays: All rows as the model takes them, by contract name.
        calibration: The rows that set ranges.
    """

    draft: Draft
    held_out: HeldOut
    arrays: dict[str, Array]
    calibration: NDArray[np.int64]

    @property
    def tolerances(self) -> Tolerances:
        """The bounds."""
        return self.draft.tolerances


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tried:
    """One plan and what came of it."""

    plan: Plan
    candidate: Candidate | None
    verdict: Verdict | None
    reason: str
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it may be packed."""
        return self.candidate is not None and self.verdict is not None and self.verdict.passed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """A candidate that will be packed."""

    candidate: Candidate
    parity: Parity
    outputs: dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What the search found: what is kept beside the float files, and a report on every try."""

    kept: tuple[Kept, ...]
    reports: tuple[VariantReport, ...]


def search(
    bases: Sequence[Candidate],
    ground: Ground,
    pool: ToolPool,
    pinned: Pinned,
    tell: Teller,
) -> Found:
    """Search for smaller variants of float files.

    Args:
        bases: The float files, one a format.
        ground: What candidates are judged by.
        pool: Where tools run.
        pinned: What was asked for.
        tell: Takes progress, with an estimate.

    Raises:
        ToleranceError: A precision that was asked for by name is met by no candidate.
        ConvertError: A child process failed for a reason that is not the candidate's.
    """
    reports: list[VariantReport] = []
    work: list[tuple[Candidate, Plan]] = []
    for base in bases:
        if base.precision == "int8" and not _is_open(base):
            continue  # the file itself is what would be made
        reason = _no_gain(base)
        if reason is None:
            plans = plans_for(base.format, base.facts.summary, pinned)
            work += [(base, plan) for plan in plans]
        else:
            reports.append(_left_out(f"{base.format}-int8", "int8", reason))
    tried = _try_all(work, ground, pool, tell)
    tried += _repair_all(bases, tried, ground, pool, tell)
    kept, more = _choose(tried)
    reports += more
    _insist(pinned.precisions, [base.name for base in bases], reports)
    return Found(kept=tuple(kept), reports=tuple(reports))


def _is_open(base: Candidate) -> bool:
    """TFLite whose weights alone are 8-bit is opened for quantizing: it computes in float."""
    return base.format == "tflite" and base.name.endswith("-weights")


def _no_gain(base: Candidate) -> str | None:
    if base.precision == "fp16":
        return "the file is fp16 already: convert the model that it was made of"
    reason = nothing_to_quantize(base.facts.summary)
    if reason is None and base.precision == "fp64":
        return f"left out: the model needs {base.precision}, so 8 bits cannot do"
    return reason


def _try_all(
    work: Sequence[tuple[Candidate, Plan]], ground: Ground, pool: ToolPool, tell: Teller
) -> list[Tried]:
    started = time.monotonic()
    futures = {
        pool.submit(lambda base=base, plan=plan: _try(base, plan, ground, pool)): plan  # type: ignore[misc]
        for base, plan in work
    }
    found: dict[str, Tried] = {}
    if any(plan.needs_rows for _, plan in work):
        tell(Stage.CALIBRATE, f"{len(ground.calibration)} rows, none of them held out")
    if work:
        tell(Stage.QUANTIZE, f"{len(work)} candidates")
    for done, future in enumerate(as_completed(futures), start=1):
        tried = future.result()
        found[tried.plan.name] = tried
        left = len(work) - done
        if left:
            each_s = (time.monotonic() - started) / done
            tell(
                Stage.QUANTIZE,
                f"{done} of {len(work)} candidates, about {each_s * left:.0f} s left",
            )
    return [found[plan.name] for _, plan in work]


def _try(base: Candidate, plan: Plan, ground: Ground, pool: ToolPool) -> Tried:
    """Make one candidate and judge it; runs in a thread of the pool."""
    feeds: dict[str, Array] = {}
    if plan.needs_rows:
        feeds = calibration_feeds(ground.draft, ground.arrays, ground.calibration, base)
        if not len(next(iter(feeds.values()), ())):
            reason = "no rows are left for calibration: give at least 80 without NaN"
            return Tried(plan=plan, candidate=None, verdict=None, reason=reason)
    job = ToolJob(exported=base.exported, feeds=feeds, wish=plan.wish)
    try:
        result = pool.use(f"quantize-{base.format}", job)
    except (UnsupportedModelError, WorkerError) as exc:
        return Tried(plan=plan, candidate=None, verdict=None, reason=str(exc))
    if result.exported is None:
        raise WorkerError("the quantizer made no file")
    candidate = Candidate(name=plan.name, precision=plan.precision, exported=result.exported)
    if len(candidate.data) > _LARGEST_PART * len(base.data):
        reason = f"not smaller: {len(candidate.data)} bytes against {len(base.data)} of {base.name}"
        return Tried(plan=plan, candidate=candidate, verdict=None, reason=reason)
    verdict = judge(ground.draft, candidate, ground.held_out)
    notes: tuple[str, ...] = ()
    if verdict.passed:
        refused, notes = lint(candidate, pool)
        if refused is None and may_saturate(base.format, plan.wish):
            refused, there = look_there(ground.draft, candidate, ground.held_out)
            notes = (*notes, there)
        if refused is not None:
            verdict = replace(verdict, passed=False, reason=refused)
    ratio = len(base.data) / len(candidate.data)
    return Tried(
        plan=plan,
        candidate=candidate,
        verdict=verdict,
        reason=f"{ratio:.1f} times smaller, {verdict.reason}" if verdict.passed else verdict.reason,
        notes=notes,
    )


def _repair_all(
    bases: Sequence[Candidate],
    tried: Sequence[Tried],
    ground: Ground,
    pool: ToolPool,
    tell: Teller,
) -> list[Tried]:
    """For each format where every static int8 misses, one that keeps layers in float."""
    futures = []
    for base in bases:
        static = [
            item
            for item in tried
            if item.plan.family == "int8 static" and item.plan.name.startswith(f"{base.format}-")
        ]
        missed = [item for item in static if item.verdict is not None and item.verdict.parity]
        if not missed or any(item.passed for item in static):
            continue
        best = max(missed, key=lambda item: item.verdict.quality if item.verdict else -1.0)
        tell(Stage.QUANTIZE, f"{best.plan.name} misses: which layers need float?")
        futures.append(
            pool.submit(lambda base=base, best=best: _repair(base, best, ground, pool))  # type: ignore[misc]
        )
    return [item for future in futures for item in [future.result()] if item is not None]


def _repair(base: Candidate, missed: Tried, ground: Ground, pool: ToolPool) -> Tried | None:
    """Keep the most sensitive layers in float until the rest is good enough."""
    mixed = replace(missed.plan, name=f"{missed.plan.name}-mixed")
    try:
        layers = _layers(base, missed.plan.wish, ground, pool)
    except (UnsupportedModelError, WorkerError) as exc:
        reason = f"which layers need float cannot be measured: {exc}"
        return Tried(plan=mixed, candidate=None, verdict=None, reason=reason)
    last = None
    count = 1
    while count <= len(layers) // _MOST_FLOAT_PART:
        kept = tuple(layers[:count])
        plan = replace(mixed, wish=replace(mixed.wish, keep_float=kept))
        last = _try(base, plan, ground, pool)
        if last.passed or last.verdict is None:
            shown = ", ".join(kept[:3]) + (f" and {count - 3} more" if count > 3 else "")
            return replace(
                last, reason=f"{count} of {len(layers)} layers in float ({shown}); {last.reason}"
            )
        count = count + 1 if count < 4 else int(count * 1.5)
    return last


def _layers(base: Candidate, wish: Quantization, ground: Ground, pool: ToolPool) -> list[str]:
    """The layers by how much they lose, the worst first."""
    feeds = calibration_feeds(ground.draft, ground.arrays, ground.calibration, base)
    job = ToolJob(exported=base.exported, feeds=feeds, wish=wish)
    layers = pool.use(f"rank-{base.format}", job).fields.get("layers")
    if not isinstance(layers, list):
        return []
    return [str(layer["name"]) for layer in layers if isinstance(layer, dict)]


def _choose(tried: Iterable[Tried]) -> tuple[list[Kept], list[VariantReport]]:
    """What stays, under its last name, and a report on each: the best of a family first."""
    tried = _best_of_each_first(list(tried))
    points = [
        Point(
            name=item.plan.name,
            family=f"{item.candidate.format} {item.plan.family}",
            size_bytes=len(item.candidate.data),
            quality=item.verdict.quality,
        )
        for item in tried
        if item.passed and item.candidate is not None and item.verdict is not None
    ]
    losers = {**dominated(points), **_twins(tried)}
    kept: list[Kept] = []
    reports: list[VariantReport] = []
    names: set[str] = set()
    for item in tried:
        if not item.passed or item.candidate is None or item.verdict is None:
            reports.append(_report(item, kept=False, reason=item.reason))
            continue
        if item.plan.name in losers:
            other = losers[item.plan.name]
            reason = f"{other} is no larger and no worse; {item.reason}"
            reports.append(_report(item, kept=False, reason=reason))
            continue
        name = _plain_name(item.plan, names)
        names.add(name)
        candidate = replace(item.candidate, name=name)
        if item.verdict.parity is None:
            raise WorkerError("a candidate passed that was not measured")
        kept.append(
            Kept(candidate=candidate, parity=item.verdict.parity, outputs=item.verdict.outputs)
        )
        made = "" if name == item.plan.name else f"made as {item.plan.name}; "
        reason = "; ".join([made + item.reason, *item.notes])
        reports.append(replace(_report(item, kept=True, reason=reason), name=name))
    return kept, reports


def _best_of_each_first(tried: list[Tried]) -> list[Tried]:
    """By format and family as they were planned, and within those by quality."""
    families = list(dict.fromkeys(_family(item) for item in tried))

    def rank(item: Tried) -> tuple[int, float]:
        quality = item.verdict.quality if item.passed and item.verdict is not None else -2.0
        return families.index(_family(item)), -quality

    return sorted(tried, key=rank)


def _family(item: Tried) -> tuple[str, str]:
    return item.plan.name.partition("-")[0], item.plan.family


def _twins(tried: Iterable[Tried]) -> dict[str, str]:
    """Candidates that are an earlier one byte for byte: a bundle holds every file once."""
    first: dict[bytes, str] = {}
    twins: dict[str, str] = {}
    for item in tried:
        if item.passed and item.candidate is not None:
            name = first.setdefault(item.candidate.data, item.plan.name)
            if name != item.plan.name:
                twins[item.plan.name] = name
    return twins


def _plain_name(plan: Plan, taken: set[str]) -> str:
    """The first static int8 that is kept is "onnx-int8", however it was made."""
    file_format = plan.name.partition("-")[0]
    plain = {
        "fp16": f"{file_format}-fp16",
        "int8 static": f"{file_format}-int8",
        "int8 dynamic": f"{file_format}-int8-dynamic",
    }[plan.family]
    return plan.name if plain in taken else plain


def _report(item: Tried, *, kept: bool, reason: str) -> VariantReport:
    return VariantReport(
        name=item.plan.name,
        precision=item.plan.precision,
        kept=kept,
        reason=reason,
        size_bytes=None if item.candidate is None else len(item.candidate.data),
        parity=None if item.verdict is None else item.verdict.parity,
    )


def _left_out(name: str, precision: str, reason: str) -> VariantReport:
    return VariantReport(name=name, precision=precision, kept=False, reason=reason)


def _insist(
    precisions: Sequence[Precision], bases: Sequence[str], reports: Sequence[VariantReport]
) -> None:
    """A precision that was asked for by its name must be met in one format at least.

    A ready file may be what was asked for.
    """
    marks = {Precision.FP16: "-fp16", Precision.INT8: "-int8", Precision.INT8_DYNAMIC: "-dynamic"}
    for precision in precisions:
        if precision not in marks or any(base.endswith(f"-{precision.value}") for base in bases):
            continue
        mine = [item for item in reports if marks[precision] in item.name]
        if precision is Precision.INT8:
            mine = [item for item in mine if "-dynamic" not in item.name]
        if any(item.kept for item in mine):
            continue
        why = "; ".join(f"{item.name}: {item.reason}" for item in _best(mine))
        why = why or "no format has it"
        raise ToleranceError(f"no {precision.value} variant can be packed: {why}")


def _best(reports: Sequence[VariantReport]) -> list[VariantReport]:
    """Of each format the one that came nearest."""
    found: dict[str, VariantReport] = {}
    for report in reports:
        file_format = report.name.partition("-")[0]
        if file_format not in found or _loss(report) < _loss(found[file_format]):
            found[file_format] = report
    return list(found.values())


def _loss(report: VariantReport) -> float:
    return 2.0 if report.parity is None else report.parity.figures.get("drop", 2.0)
