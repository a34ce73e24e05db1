"""From one proven float file to every variant that will be packed."""

from dataclasses import replace

from edgepack.bundle.contract import Parity
from edgepack.converter.draft import Candidate
from edgepack.converter.errors import ToleranceError
from edgepack.converter.prove import ProvenModel
from edgepack.converter.recipe import Recipe
from edgepack.converter.report import VariantReport
from edgepack.converter.request import ConvertRequest, Precision, Stage, Teller
from edgepack.converter.search.formats import other_format
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.search.plans import Pinned
from edgepack.converter.search.pool import ToolPool
from edgepack.converter.search.search import Ground, search
from edgepack.converter.sources.source import ModelFacts

_OTHER_PART = 1 / 3  # of the time for a question: there is a bundle without it, too


def widen(
    proven: ProvenModel,
    original: OriginalModel,
    facts: ModelFacts,
    pool: ToolPool,
    *,
    request: ConvertRequest,
    recipe: Recipe,
    tell: Teller,
) -> ProvenModel:
    """Add the other format and whatever is smaller and good enough.

    Args:
        proven: With the first float file.
        original: For the other format, and for answers to rows with NaN.
        facts: What the original is.
        pool: Where tools run.
        request: Formats and precisions.
        recipe: How to quantize, where it says.
        tell: Takes progress.

    Returns:
        The model with all variants and a report on everything that was tried.

    Raises:
        ToleranceError: A format or precision that was asked for cannot be had.
        ConvertError: A child process failed.
    """
    base = proven.kept[0]
    ground = Ground(
        draft=proven.draft,
        held_out=proven.held_out,
        arrays=proven.inputs,
        calibration=proven.split.calibration,
    )
    floats: list[tuple[Candidate, Parity]] = [(base, proven.variants[0].parity)]
    reports: list[VariantReport] = list(proven.reports)
    for file_format in request.wanted_formats:
        if file_format == base.format:
            continue
        tell(Stage.EXPORT, f"{file_format}, from {facts.framework} or from the {base.format} file")
        limit_s = _OTHER_PART * request.timeout_s if base.format in request.wanted_formats else None
        other = other_format(file_format, original, facts, base, ground, limit_s=limit_s)
        reports.append(other.report)
        if other.candidate is not None and other.parity is not None:
            floats.append((other.candidate, other.parity))
    reports, floats = _only_wanted(request, base, reports, floats)
    kept = [candidate for candidate, _ in floats]
    variants = [candidate.variant(parity) for candidate, parity in floats]
    if set(request.precisions) != {Precision.FP32}:
        pinned = Pinned(
            precisions=request.precisions,
            calibration=recipe.convert.calibration,
            activation=recipe.convert.activation,
            weight=recipe.convert.weight,
            reduce_range=recipe.convert.reduce_range,
            per_channel=recipe.convert.per_channel,
            keep_float=recipe.convert.keep_float,
        )
        found = search([c for c, _ in floats], ground, pool, pinned, tell)
        kept += [item.candidate for item in found.kept]
        variants += [item.candidate.variant(item.parity) for item in found.kept]
        reports += found.reports
    packed = [candidate.with_weights_outside() for candidate in kept]
    variants = [
        candidate.variant(variant.parity)
        for candidate, variant in zip(packed, variants, strict=True)
    ]
    return replace(
        proven, kept=tuple(packed), variants=tuple(variants), reports=tuple(_in_order(reports))
    )


def _only_wanted(
    request: ConvertRequest,
    base: Candidate,
    reports: list[VariantReport],
    floats: list[tuple[Candidate, Parity]],
) -> tuple[list[VariantReport], list[tuple[Candidate, Parity]]]:
    """Without the base where its format was only the way to another."""
    wanted = request.wanted_formats
    if base.format in wanted:
        return reports, floats
    rest = floats[1:]
    if not rest:
        mine = [report for report in reports if report.name.partition("-")[0] in wanted]
        why = "; ".join(f"{report.name}: {report.reason}" for report in mine)
        raise ToleranceError(f"no {' or '.join(wanted)} variant can be packed: {why}")
    reason = f"only {' and '.join(wanted)} was asked for"
    changed = [
        replace(report, kept=False, reason=reason) if report.name == base.name else report
        for report in reports
    ]
    return changed, rest


def _in_order(reports: list[VariantReport]) -> list[VariantReport]:
    """What is kept first."""
    return sorted(reports, key=lambda report: not report.kept)
