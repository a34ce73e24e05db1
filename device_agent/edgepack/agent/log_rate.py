"""How often one event may be logged: a fault that repeats must not fill a device's disk."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_BURST = 20
_WINDOW_S = 60.0
_MOST_EVENTS = 512


@dataclass(slots=True)
class _Seen:
    since_s: float
    written: int = 0
    held_back: int = 0


class BoundedRate(logging.Filter):
    """Lets so many lines of one event pass in a window, and counts the rest.

    An event is the first word of the text that the code gives (`broker.lost`). The last line that
    passes says that further ones are counted; the first one of the next window how many there were.

    Args:
        burst: Lines of one event in a window.
        window_s: Its length, in seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        burst: int = _BURST,
        window_s: float = _WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._burst = burst
        self._window_s = window_s
        self._clock = clock
        self._events: dict[str, _Seen] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        name = str(record.msg).partition(" ")[0]
        now_s = self._clock()
        seen = self._events.get(name)
        if seen is None or now_s - seen.since_s >= self._window_s:
            held_back = seen.held_back if seen is not None else 0
            seen = self._start(name, now_s)
            if held_back:
                _append(record, f"repeated={held_back}")
        if seen.written >= self._burst:
            seen.held_back += 1
            return False
        seen.written += 1
        if seen.written == self._burst:
            _append(record, "further=counted")
        return True

    def _start(self, name: str, now_s: float) -> _Seen:
        self._events.pop(name, None)  # the newest ones stand last
        if len(self._events) >= _MOST_EVENTS:
            del self._events[next(iter(self._events))]
        seen = self._events[name] = _Seen(now_s)
        return seen


def _append(record: logging.LogRecord, field: str) -> None:
    record.msg = f"{record.getMessage()} {field}"
    record.args = ()  # without any, the text is taken as it is
