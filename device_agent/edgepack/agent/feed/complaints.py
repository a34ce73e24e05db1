"""What goes wrong, in the log at a bounded rate: a sensor may send nonsense for years."""

import logging
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

EVERY_S: Final = 60.0


class Complaints:
    """Lets a line of each kind through at once, and then one in `EVERY_S` with how many came.

    Args:
        event: The event's name in the log.
        clock: Monotonic, in seconds.
    """

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, name: str, reason: str, detail: str) -> None:
        """Say that something is wrong with an input or an action.

        Args:
            name: Which.
            reason: A word.
            detail: The same for people.
        """
        now_s = self._clock()
        at_s, held_back = self._said.get((name, reason), (-EVERY_S, 0))
        if now_s - at_s < EVERY_S:
            self._said[name, reason] = (at_s, held_back + 1)
            return
        self._said[name, reason] = (now_s, 0)
        logger.warning(
            "%s name=%s reason=%s held_back=%d error=%s",
            self._event,
            name,
            reason,
            held_back,
            detail,
        )
