"""`edgepack watch`."""

import argparse
import asyncio
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.cli.config import add_broker_arguments, settings
from edgepack.cli.console import note, print_json, print_table, safe
from edgepack.fleet import parse_broker_url
from edgepack.fleet.connection import BrokerUrl
from edgepack.fleet.watch import FleetView, Row, snapshot, watch
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
_REDRAW_S = 0.25
_NOTHING = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of watch."""
    add_broker_arguments(parser)
    parser.add_argument(
        "--once", action="store_true", help="print what the broker retains now, and end"
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
    if args.once:
        rows = asyncio.run(snapshot(broker, prefix)).rows()
        if args.json:
            for row in rows:
                print_json(_fields(row))
        else:
            print_table(_HEAD, [cells(row, time.time()) for row in rows])
    elif args.json:
        asyncio.run(_lines(broker, prefix))
    elif sys.stdout.isatty():
        asyncio.run(_live(broker, prefix))
    else:
        asyncio.run(_plain(broker, prefix))
    return 0


def cells(row: Row, now_s: float) -> tuple[str, ...]:
    """A row for people; what a device has not said is "-"."""
    phase = f"{row.phase} ({row.reason})" if row.reason else row.phase
    return (
        row.device,
        row.status,
        row.model or _NOTHING,
        row.version or _NOTHING,
        row.variant or _NOTHING,
        f"{phase}, held" if row.held else phase or _NOTHING,
        _number(row.latency_p50_ms, ".3g"),
        _number(row.latency_p99_ms, ".3g"),
        _number(row.requests, ".0f"),
        _number(row.errors, ".0f"),
        _quality(row),
        _number(row.drift_features, ".0f"),
        _ago(row.seen_s, now_s),
    )


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


async def _lines(broker: BrokerUrl, prefix: str) -> None:
    view = FleetView(prefix)
    told: dict[tuple[str, str], dict[str, object]] = {}
    async for device in watch(broker, prefix, view):
        for row in view.rows(device) if device else ():
            fields = _fields(row)
            if told.get((row.device, row.model)) != fields:
                told[row.device, row.model] = fields
                print_json(fields)


async def _plain(broker: BrokerUrl, prefix: str) -> None:
    """Without a terminal: a line for each change of a device, no figures."""
    view = FleetView(prefix)
    told: dict[tuple[str, str], Sequence[str]] = {}
    async for device in watch(broker, prefix, view):
        if not device:
            note("connection lost; trying again")
            continue
        for row in view.rows(device):
            line = cells(row, time.time())[:6]
            if told.get((row.device, row.model)) != line:
                told[row.device, row.model] = line
                print(safe("  ".join(line)), flush=True)


async def _live(broker: BrokerUrl, prefix: str) -> None:
    from rich.live import Live

    view, lost = FleetView(prefix), asyncio.Event()

    async def feed() -> None:
        async for device in watch(broker, prefix, view):
            if device:
                lost.clear()
            else:
                lost.set()

    feeding = asyncio.create_task(feed())
    with Live(_table(view, broker, lost=False), auto_refresh=False, screen=False) as live:
        while not feeding.done():
            live.update(_table(view, broker, lost=lost.is_set()), refresh=True)
            await asyncio.wait([feeding], timeout=_REDRAW_S)
    await feeding


def _table(view: FleetView, broker: BrokerUrl, *, lost: bool) -> "Table":
    from rich.table import Table
    from rich.text import Text

    state = "connection lost, trying again" if lost else "Ctrl-C ends"
    table = Table(title=f"{broker}   {state}", title_justify="left")
    for name in _HEAD:
        table.add_column(name, justify="right" if name in _HEAD[6:10] else "left", no_wrap=True)
    styles = {"online": "green", "offline": "red"}
    for row in view.rows():
        device, status, *others = map(safe, cells(row, time.time()))
        table.add_row(Text(device), Text(status, style=styles.get(status, "")), *map(Text, others))
    return table
