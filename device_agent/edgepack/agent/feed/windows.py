"""Samples to windows, with the gaps that sensors leave. Pure: times are given, never read."""

from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from edgepack.agent.config.inputs import TimeUnit
from edgepack.agent.feed.errors import MessageError
from edgepack.agent.feed.plan import Series
from edgepack.trust.strict_json import JsonValue

Rows = npt.NDArray[np.float64]

_UNITS: Final = {TimeUnit.S: 1.0, TimeUnit.MS: 1e3, TimeUnit.US: 1e6, TimeUnit.NS: 1e9}
_SLOW_ARRIVAL_S: Final = 1.0  # networks hold messages back; no gap in what was measured
_CLOCK_SET_S: Final = 60.0
_TOLERANCE: Final = 1.5  # of the distance between two samples


class Windows:
    """The samples of one stream, as many as the next window needs.

    Args:
        series: How windows are cut.
        channels: Values in a sample.

    Attributes:
        gaps: How often a window began anew because samples were missing.
    """

    def __init__(self, series: Series, channels: int) -> None:
        self._series = series
        self._buffer: Rows = np.empty((2 * series.length, channels))
        self._filled = 0
        self._due = series.length  # samples until the next window
        self._last_s: float | None = None
        self.gaps = 0

    def push(self, rows: Rows, *, time_s: float | None, now_s: float) -> list[Rows]:
        """Add samples; gives the windows that they complete.

        Args:
            rows: float64 (N, channels), at least one.
            time_s: When the first was taken, in seconds, or None where messages do not tell.
            now_s: When they came, monotonic, in seconds.

        Returns:
            Windows of float64 (length, channels).

        Raises:
            MessageError: They are not later than what came before; they are left out.
        """
        rate_hz = self._series.config.rate_hz
        first_s = now_s if time_s is None else time_s
        between = self._between(first_s, rows[0], is_measured=time_s is not None)
        self._last_s = first_s
        if time_s is not None and rate_hz is not None:
            self._last_s += (len(rows) - 1) / rate_hz
        made = [] if between is None else self._append(between)
        return made + self._append(rows)

    def _between(self, first_s: float, first: Rows, *, is_measured: bool) -> Rows | None:
        """What fills the gap before a sample; after a long one the window begins anew."""
        config, last_s = self._series.config, self._last_s
        if last_s is None:
            return None
        step_s = None if config.rate_hz is None else 1 / config.rate_hz
        passed_s = first_s - last_s
        if is_measured and passed_s <= 0:
            back_s = _CLOCK_SET_S if step_s is None else self._series.length * step_s
            if passed_s > -max(back_s, _SLOW_ARRIVAL_S):
                raise MessageError("late", f"sample is {-passed_s:.3f} s older than the last one")
            self._begin_anew()
            return None
        if step_s is None:
            return None
        allowed_s = (
            _TOLERANCE * step_s if is_measured else max(_TOLERANCE * step_s, _SLOW_ARRIVAL_S)
        )
        if passed_s <= allowed_s:
            return None
        missing = round(passed_s / step_s) - 1 if passed_s < 1e6 else self._series.length
        if not 1 <= missing < self._series.length or passed_s - step_s > config.fill_s + 1e-9:
            self._begin_anew()
            return None
        before = self._buffer[self._filled - 1]
        parts = (np.arange(1, missing + 1) / (missing + 1))[:, None]
        filled: Rows = before + parts * (first - before)
        return filled

    def _begin_anew(self) -> None:
        self.gaps += 1
        self._filled = 0
        self._due = self._series.length

    def _append(self, rows: Rows) -> list[Rows]:
        length = self._series.length
        made = []
        while len(rows):
            part, rows = rows[: self._due], rows[self._due :]
            self._due -= len(part)
            part = part[-length:]
            if self._filled + len(part) > len(self._buffer):
                kept = self._buffer[self._filled - length : self._filled].copy()
                self._buffer[:length] = kept
                self._filled = length
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if not self._due:
                made.append(self._buffer[self._filled - length : self._filled].copy())
                self._due = self._series.stride
        return made


def read_time(value: JsonValue | object, unit: TimeUnit) -> float:
    """A sample's time in seconds; ISO times without a zone are UTC.

    Raises:
        MessageError: It is none.
    """
    try:
        if unit is TimeUnit.ISO and isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if unit is not TimeUnit.ISO and isinstance(value, int | float | str) and value is not True:
            time_s = float(value) / _UNITS[unit]
            if abs(time_s) < 1e12:
                return time_s
    except (ValueError, OverflowError):
        pass
    raise MessageError(
        "wrong_value", f"window.time must be a time in {unit}, got {str(value)[:40]!r}"
    )
