"""A report as a table, for a person."""

from typing import TYPE_CHECKING

from edgepack.bench.machine import Machine
from edgepack.bench.report import BenchReport, VariantReport

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = (
    "variant",
    "p50 µs",
    "p90 µs",
    "p99 µs",
    "size KB",
    "start ms",
    "load ms",
    "peak MB",
    "model MB",
    "parity",
    "on data",
)


def cells(report: BenchReport) -> list[tuple[str, ...]]:
    """Give one row of text for each variant, in the order of `HEADERS`."""
    return [_cells(variant) for variant in report.variants]


def render_text(report: BenchReport) -> str:
    """Lay the table out in plain text, with the machine above and failures below."""
    rows = [HEADERS, *cells(report)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
    lines = [title(report), machine_line(report.machine), ""]
    for row in rows:
        first, *others = row
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *numbers]))
    lines += _notes(report)
    return "\n".join(lines)


def rich_table(report: BenchReport) -> "Table":
    """Lay the table out for rich.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    from rich.table import Table

    notes = [machine_line(report.machine), *_notes(report)]
    table = Table(title=title(report), caption="\n".join(notes))
    for column, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if column else "left")
    for row in cells(report):
        table.add_row(*row)
    return table


def title(report: BenchReport) -> str:
    """Name what was measured."""
    return f"{report.name} {report.version}, single samples, {report.golden_rows} golden samples"


def machine_line(machine: Machine) -> str:
    """Describe a machine in one line."""
    memory = "" if machine.memory_bytes is None else f", {machine.memory_bytes / 2**30:.1f} GiB"
    return (
        f"{machine.cpu}, {machine.cores} cores{memory}, {machine.system} {machine.architecture}, "
        f"Python {machine.python}"
    )


def _cells(variant: VariantReport) -> tuple[str, ...]:
    latency = variant.latency
    return (
        variant.variant,
        _microseconds(latency.p50_ms),
        _microseconds(latency.p90_ms),
        _microseconds(latency.p99_ms),
        f"{variant.size_bytes / 1e3:.1f}",
        f"{variant.start_ms:.0f}",
        f"{variant.load_ms:.1f}",
        _megabytes(variant.peak_memory_bytes),
        _megabytes(variant.model_memory_bytes),
        f"{variant.metric} {variant.value:.4g}{'' if variant.passed else ' FAILED'}",
        _on_data(variant),
    )


def _on_data(variant: VariantReport) -> str:
    found = variant.on_data
    if found is None:
        return "-"
    if found.accuracy is not None:
        return f"accuracy {found.accuracy:.4f}"
    return f"R² {found.r2:.4f}" if found.r2 is not None else "-"


def _notes(report: BenchReport) -> list[str]:
    notes = [f"{v.variant}: {v.reason}" for v in report.variants if v.reason is not None]
    return notes + [f"{failed.variant}: {failed.error}" for failed in report.failures]


def _microseconds(value_ms: float) -> str:
    return f"{value_ms * 1e3:.1f}"


def _megabytes(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / 1e6:.1f}"
