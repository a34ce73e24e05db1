"""Plots as SVG text. The only module that knows matplotlib."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.bench.errors import BenchError

_WIDTH_IN, _HEIGHT_IN = 6.4, 3.6
_LEAST_SPAN = 0.02  # of a quality: smaller differences must not look large
_KEPT, _DROPPED, _ORIGINAL = "#2463a8", "#b04a3a", "#555555"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One candidate: its size in bytes, its metric with an interval, and whether it was packed."""

    name: str
    size_bytes: float
    value: float
    low: float
    high: float
    kept: bool


def size_against_quality(dots: Sequence[Dot], quality: str) -> str:
    """Candidates by size (log axis) and quality; those that were left out are hollow."""
    figure, axes = _plot()
    for dot in dots:
        colour = _KEPT if dot.kept else _DROPPED
        axes.errorbar(
            [dot.size_bytes / 1024],
            [dot.value],
            yerr=[[max(0.0, dot.value - dot.low)], [max(0.0, dot.high - dot.value)]],
            fmt="o",
            color=colour,
            markerfacecolor=colour if dot.kept else "none",
            capsize=3,
        )
    for index, group in enumerate(neighbours([dot for dot in dots if dot.kept])):
        above = index % 2 == 0
        axes.annotate(
            "\n".join(dot.name for dot in group),
            (group[0].size_bytes / 1024, max(dot.value for dot in group)),
            xytext=(5, 6 if above else -6),
            textcoords="offset points",
            verticalalignment="bottom" if above else "top",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.25, y=0.45)
    bottom, top = axes.get_ylim()
    middle, half = (bottom + top) / 2, max((top - bottom) / 2, _LEAST_SPAN / 2)
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlabel("size, KiB")
    axes.set_ylabel(quality)
    return _svg(figure)


def neighbours(dots: Sequence[Dot]) -> list[list[Dot]]:
    """Dots by size, those whose names would lie on each other together."""
    if not dots:
        return []
    room = math.log(max(d.size_bytes for d in dots) / min(d.size_bytes for d in dots)) / 6
    groups: list[list[Dot]] = []
    for dot in sorted(dots, key=lambda dot: dot.size_bytes):
        first = groups[-1][0] if groups else None
        if first is not None and math.log(dot.size_bytes / first.size_bytes) <= room:
            groups[-1].append(dot)
        else:
            groups.append([dot])
    return groups


def histogram(edges: Sequence[float], counts: Sequence[int], what: str) -> str:
    """Counts between edges."""
    figure, axes = _plot(height_in=2.4)
    axes.stairs(counts, edges, fill=True, color=_KEPT)
    axes.set_yscale("symlog")
    axes.set_xlabel(what)
    axes.set_ylabel("values")
    return _svg(figure)


def lines(x: Sequence[float], series: dict[str, Sequence[float]], labels: tuple[str, str]) -> str:
    """One line a name; the original's is dashed."""
    figure, axes = _plot()
    for name, values in series.items():
        style = {"color": _ORIGINAL, "linestyle": "--"} if name == "original" else {}
        axes.plot(x, values, marker="o", label=name, **style)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small")
    return _svg(figure)


def bars(names: Sequence[str], values: Sequence[float], what: str) -> str:
    """One horizontal bar a name, the first on top."""
    figure, axes = _plot(height_in=max(1.6, 0.26 * len(names) + 0.8))
    axes.barh(range(len(names)), values, color=_KEPT)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(what)
    return _svg(figure)


def _plot(height_in: float = _HEIGHT_IN) -> tuple[Any, Any]:
    try:
        import matplotlib as mpl
    except ImportError as exc:
        raise BenchError("a report needs matplotlib: pip install 'edgepack[bench]'") from exc
    from matplotlib.figure import Figure

    # Text stays text, names in the file do not change from run to run.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "edgepack"})
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Any) -> str:  # noqa: ANN401  (matplotlib's types are not followed)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
