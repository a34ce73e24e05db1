"""When to try again what failed for a reason that may pass: each slot by its own clock."""

import asyncio
import random
from collections.abc import Callable

FIRST_S = 1.0
LONGEST_S = 300.0


class Retries:
    """Waits longer after each failure of a slot; at most one timer for each.

    Args:
        again: Called when some slot's wait is over.
    """

    def __init__(self, again: Callable[[], None]) -> None:
        self._again = again
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._delays_s: dict[str, float] = {}

    def is_waiting(self, key: str) -> bool:
        """Whether the slot is not to be tried yet."""
        return key in self._waiting

    def later(self, key: str) -> None:
        """The slot failed once more."""
        delay_s = self._delays_s.get(key, FIRST_S)
        self._delays_s[key] = min(2 * delay_s, LONGEST_S)
        self._forget_timer(key)
        loop = asyncio.get_running_loop()
        # a server that comes back must not meet a whole fleet in the same second
        delay_s *= random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        self._waiting[key] = loop.call_later(delay_s, self._is_over, key)

    def succeeded(self, key: str) -> None:
        """The slot's next failure is its first."""
        self._forget_timer(key)
        self._delays_s.pop(key, None)

    def clear(self) -> None:
        """The world has changed: no slot waits, and no failure counts."""
        for key in list(self._waiting):
            self._forget_timer(key)
        self._delays_s.clear()

    def _is_over(self, key: str) -> None:
        del self._waiting[key]
        self._again()

    def _forget_timer(self, key: str) -> None:
        timer = self._waiting.pop(key, None)
        if timer is not None:
            timer.cancel()
