"""What commands print: results to stdout, everything that passes by to stderr."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.trust.strict_json import JsonValue

if TYPE_CHECKING:
    from rich.progress import Progress


def print_json(value: object) -> None:
    """Print one JSON document on one line."""
    print(json.dumps(plain(value), allow_nan=False), flush=True)


def plain(value: Any) -> JsonValue:  # noqa: ANN401  (whatever a report holds)
    """Turn a report into plain JSON values; what is None is left out of objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a report holds plain values, got {type(value).__name__}")


def safe(text: str) -> str:
    """Text from a device or a file, fit for a terminal: it cannot move the cursor or hide."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def say(text: str) -> None:
    """Print a line of the result."""
    print(safe(text))


def note(text: str) -> None:
    """Tell a person something that is not the result."""
    sys.stderr.write(f"{safe(text)}\n")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with plain columns, which reads well in a pipe too."""
    rows = [[safe(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def size(size_bytes: float) -> str:
    """A size for people: "1.5 MB" is 1,500,000 bytes."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def count(number: int, what: str) -> str:
    """A number of things: "1 device", "2 devices"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


@contextmanager
def progress(*, quiet: bool = False) -> Iterator["Progress | None"]:
    """A progress bar on stderr while a person looks at it; None otherwise."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:  # rich is an extra; the work goes on without a bar
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bars:
        yield bars
