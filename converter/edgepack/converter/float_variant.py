"""Finds the float variant that answers as the original does: fp32, else fp64."""

from dataclasses import dataclass, replace

import numpy as np

from edgepack.bundle.contract import Datatype, Nonfinite, Parity, Task
from edgepack.converter.draft import Candidate, Draft
from edgepack.converter.errors import ToleranceError, UnfitDataError, UnsupportedModelError
from edgepack.converter.match import MatchedInputs, nan_probe, widened
from edgepack.converter.parity import HeldOut, judge, takes_nan
from edgepack.converter.report import VariantReport
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.sources.source import ExportWish, ModelFacts

_OPTIONAL_OUTPUTS = ("scores",)  # a label is enough; converters differ in what scores they give


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FloatVariant:
    """The float variant that met its tolerance, and what was tried on the way."""

    draft: Draft
    held_out: HeldOut
    candidate: Candidate
    parity: Parity
    reports: tuple[VariantReport, ...]
    messages: tuple[str, ...] = ()


def find_float_variant(
    original: OriginalModel, facts: ModelFacts, draft: Draft, held_out: HeldOut
) -> FloatVariant:
    """The first float variant that answers as the original does: fp32, else fp64.

    A ready file that is quantized has its own precision and no other.
    """
    drafts = {facts.precision: draft}
    if not facts.inputs and any(spec.datatype is Datatype.FP32 for spec in draft.inputs):
        drafts["fp64"] = replace(draft, inputs=widened(draft.inputs))
    failed: list[VariantReport] = []
    for precision, tried in drafts.items():
        wish = ExportWish(
            task=tried.task,
            inputs=tried.inputs,
            outputs=tuple(held_out.expected),
            precision=precision,
            format=facts.formats[0],
        )
        try:
            candidate = original.export(wish)
        except UnsupportedModelError as exc:
            if not failed:
                raise
            failed.append(_not_exported(wish, str(exc)))
            continue
        found, report = _try(tried, held_out, candidate)
        if found is None:
            failed.append(report)
            continue
        found = _settle_ties(original, found, wish)
        if not failed:
            return found
        note = (
            f"the model needs float64 (in float32 {failed[0].reason}): its inputs are FP64 and "
            "int8 is left out"
        )
        return replace(found, reports=(*failed, *found.reports), messages=(*found.messages, note))
    tried_all = "; ".join(f"{report.name}: {report.reason}" for report in failed)
    raise ToleranceError(f"no variant met its tolerance: {tried_all}")


def _settle_ties(original: OriginalModel, found: FloatVariant, wish: ExportWish) -> FloatVariant:
    """Make labels agree on rows where the original's classes tie, if they do not."""
    before = found.parity.figures.get("agreement", 1.0)
    if before == 1.0 or "probabilities" not in found.held_out.expected:
        return found
    try:
        candidate = original.export(replace(wish, settle_ties=True))
    except UnsupportedModelError:
        return found
    settled, _ = _try(found.draft, found.held_out, candidate)
    if settled is None or settled.parity.figures.get("agreement", 0.0) <= before:
        return found
    return settled


def _not_exported(wish: ExportWish, reason: str) -> VariantReport:
    name = f"{wish.format}-{wish.precision}"
    return VariantReport(name=name, precision=wish.precision, kept=False, reason=reason)


def _try(
    draft: Draft, held_out: HeldOut, candidate: Candidate
) -> tuple[FloatVariant | None, VariantReport]:
    """Judge a candidate; scores that its converter defines otherwise are left out."""
    judgement = judge(draft, candidate, held_out)
    messages = candidate.facts.messages
    if not judgement.passed:
        for name in _OPTIONAL_OUTPUTS:
            if name not in held_out.expected or len(held_out.expected) < 2:
                continue
            fewer = replace(
                draft, outputs=tuple(spec for spec in draft.outputs if spec.name != name)
            )
            slim = candidate.without(name)
            again = judge(fewer, slim, held_out.without(name))
            if again.passed:
                messages = (
                    *messages,
                    f"{name} are left out: the converted ones differ by more than the tolerance",
                )
                draft, candidate, held_out = fewer, slim, held_out.without(name)
                judgement = again
    parity = None if judgement.comparison is None else judgement.comparison.parity
    report = VariantReport(
        name=candidate.name,
        precision=candidate.precision,
        kept=judgement.passed,
        reason=judgement.reason,
        size_bytes=candidate.size_bytes,
        parity=parity,
    )
    if not judgement.passed or parity is None:
        return None, report
    found = FloatVariant(
        draft=draft,
        held_out=held_out,
        candidate=candidate,
        parity=parity,
        reports=(report,),
        messages=messages,
    )
    return found, report


def settle_nan(
    original: OriginalModel, found: FloatVariant, matched: MatchedInputs
) -> FloatVariant:
    """Let NaN in only where the original takes it and the variant answers the same."""
    if found.draft.pre:  # images and signals: nobody means NaN as a missing value of theirs
        return found
    probe = nan_probe(found.draft.inputs, matched.arrays)
    if probe is None:
        return found
    try:
        expected = original.run(found.draft.task, probe)
    except UnfitDataError:
        return found
    expected = {name: expected[name] for name in found.held_out.expected}
    answered = all(np.isfinite(a).all() for a in expected.values() if a.dtype.kind == "f")
    if found.draft.task is not Task.TRANSFORM and not answered:
        return found
    if takes_nan(found.draft, found.candidate, probe, expected):
        return replace(found, draft=found.draft.with_nonfinite(Nonfinite.NAN))
    note = "NaN is refused: the original answers it, and the converted model would answer otherwise"
    return replace(found, messages=(*found.messages, note))
