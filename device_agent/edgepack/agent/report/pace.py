"""How fast what waited is sent: messages and bytes a second. Pure but for its clock."""

import time
from collections.abc import Callable

_BURST_S = 1.0


class Pace:
    """Two token buckets, each full for one second at the start.

    A report may be sent while both hold something, and may leave a bucket in debt: so that one that
    is larger than a bucket is sent, too.

    Args:
        messages_s: Messages a second.
        bytes_s: Bytes a second.
        clock: Monotonic seconds.
    """

    def __init__(
        self, messages_s: float, bytes_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rates = (messages_s, bytes_s)
        self._most = (max(1.0, messages_s * _BURST_S), bytes_s * _BURST_S)
        self._tokens = self._most
        self._clock = clock
        self._at_s = clock()

    def delay_s(self) -> float:
        """Seconds until the next one may be sent."""
        self._refill()
        messages, size = self._tokens
        # a whole message, and any byte: else a rate below one a second would begin with a burst
        lacking = (1.0 - messages) / self._rates[0], (1.0 - size) / self._rates[1]
        return max(0.0, *lacking)

    def take(self, size_bytes: int) -> None:
        """One was sent."""
        self._refill()
        messages, size = self._tokens
        self._tokens = (messages - 1.0, size - size_bytes)

    def _refill(self) -> None:
        now_s = self._clock()
        passed_s = now_s - self._at_s
        self._at_s = now_s
        filled = [
            min(most, tokens + rate * passed_s)
            for most, tokens, rate in zip(self._most, self._tokens, self._rates, strict=True)
        ]
        self._tokens = (filled[0], filled[1])
