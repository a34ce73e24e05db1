"""The time of a contest: what is left, and how long to wait for something that may hang."""

import time
from typing import Final

_MEASURE_SHARE: Final = 0.8  # of the time; the rest is for what must be finished
_LEAST_PATIENCE_S: Final = 5.0
_PATIENCE: Final = 20.0  # times what it took before


class Watch:
    """Runs from the moment it is made.

    Args:
        total_s: Seconds for everything.
    """

    def __init__(self, total_s: float) -> None:
        self._started = time.monotonic()
        self._total_s = total_s

    def passed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def left_s(self) -> float:
        """Seconds until everything must have ended."""
        return max(0.0, self._total_s - self.passed_s())

    def measuring_left_s(self) -> float:
        """Seconds in which something new may be measured."""
        return max(0.0, _MEASURE_SHARE * self._total_s - self.passed_s())

    def patience_s(self, expected_s: float) -> float:
        """Seconds after which something that should take `expected_s` counts as hung."""
        return min(self.left_s(), _LEAST_PATIENCE_S + _PATIENCE * expected_s)
