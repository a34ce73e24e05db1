"""Whether the device's clock can be believed, and what follows when it cannot.

Many small devices have no battery behind their clock: they start in 1970, or jump. Time decides
one thing only, whether a desired state has expired, so a clock that cannot be right decides
nothing: the install goes on, and what could not be checked is said. Durations never use this clock.

`judge` is pure; `DeviceClock` reads the clock and remembers.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from edgepack.agent.install.journal import Journal
from edgepack.trust.values import dataclass
from edgepack.wire.desired import Desired

RELEASED_S = 1_735_689_600  # 2025-01-01: no edgepack existed before
SLACK_S = 2 * 24 * 3600  # by which an operator's clock and a device's may differ
MAX_AHEAD_S = 10 * 365 * 24 * 3600  # longer than anything lies in a drawer
ISSUED = "desired_issued_s"
_SEEN = "clock_seen_s"


class Clock(StrEnum):
    """What the clock is worth."""

    PLAUSIBLE = "plausible"
    BEHIND = "behind"  # earlier than a moment that is known to be past
    AHEAD = "ahead"  # later than a device could have waited


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Moments that are past, in seconds since 1970.

    Attributes:
        released_s: Before this the agent did not exist.
        issued_s: When the desired state that was accepted last was signed. The last, not the
            largest: an operator whose clock was once wrong mends it with the next deployment, and
            generations keep an older state from being the last.
        seen_s: The latest moment at which this clock was plausible.
    """

    released_s: int = RELEASED_S
    issued_s: int = 0
    seen_s: int = 0

    @property
    def earliest_s(self) -> int:
        """It cannot be earlier now."""
        return max(self.released_s, self.issued_s, self.seen_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a clock is worth.

    Attributes:
        clock: The word for it.
        now_s: What it says, in seconds since 1970.
        earliest_s: The earliest possible now.
    """

    clock: Clock
    now_s: float
    earliest_s: int

    @property
    def expiry_now_s(self) -> float | None:
        """The time to compare an expiry with; None when nothing can be said."""
        return self.now_s if self.clock is Clock.PLAUSIBLE else None

    @property
    def complaint(self) -> str:
        """What is wrong with it, one line, or ""."""
        if self.clock is Clock.PLAUSIBLE:
            return ""
        if self.clock is Clock.BEHIND:
            return f"says {_day(self.now_s)}, before {_day(self.earliest_s)}, which is past"
        return f"says {_day(self.now_s)}, over 10 years after {_day(self.earliest_s)}"


def judge(now_s: float, evidence: Evidence) -> Verdict:
    """Say what a clock is worth."""
    earliest_s = evidence.earliest_s
    clock = Clock.PLAUSIBLE
    if now_s < earliest_s - SLACK_S:
        clock = Clock.BEHIND
    elif now_s > earliest_s + MAX_AHEAD_S:
        clock = Clock.AHEAD
    return Verdict(clock=clock, now_s=now_s, earliest_s=earliest_s)


def agrees(now_s: float, desired: Desired) -> bool:
    """Whether a clock fits a newly accepted state: after it was signed, before it expires.

    Such a clock is believed again, though an earlier jump forward was remembered.
    """
    return desired.issued_s - SLACK_S <= now_s <= desired.expires_s


class DeviceClock:
    """The clock of this device.

    Args:
        journal: Remembers what is past.
        wall: Seconds since 1970, as the system has it.
    """

    def __init__(self, journal: Journal, wall: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._wall = wall
        self._evidence = Evidence(
            issued_s=int(journal.meta(ISSUED) or 0), seen_s=int(journal.meta(_SEEN) or 0)
        )

    def verdict(self) -> Verdict:
        """What the clock is worth now."""
        return judge(self._wall(), self._evidence)

    def expiry_now_s(self) -> float | None:
        """The time to compare an expiry with; None when nothing can be said."""
        return self.verdict().expiry_now_s

    def remember(self) -> None:
        """Keep that it is at least as late as now, if the clock is plausible.

        Raises:
            StoreError: The disk does not take it.
        """
        verdict = self.verdict()
        if verdict.clock is Clock.PLAUSIBLE and verdict.now_s > self._evidence.seen_s:
            self._journal.set_metas({_SEEN: b"%d" % verdict.now_s})
            self._evidence = Evidence(issued_s=self._evidence.issued_s, seen_s=int(verdict.now_s))

    def accepting(self, desired: Desired) -> dict[str, bytes]:
        """What to keep together with a newly accepted state."""
        metas = {ISSUED: b"%d" % desired.issued_s}
        now_s = self._wall()
        return {**metas, _SEEN: b"%d" % now_s} if agrees(now_s, desired) else metas

    def forgetting(self) -> dict[str, bytes]:
        """What to keep when the deploy role lost a key: its word about time is worth nothing."""
        return {ISSUED: b"0"}

    def reread(self) -> None:
        """Take over what was kept."""
        journal = self._journal
        self._evidence = Evidence(
            issued_s=int(journal.meta(ISSUED) or 0), seen_s=int(journal.meta(_SEEN) or 0)
        )


def _day(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s since 1970"
