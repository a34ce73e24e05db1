"""Adds int8 to a proven model, if there is something to gain and it stays good enough."""

from dataclasses import replace

from edgepack.converter.calibrate import calibration_feeds
from edgepack.converter.child import Child
from edgepack.converter.draft import Candidate
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.parity import judge
from edgepack.converter.prove import ProvenModel
from edgepack.converter.quantize import (
    METHODS,
    NAME,
    WORKER_FILE_BYTES,
    WORKER_SOURCE,
    not_smaller,
    nothing_to_quantize,
    quantize,
)
from edgepack.converter.report import VariantReport
from edgepack.converter.request import ConvertRequest, Stage, Teller
from edgepack.converter.worker_process import WorkerProcess
from edgepack.runtime.tensors import Array


def shrink(
    proven: ProvenModel,
    request: ConvertRequest,
    scratch: str,
    tell: Teller,
) -> ProvenModel:
    """Try int8 and say what came of it.

    Returns:
        The model with a report on int8, and with the variant if it is kept.

    Raises:
        WorkerError: The child process failed.
    """
    base = proven.kept[0]
    reason = nothing_to_quantize(base.facts.summary)
    if reason is None and base.precision != "fp32":
        reason = f"left out: the model needs {base.precision}, so 8 bits cannot do"
    if reason is not None:
        return _with_report(proven, _left_out(reason))
    feeds = calibration_feeds(proven.draft.inputs, proven.inputs, proven.split.calibration, base)
    rows = next(iter(feeds.values())).shape[0]
    if rows == 0:
        return _with_report(
            proven, _left_out("no rows are left for calibration: give at least 80 without NaN")
        )
    tell(Stage.CALIBRATE, f"{rows} rows, none of them held out")
    with Child(
        WORKER_SOURCE,
        timeout_s=request.timeout_s,
        memory_bytes=request.memory_bytes,
        file_bytes=WORKER_FILE_BYTES,
        scratch=scratch,
    ) as child:
        return _try_methods(proven, WorkerProcess(child), feeds, tell)


def _try_methods(
    proven: ProvenModel,
    worker: WorkerProcess,
    feeds: dict[str, Array],
    tell: Teller,
) -> ProvenModel:
    base = proven.kept[0]
    report = _left_out("not tried")
    reasons: list[str] = []
    for method in METHODS:
        tell(Stage.QUANTIZE, f"int8, {method}")
        try:
            candidate = quantize(worker, base, feeds, method)
        except UnsupportedModelError as exc:
            reasons.append(f"{method}: {exc}")
            continue
        larger = not_smaller(candidate, base)
        if larger is not None:
            reasons.append(f"{method}: {larger}")
            report = _left_out("; ".join(reasons), candidate)
            continue
        tell(Stage.PARITY, f"int8, {method}, on {proven.rows.held_out} held-out rows")
        judgement = judge(proven.draft, candidate, proven.held_out)
        parity = None if judgement.comparison is None else judgement.comparison.parity
        if judgement.passed and parity is not None:
            ratio = len(base.data) / len(candidate.data)
            kept = VariantReport(
                name=NAME,
                precision=candidate.precision,
                kept=True,
                reason="; ".join([*reasons, f"{method}, {ratio:.1f} times smaller than fp32"]),
                size_bytes=len(candidate.data),
                parity=parity,
            )
            return replace(
                _with_report(proven, kept),
                kept=(*proven.kept, candidate),
                variants=(*proven.variants, candidate.variant(parity)),
            )
        reasons.append(f"{method}: {judgement.reason}")
        report = replace(_left_out("; ".join(reasons), candidate), parity=parity)
    return _with_report(proven, replace(report, reason="; ".join(reasons)))


def _with_report(proven: ProvenModel, report: VariantReport) -> ProvenModel:
    return replace(proven, reports=(*proven.reports, report))


def _left_out(reason: str, candidate: Candidate | None = None) -> VariantReport:
    return VariantReport(
        name=NAME,
        precision="int8",
        kept=False,
        reason=reason,
        size_bytes=None if candidate is None else len(candidate.data),
    )
