"""From one proven float file to every variant that will be packed."""

from dataclasses import replace

from edgepack.bundle.contract import Parity
from edgepack.converter.draft import Candidate
from edgepack.converter.errors import ToleranceError
from edgepack.converter.prove import ProvenModel
from edgepack.converter.report import VariantReport
from edgepack.converter.request import ConvertRequest, Precision, Stage, Teller
from edgepack.converter.search.formats import other_format
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.search.pool import ToolPool
from edgepack.converter.search.search import Ground, search
from edgepack.converter.sources.source import ModelFacts


def widen(
    proven: ProvenModel,
    original: OriginalModel,
    facts: ModelFacts,
    pool: ToolPool,
    *,
    request: ConvertRequest,
    tell: Teller,
) -> ProvenModel:
    """Add the other format and whatever is smaller and good enough.

    Args:
        proven: With the first float file.
        original: For the other format, and for answers to rows with NaN.
        facts: What the original is.
        pool: Where tools run.
        request: Formats and precisions.
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
    for file_format in request.formats:
        if file_format == base.format:
            continue
        tell(Stage.EXPORT, f"{file_format}, from {facts.framework} or from the {base.format} file")
        other = other_format(file_format, original, facts, base, ground)
        reports.append(other.report)
        if other.candidate is not None and other.parity is not None:
            floats.append((other.candidate, other.parity))
    reports, floats = _only_wanted(request, base, reports, floats)
    kept = [candidate for candidate, _ in floats]
    variants = [candidate.variant(parity) for candidate, parity in floats]
    if set(request.precisions) != {Precision.FP32}:
        found = search([c for c, _ in floats], ground, pool, request.precisions, tell)
        kept += [item.candidate for item in found.kept]
        variants += [item.candidate.variant(item.parity) for item in found.kept]
        reports += found.reports
    return replace(
        proven, kept=tuple(kept), variants=tuple(variants), reports=tuple(_in_order(reports))
    )


def _only_wanted(
    request: ConvertRequest,
    base: Candidate,
    reports: list[VariantReport],
    floats: list[tuple[Candidate, Parity]],
) -> tuple[list[VariantReport], list[tuple[Candidate, Parity]]]:
    """Without the base where its format was only the way to another."""
    if base.format in request.formats:
        return reports, floats
    rest = floats[1:]
    if not rest:
        wanted = [r for r in reports if r.name.partition("-")[0] in request.formats]
        why = "; ".join(f"{report.name}: {report.reason}" for report in wanted)
        raise ToleranceError(f"no {' or '.join(request.formats)} variant can be packed: {why}")
    reason = f"only {' and '.join(request.formats)} was asked for"
    changed = [
        replace(report, kept=False, reason=reason) if report.name == base.name else report
        for report in reports
    ]
    return changed, rest


def _in_order(reports: list[VariantReport]) -> list[VariantReport]:
    """What is kept first."""
    return sorted(reports, key=lambda report: not report.kept)
