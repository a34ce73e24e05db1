"""The page: sections of text, tables and plots. Everything that a bundle says is escaped."""

from collections.abc import Iterator
from html import escape

from edgepack.bench.page import charts
from edgepack.bench.page.evidence import (
    CandidateLine,
    Confusion,
    Evidence,
    Quality,
    read_evidence,
    read_object,
    shown,
)
from edgepack.bench.page.tables import STYLE, table
from edgepack.bench.report import BenchReport
from edgepack.bundle import Bundle

_MOST_CELLS = 32


def render_page(bundle: Bundle, bench: BenchReport | None = None) -> str:
    """Render a bundle's evidence.

    Args:
        bundle: Opened.
        bench: What was measured of it on this machine, or None.

    Raises:
        BenchError: The bundle has no evidence, or matplotlib is missing.
    """
    evidence = read_evidence(bundle)
    contract = bundle.contract
    title = f"{contract.name} {contract.version}"
    sections = [
        *_head(bundle, evidence),
        *_candidates(evidence),
        *_classes(evidence),
        *_differences(evidence),
        *_robustness(evidence),
        *_importance(evidence),
        *_latency(bench),
        *_origin(bundle, evidence),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        '</title><meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        + "\n".join(sections)
        + "</body></html>\n"
    )


def _head(bundle: Bundle, evidence: Evidence) -> Iterator[str]:
    contract = bundle.contract
    kept = ", ".join(variant.name for variant in contract.variants)
    yield (
        f"<p>{escape(contract.task.value)}, {len(contract.variants)} variants ({escape(kept)}), "
        f"compared with the original on {evidence.rows} rows that calibration never saw.<br>"
        f"<code>{escape(bundle.digest)}</code></p>"
    )
    rows = [
        [
            escape(spec.name),
            kind,
            escape(spec.datatype.value),
            escape(str([*spec.shape])),
            escape(", ".join(spec.feature_names[:40])),
        ]
        for kind, specs in (("input", contract.inputs), ("output", contract.outputs))
        for spec in specs
    ]
    yield table(("tensor", "", "type", "shape", "columns"), rows)


def _candidates(evidence: Evidence) -> Iterator[str]:
    yield "<h2>Size against quality</h2>"
    quality = _quality_name(evidence)
    drops = not quality.startswith("agreement")
    dots = [
        charts.Dot(
            name=item.name,
            size_bytes=float(item.size_bytes or 1),
            value=value,
            low=low,
            high=high,
            kept=item.kept,
        )
        for item in evidence.candidates
        for value, low, high in _measured(item, evidence)
    ]
    if dots:
        yield charts.size_against_quality(dots, quality)
        against = " of the difference from the original" if drops else ""
        yield (
            '<p class="dim">Filled: packed. Hollow: left out. Bars and brackets: 95 % interval'
            f"{against}.</p>"
        )
    rows = []
    for item in evidence.candidates:
        figures = next(iter(_measured(item, evidence)), None)
        rows.append(
            [
                escape(item.name),
                "" if item.size_bytes is None else f"{item.size_bytes:,}",
                "" if figures is None else _with_interval(*figures),
                '<span class="yes">packed</span>'
                if item.kept
                else '<span class="no">left out</span>',
                escape(item.reason or ""),
            ]
        )
    yield table(("candidate", "bytes", quality, "", "why"), rows, numbers={1, 2}, kind="why")


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.4f}" if low == high else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _quality_name(evidence: Evidence) -> str:
    if evidence.original.accuracy is not None:
        return "accuracy"
    metrics = {item.parity.metric for item in evidence.candidates if item.parity is not None}
    if "agreement" in metrics:
        return "agreement with the original"
    return f"R² to the {'truth' if _has_true_numbers(evidence) else 'original'}"


def _has_true_numbers(evidence: Evidence) -> bool:
    parities = [item.parity for item in evidence.candidates if item.parity is not None]
    return any("r2_truth" in parity.figures for parity in parities)


def _measured(item: CandidateLine, evidence: Evidence) -> Iterator[tuple[float, float, float]]:
    """A candidate's metric and interval, if it was measured."""
    parity = item.parity
    if parity is None:
        return
    original = evidence.original.accuracy
    figures = parity.figures
    name = "accuracy" if original is not None else "r2_truth"
    if name in figures:
        value = figures[name]
        drop = figures.get("drop")
        if drop is None:
            yield value, value, value
        else:
            best = value + drop
            yield value, best - figures["drop_high"], best - figures["drop_low"]
        return
    value = figures.get("agreement", figures.get("r2", parity.value))
    yield value, figures.get("agreement_low", value), figures.get("agreement_high", value)


def _classes(evidence: Evidence) -> Iterator[str]:
    models = {"original": evidence.original, **evidence.variants}
    confusion = evidence.original.confusion
    names = [*(confusion.truth if confusion is not None else evidence.original.recall)]
    names = [name for name in names if name in evidence.original.recall]
    if not names:
        return
    yield "<h2>Recall of each class</h2>"
    rows = []
    for name in names[:_MOST_CELLS]:
        cells = [escape(name), str(evidence.original.recall[name].rows)]
        for model in models.values():
            found = model.recall.get(name)
            cells.append(
                ""
                if found is None
                else f"{found.value:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"
            )
        rows.append(cells)
    head = ("class", "rows", *map(escape, models))
    yield table(head, rows, numbers=set(range(1, len(head))))
    yield "<h2>Confusion</h2><p class='dim'>Rows: the truth. Columns: the answer.</p>"
    for name, model in models.items():
        if model.confusion is not None:
            yield f"<h3>{escape(name)}</h3>" + _confusion(model.confusion)


def _confusion(confusion: Confusion) -> str:
    head = ["", *confusion.answer[:_MOST_CELLS]]
    cells = ["<tr>" + "".join(f'<th class="n">{escape(name)}</th>' for name in head) + "</tr>"]
    for name, counts in zip(confusion.truth, confusion.counts, strict=False):
        total = sum(counts) or 1
        row = [f"<th>{escape(name)}</th>"]
        for answer, count in zip(confusion.answer[:_MOST_CELLS], counts, strict=False):
            colour = "36,99,168" if answer == name else "176,74,58"
            shade = f"rgba({colour},{0.85 * count / total:.2f})"
            row.append(f'<td class="n" style="background:{shade}">{count or ""}</td>')
        cells.append("<tr>" + "".join(row) + "</tr>")
    return f"<table>{''.join(cells)}</table>"


def _differences(evidence: Evidence) -> Iterator[str]:
    yield "<h2>Differences from the original</h2>"
    rows = []
    for name, variant in evidence.variants.items():
        for output, found in variant.outputs.items():
            agreement = found.agreement
            rows.append(
                [
                    escape(name),
                    escape(output),
                    "" if agreement is None else f"{agreement.value:.4f}",
                    "" if found.largest is None else shown(found.largest),
                    "" if found.sqnr_db is None else f"{found.sqnr_db:.1f}",
                ]
            )
    head = ("variant", "output", "agreement", "largest difference", "SQNR, dB")
    yield table(head, rows, numbers={2, 3, 4})
    yield from _errors(evidence)
    for name, variant in evidence.variants.items():
        yield from _histograms(name, variant)


def _errors(evidence: Evidence) -> Iterator[str]:
    models = {"original": evidence.original, **evidence.variants}
    rows = [
        [escape(name), shown(model.mae), shown(model.rmse)]
        for name, model in models.items()
        if model.mae is not None and model.rmse is not None
    ]
    if rows:
        yield "<h3>Errors against the truth</h3>"
        yield table(("model", "mean absolute", "root of mean square"), rows, numbers={1, 2})


def _histograms(name: str, variant: Quality) -> Iterator[str]:
    for output, found in variant.outputs.items():
        chart = found.differences
        if chart is not None and len(chart.edges) == len(chart.counts) + 1 > 1:
            yield f"<h3>{escape(name)}</h3>"
            yield charts.histogram(chart.edges, chart.counts, f"{output}: variant less original")
    errors = variant.errors
    if errors is not None and len(errors.edges) == len(errors.counts) + 1 > 1:
        yield charts.histogram(errors.edges, errors.counts, "answer less truth")


def _robustness(evidence: Evidence) -> Iterator[str]:
    found = evidence.robustness
    series = {
        name: values for name, values in found.changes.items() if len(values) == len(found.levels)
    }
    if not found.levels or not series:
        return
    yield "<h2>Robustness</h2>"
    yield charts.lines(
        found.levels,
        dict(series),
        ("noise, as a part of each input's standard deviation", "answers that change"),
    )
    yield f'<p class="dim">Uniform noise of at most that size, {found.rows} rows.</p>'


def _importance(evidence: Evidence) -> Iterator[str]:
    if not evidence.importance:
        return
    best = sorted(evidence.importance, key=lambda item: -item.loss)[:_MOST_CELLS]
    yield "<h2>Importance of the columns</h2>"
    yield charts.bars(
        [item.feature for item in best],
        [item.loss for item in best],
        "what the original loses when the column is shuffled",
    )


def _latency(bench: BenchReport | None) -> Iterator[str]:
    if bench is None:
        return
    machine = bench.machine
    yield f"<h2>Latency on this machine</h2><p>{escape(machine.cpu)}, {escape(machine.system)}</p>"
    rows = [
        [
            escape(item.variant),
            escape(item.engine),
            *(f"{value:.3f}" for value in (item.latency.p50_ms, item.latency.p99_ms, item.load_ms)),
            "" if item.passed else f'<span class="no">{escape(item.reason or "failed")}</span>',
        ]
        for item in bench.variants
    ]
    head = ("variant", "engine", "p50, ms", "p99, ms", "load, ms", "")
    yield table(head, rows, numbers={2, 3, 4})
    yield (
        '<p class="dim">One sample at a time, one thread. A device has its own figures: it '
        "measures every variant before it chooses.</p>"
    )


def _origin(bundle: Bundle, evidence: Evidence) -> Iterator[str]:
    yield "<h2>Where it came from</h2>"
    rows = [
        [
            "calibration",
            f"{evidence.calibration.rows} rows, <code>{escape(evidence.calibration.digest)}</code>",
        ]
    ]
    for key, value in sorted(read_object(bundle, "provenance.json").items()):
        if value is None:
            text = "none"
        elif isinstance(value, dict):
            text = ", ".join(f"{name} {item}" for name, item in sorted(value.items()))
        else:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append([escape(key), escape(text)])
    yield table(("what", ""), rows)
