"""What the demo shows, and the judge of what was seen."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgepack.cli.demo.processes import Ended
from edgepack.cli.demo.stream import Stream
from edgepack.trust.errors import EdgepackError

_LONGEST_WAIT_S = 60.0


class DemoError(EdgepackError):
    """Something that the demo promises was not observed."""

    exit_code = 6


class Screen:
    """Tells the demo's course on a console.

    Args:
        console: Where to.
        folder: Where the logs are, for whoever must read them.
    """

    def __init__(self, console: Console, folder: Path) -> None:
        self._console = console
        self._folder = folder
        self._started_s = time.monotonic()

    def say(self, what: str, *, done: bool = False) -> None:
        """Say what happens now, with the seconds since the beginning."""
        elapsed_s = time.monotonic() - self._started_s
        self._console.print(
            Text(f"[{elapsed_s:5.1f} s] {what}", style="bold green" if done else "bold"),
            soft_wrap=True,
        )

    def quote(self, text: str) -> None:
        """Show what a command printed."""
        lines = "\n".join(f"   {line}" for line in text.rstrip().splitlines())
        self._console.print(Text(lines), soft_wrap=True)

    def observe(self, seen: bool, what: str, ended: Ended | None = None) -> None:
        """Tick off what was promised.

        Raises:
            DemoError: It was not seen.
        """
        if not seen:
            told = f" (exit code {ended.code}: {ended.error})" if ended else ""
            raise DemoError(f"not observed: {what}{told}; logs are in {self._folder}")
        self._console.print(Text(f"   ✓ {what}", style="green"), soft_wrap=True)

    def watch(
        self,
        stream: Stream,
        seconds: float,
        *,
        until: Callable[[], bool] | None = None,
        during: Callable[[], None] | None = None,
    ) -> None:
        """Show the stream live for a time, until something is seen, and while something runs.

        Raises:
            DemoError: It was not seen in time.
            EdgepackError: What `during` raised.
        """
        begun_s = time.monotonic()
        problem: list[BaseException] = []
        work = threading.Thread(target=_caught, args=(during or _nothing, problem), daemon=True)
        work.start()
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            while True:
                elapsed_s = time.monotonic() - begun_s
                live.update(Text("   " + stream.line()))
                seen = until is None or until()
                if elapsed_s >= seconds and seen and not work.is_alive():
                    break
                if elapsed_s > seconds + _LONGEST_WAIT_S:
                    raise DemoError(f"not observed within {elapsed_s:.0f} s: {stream.line()}")
                time.sleep(0.1)
        if problem:
            raise problem[0]
        self._console.print(Text("   " + stream.line(), style="cyan"), soft_wrap=True)

    def tables(self, title: str, stream: Stream, bench: dict[str, Any]) -> None:
        """Show parity and latency of each variant, and how the stream went."""
        table = Table(title=f"{title}: parity with the original model, latency on this machine")
        for column in (
            "variant",
            "size KB",
            "p50 µs",
            "p99 µs",
            "load ms",
            "agreement",
            "accuracy",
        ):
            table.add_column(column, justify="left" if column == "variant" else "right")
        for row in bench["variants"]:
            table.add_row(
                row["variant"],
                f"{row['size_bytes'] / 1e3:.1f}",
                f"{1e3 * row['p50_ms']:.1f}",
                f"{1e3 * row['p99_ms']:.1f}",
                f"{row['load_ms']:.1f}",
                _number(row.get("agreement")),
                _number(row.get("accuracy")),
            )
        self._console.print(table)
        trips = sorted(stream.count.round_trip_ms)
        self._console.print(
            f"over MQTT: {len(trips)} requests, {stream.count.right} answered right, round trip "
            f"p50 {trips[len(trips) // 2]:.1f} ms, p99 {trips[int(len(trips) * 0.99)]:.1f} ms"
        )


def _caught(work: Callable[[], None], problem: list[BaseException]) -> None:
    try:
        work()
    except EdgepackError as exc:
        problem.append(exc)


def _nothing() -> None:
    """Watch only."""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
