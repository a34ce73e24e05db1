"""How long to wait before the next try to connect: longer each time, and spread over the whole."""

import random
from collections.abc import Callable

FIRST_S = 0.5
LONGEST_S = 60.0


class Backoff:
    """Exponential backoff with full jitter (M. Brooker, AWS Architecture Blog, 2015).

    A fleet that lost its broker at one moment comes back spread over the whole delay.

    Args:
        first_s: Largest first delay.
        longest_s: Largest delay.
        share: Gives a number in 0..1.
    """

    def __init__(
        self,
        first_s: float = FIRST_S,
        longest_s: float = LONGEST_S,
        share: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._share = share
        self._most_s = first_s

    def reset(self) -> None:
        """It worked: the next delay is a first one."""
        self._most_s = self._first_s

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Seconds to wait.

        Args:
            at_least_s: What the largest delay is at least now.
        """
        most_s = max(self._most_s, min(at_least_s, self._longest_s))
        self._most_s = min(2 * most_s, self._longest_s)
        return most_s * self._share()
