"""`edgepack watch`."""

import argparse
import asyncio
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgepack.cli.config import add_broker_arguments, settings
from edgepack.cli.console import note, print_json, print_table, safe
from edgepack.cli.errors import UsageError
from edgepack.cli.event_loop import run_async
from edgepack.fleet import parse_broker_url
from edgepack.fleet.connection import BrokerUrl
from edgepack.fleet.watch import FleetView, Row, snapshot, watch
from edgepack.wire.commands import MIN_WATCH_INTERVAL_S
from edgepack.wire.topics import check_prefix

if TYPE_CHECKING:
    from rich.table import Table

_HEAD = (
    "DEVICE",
    "STATUS",
    "MODEL",
    "VERSION",
    "VARIANT",
    "PHASE",
    "P50 ms",
    "P99 ms",
    "REQUESTS",
    "ERRORS",
    "QUALITY",
    "DRIFT",
    "SEEN",
)
# What a narrow terminal does without, first things first.
_DISPENSABLE = ("ERRORS", "VARIANT", "P50 ms", "REQUESTS", "DRIFT", "SEEN", "P99 ms", "QUALITY")
_BORDER = 3  # what a column costs besides its text
_REDRAW_S = 0.25
_MOST_EVERY_S = 60
_NOTHING = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of watch."""
    add_broker_arguments(parser)
    parser.add_argument(
        "--once", action="store_true", help="print what the broker retains now, and end"
    )
    parser.add_argument(
        "--every",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="ask devices for their figures that often while this runs, 1 to 60; 0: do not ask "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object a line for each model of a device that says something new",
    )


def run(args: argparse.Namespace) -> int:
    """Show the fleet."""
    found = settings(args)
    broker, prefix = parse_broker_url(found.broker), check_prefix(found.prefix)
    if args.every and not MIN_WATCH_INTERVAL_S <= args.every <= _MOST_EVERY_S:
        raise UsageError(f"--every must be 1 to {_MOST_EVERY_S} seconds, or 0, got {args.every}")
    every_s = args.every or None
    if args.once:
        rows = run_async(snapshot(broker, prefix)).rows()
        if args.json:
            for row in rows:
                print_json(_fields(row))
        else:
            print_table(_HEAD, [cells(row, time.time()) for row in rows])
    elif args.json:
        run_async(_lines(broker, prefix, every_s))
    elif sys.stdout.isatty():
        run_async(_live(broker, prefix, every_s))
    else:
        run_async(_plain(broker, prefix, every_s))
    return 0


def cells(row: Row, now_s: float) -> tuple[str, ...]:
    """A row for people; what a device has not said is "-"."""
    phase = f"{row.phase} ({row.reason})" if row.reason else row.phase
    notes = [phase or _NOTHING, *_notes(row)]
    return (
        row.device,
        row.status,
        row.model or _NOTHING,
        row.version or _NOTHING,
        row.variant or _NOTHING,
        ", ".join(notes),
        _number(row.latency_p50_ms, ".3g"),
        _number(row.latency_p99_ms, ".3g"),
        _number(row.requests, ".0f"),
        _number(row.errors, ".0f"),
        _quality(row),
        _number(row.drift_features, ".0f"),
        _ago(row.seen_s, now_s),
    )


def _notes(row: Row) -> Iterator[str]:
    if row.notices:
        yield f"says: {row.notices}"
    if row.held:
        yield "held"
    if row.offered:
        yield f"offered {row.offered}"
    if row.shadow or row.shadow_phase:
        state = row.shadow_reason or row.shadow_phase
        if row.shadow_disagreement is not None:
            state = f"{row.shadow_disagreement:.2%} disagree"
        yield f"shadow {row.shadow} ({state})" if row.shadow else f"shadow ({state})"


def _fields(row: Row) -> dict[str, object]:
    return {key: value for key, value in dataclasses.asdict(row).items() if value not in (None, "")}


def _quality(row: Row) -> str:
    if row.accuracy is not None:
        low, high = row.accuracy_low, row.accuracy_high
        interval = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
        return f"{row.accuracy:.3f}{interval}"
    if row.r2 is not None:
        return f"R² {row.r2:.3f}"
    return _NOTHING if row.mae is None else f"MAE {row.mae:.3g}"


def _number(value: float | None, how: str) -> str:
    return _NOTHING if value is None else format(value, how)


def _ago(seen_s: float | None, now_s: float) -> str:
    if seen_s is None:
        return _NOTHING
    seconds = max(0.0, now_s - seen_s)
    for size_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.0f} s"


async def _lines(broker: BrokerUrl, prefix: str, every_s: float | None) -> None:
    view = FleetView(prefix)
    told: dict[tuple[str, str], dict[str, object]] = {}
    async for device in watch(broker, prefix, view, every_s=every_s):
        for row in view.rows(device) if device else ():
            fields = _fields(row)
            if told.get((row.device, row.model)) != fields:
                told[row.device, row.model] = fields
                print_json(fields)


async def _plain(broker: BrokerUrl, prefix: str, every_s: float | None) -> None:
    """Without a terminal: a line for each change of a device, no figures."""
    view = FleetView(prefix)
    told: dict[tuple[str, str], Sequence[str]] = {}
    async for device in watch(broker, prefix, view, every_s=every_s):
        if not device:
            note("connection lost; trying again")
            continue
        for row in view.rows(device):
            line = cells(row, time.time())[:6]
            if told.get((row.device, row.model)) != line:
                told[row.device, row.model] = line
                print(safe("  ".join(line)), flush=True)


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Which columns to show.

    Args:
        rows: Cells, in the order of the head.
        width: Of the terminal, in characters.

    Returns:
        Indices of columns, as many as fit; the first ones always stay.
    """
    widths = {
        name: max(len(name), *(len(row[index]) for row in rows), 0) + _BORDER
        for index, name in enumerate(_HEAD)
    }
    for name in _DISPENSABLE:
        if sum(widths.values()) + 1 <= width:
            break
        del widths[name]
    return [index for index, name in enumerate(_HEAD) if name in widths]


async def _live(broker: BrokerUrl, prefix: str, every_s: float | None) -> None:
    from rich.console import Console
    from rich.live import Live

    view, lost, console = FleetView(prefix), asyncio.Event(), Console()

    async def feed() -> None:
        async for device in watch(broker, prefix, view, every_s=every_s):
            if device:
                lost.clear()
            else:
                lost.set()

    feeding = asyncio.create_task(feed())
    with Live(console=console, auto_refresh=False) as live:
        while not feeding.done():
            told = f"{broker}   {'connection lost, trying again' if lost.is_set() else ''}"
            live.update(_table(view, told, console.width), refresh=True)
            await asyncio.wait([feeding], timeout=_REDRAW_S)
    await feeding


def _table(view: FleetView, title: str, width: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    rows = [[safe(cell) for cell in cells(row, time.time())] for row in view.rows()]
    shown = fitting(rows, width)
    table = Table(title=title, title_justify="left")
    for index in shown:
        numeric = index in range(6, 10)
        table.add_column(_HEAD[index], justify="right" if numeric else "left", no_wrap=True)
    styles = {"online": "green", "offline": "red"}
    for row in rows:
        texts = [
            Text(cell, style=styles.get(cell, "") if n == 1 else "") for n, cell in enumerate(row)
        ]
        table.add_row(*(texts[index] for index in shown))
    return table
