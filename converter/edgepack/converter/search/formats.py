"""The float file in the second format: written from the first, or exported by the framework."""

from dataclasses import dataclass

from edgepack.bundle.contract import Nonfinite, Parity
from edgepack.converter.calibrate import calibration_feeds
from edgepack.converter.draft import Candidate
from edgepack.converter.errors import (
    ConvertError,
    UnfitDataError,
    UnsupportedModelError,
    WorkerError,
)
from edgepack.converter.match import nan_probe
from edgepack.converter.parity import judge, takes_nan
from edgepack.converter.report import VariantReport
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.search.other_processor import look_there
from edgepack.converter.search.search import Ground
from edgepack.converter.sources.source import ExportWish, ModelFacts
from edgepack.converter.tools.tool import ToolJob

_MOST_CHECK_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OtherFormat:
    """The float file in another format, or why there is none."""

    candidate: Candidate | None
    parity: Parity | None
    report: VariantReport


def other_format(
    file_format: str,
    original: OriginalModel,
    facts: ModelFacts,
    base: Candidate,
    ground: Ground,
    *,
    limit_s: float | None = None,
) -> OtherFormat:
    """Make the float file in another format than the base's, and compare it with the original.

    An exporter that crashes or hangs costs its own format only.

    Args:
        file_format: Which.
        original: Exports itself, or lends its process to our own writer.
        facts: What it is.
        base: The float file that there is.
        ground: What candidates are judged by.
        limit_s: When to give up; by default the original's time for a question.
    """
    precision = facts.precision.partition("-")[0]
    name = f"{file_format}-{facts.precision}"
    try:
        candidate = _make(file_format, original, facts, base, ground, limit_s=limit_s)
    except (UnsupportedModelError, WorkerError) as exc:
        return _without(name, precision, str(exc))
    judgement = judge(ground.draft, candidate, ground.held_out)
    parity = None if judgement.comparison is None else judgement.comparison.parity
    reason = judgement.reason
    if judgement.passed and not _answers_nan(candidate, original, ground):
        reason = "rows with NaN are answered otherwise than by the original"
    kept, note = judgement.passed and reason is None, None
    if kept and precision == "int8" and file_format == "onnx":  # tf2onnx keeps 8-bit weights
        reason, note = look_there(ground.draft, candidate, ground.held_out)
        kept = reason is None
    report = VariantReport(
        name=name,
        precision=precision,
        kept=kept,
        reason=reason or note,
        size_bytes=candidate.size_bytes,
        parity=parity,
    )
    return OtherFormat(candidate=candidate if kept else None, parity=parity, report=report)


def _make(
    file_format: str,
    original: OriginalModel,
    facts: ModelFacts,
    base: Candidate,
    ground: Ground,
    *,
    limit_s: float | None,
) -> Candidate:
    draft = ground.draft
    if file_format in facts.formats:
        wish = ExportWish(
            task=draft.task,
            inputs=draft.inputs,
            outputs=tuple(spec.name for spec in draft.outputs),
            precision=facts.precision,
            format=file_format,
        )
        return original.export(wish, limit_s=limit_s)
    if file_format != "tflite" or base.format != "onnx":
        raise UnsupportedModelError(f"there is no way from {facts.framework} to {file_format}")
    if base.precision in ("int8", "fp16"):
        raise UnsupportedModelError(
            f"the file is {base.precision} already, and a TFLite file is written of float32 only: "
            "convert the model that it was made of"
        )
    if base.precision != "fp32":
        raise UnsupportedModelError(
            f"the model needs {base.precision}, and TFLite computes in float32"
        )
    rows = ground.calibration[:_MOST_CHECK_ROWS]
    feeds = calibration_feeds(draft, ground.arrays, rows, base)
    job = ToolJob(
        exported=base.exported, feeds=feeds, fields={"class_names": list(draft.class_names)}
    )
    result = original.use_tool("write-tflite", job, limit_s=limit_s)
    if result.exported is None:
        raise UnsupportedModelError("the writer made no file")
    return Candidate(name=f"{file_format}-fp32", precision="fp32", exported=result.exported)


def _answers_nan(candidate: Candidate, original: OriginalModel, ground: Ground) -> bool:
    """Where the contract lets NaN in, every float file must take it as the original does."""
    draft = ground.draft
    if not any(spec.nonfinite is Nonfinite.NAN for spec in draft.inputs):
        return True
    probe = nan_probe(draft.inputs, ground.arrays)
    if probe is None:
        return True
    try:
        expected = original.run(draft.task, probe)
    except UnfitDataError:  # the original takes NaN in some columns only; those are in the data
        return True
    except ConvertError:
        return False
    kept = {spec.name: expected[spec.name] for spec in draft.outputs}
    return takes_nan(draft, candidate, probe, kept)


def _without(name: str, precision: str, reason: str) -> OtherFormat:
    report = VariantReport(name=name, precision=precision, kept=False, reason=reason)
    return OtherFormat(candidate=None, parity=None, report=report)
