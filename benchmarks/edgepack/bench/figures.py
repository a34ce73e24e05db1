"""`python -m edgepack.bench.figures`: measures edgepack and writes what it found.

One JSON file for each figure, with the machine that it is of, and a README.md of all figures
that stand in the folder. Exits with 6 if a figure is beyond its limit.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from edgepack.bench.figure import Figure
from edgepack.bench.machine import Machine, describe_machine
from edgepack.bench.measurements import NAMES, measurement
from edgepack.trust.decode import encode

FOLDER: Final = Path("benchmarks/results")
BEYOND_LIMIT: Final = 6


def main(argv: list[str] | None = None) -> int:
    """Measure what the arguments name, by default everything."""
    parser = argparse.ArgumentParser(prog="python -m edgepack.bench.figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument(
        "--output", type=Path, default=FOLDER, help="folder for the results (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"NAME must be one of {', '.join(NAMES)}, got {unknown[0]!r}")
    kept = True
    for name in arguments.names or NAMES:
        sys.stdout.write(f"measuring {name} …\n")
        sys.stdout.flush()
        figure = measurement(name).measure()
        write_figure(arguments.output, figure, describe_machine())
        sys.stdout.write("\n".join(_text_lines(figure)) + "\n\n")
        kept = kept and figure.kept
    write_readme(arguments.output)
    return 0 if kept else BEYOND_LIMIT


def write_figure(folder: Path, figure: Figure, machine: Machine) -> Path:
    """Write one figure as JSON; gives the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{figure.name}.json"
    document = {**figure.to_json(), "machine": encode(machine)}
    path.write_text(
        json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
        encoding="utf-8",
    )
    return path


def write_readme(folder: Path) -> Path:
    """Write README.md from the figures that stand in the folder; gives the file's path."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in _results(folder)]
    text = "# Figures\n\nWritten by `make bench`; do not edit. Medians; in brackets the 95 % "
    text += "interval of the median.\n"
    for document in documents:
        text += "\n" + "\n".join(_section(document)) + "\n"
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def _results(folder: Path) -> list[Path]:
    ranks = {name: rank for rank, name in enumerate(NAMES)}
    found = [path for path in folder.glob("*.json") if path.stem in ranks]
    return sorted(found, key=lambda path: ranks[path.stem])


def _section(document: dict[str, Any]) -> Iterable[str]:
    yield f"## {document['title']}"
    yield ""
    yield document["method"]
    yield ""
    yield "| what | value | limit |"
    yield "|---|---|---|"
    for line in document["lines"]:
        limit = line.get("limit")
        verdict = "" if limit is None else "kept" if line["value"] <= limit else "**missed**"
        bound = "" if limit is None else f"≤ {_number(limit)} {line['unit']}, {verdict}"
        yield f"| {line['what']} | {_value(line)} | {bound} |"
    machine = document["machine"]
    memory = machine.get("memory_bytes")
    yield ""
    yield (
        f"Measured on {machine['cpu']}, {machine['cores']} cores, "
        + (f"{memory / 2**30:.1f} GiB, " if memory else "")
        + f"{machine['system']} {machine['architecture']}, Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        + "."
    )


def _text_lines(figure: Figure) -> Iterable[str]:
    for line in figure.lines:
        limit = "" if line.limit is None else f"  (limit {_number(line.limit)})"
        missed = "" if line.kept else "  MISSED"
        plain = {"value": line.value, "unit": line.unit, "low": line.low, "high": line.high}
        yield f"  {line.what}: {_value(plain)}{limit}{missed}"


def _value(line: dict[str, Any]) -> str:
    spread = ""
    if line.get("low") is not None and line.get("high") is not None:
        spread = f" [{_number(line['low'])}, {_number(line['high'])}]"
    return f"{_number(line['value'])}{spread} {line['unit']}"


def _number(value: float) -> str:
    """Four significant digits, without an exponent."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
