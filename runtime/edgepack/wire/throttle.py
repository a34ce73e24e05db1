"""A token bucket: how long to wait so that no more than so many bytes a second are taken.

Pure but for its clock; whoever asks does the waiting, on a thread or on an event loop.
"""

import threading
import time
from collections.abc import Callable

_BURST_S = 0.25
_LEAST_BURST_BYTES = 16 * 1024


class Throttle:
    """A rate that several transfers share.

    Args:
        bytes_s: Bytes a second.
        clock: Monotonic seconds.
    """

    def __init__(self, bytes_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_s = bytes_s
        self._burst = max(bytes_s * _BURST_S, _LEAST_BURST_BYTES)
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = self._burst
        self._at_s = clock()

    def delay_s(self, size_bytes: int) -> float:
        """Account for bytes that came; how long to wait, in seconds, before taking more."""
        with self._lock:
            now_s = self._clock()
            gained = (now_s - self._at_s) * self.bytes_s
            self._tokens = min(self._burst, self._tokens + gained) - size_bytes
            self._at_s = now_s
            return max(0.0, -self._tokens / self.bytes_s)
