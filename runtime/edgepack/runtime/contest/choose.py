"""What a contest decides, from what it measured. Pure: no process, no clock.

Two candidates are compared by the ratios of neighbouring blocks of inferences, timed in turns, so
that whatever else the machine does hits both. A ratio is challenger / champion: below 1 the
challenger is faster.
"""

from collections.abc import Sequence
from typing import Final

from edgepack.monitor.median import Median, median
from edgepack.runtime.contest.values import Block, Candidate

RESOLUTION: Final = 0.05  # differences below it are not looked for
TIE: Final = 0.025  # nor is a smaller variant refused for less
CPU_ROOM: Final = 1.05  # processor time that more threads may cost, against the least
HOPELESS: Final = 2.0  # a busy machine can make a candidate look half as slow again
CLEAR: Final = 1.5
LEAST_PAIRS: Final = 6  # the fewest that give a 95 % interval of a median
MOST_PAIRS: Final = 60
_CLEAR_PAIRS: Final = 3


def is_hopeless(champion: Sequence[Block], challenger: Sequence[Block]) -> bool:
    """Whether a candidate need not be compared at all.

    Both were timed, one after the other: its median and its fastest inference must take twice as
    long, because a busy machine can make a median that slow, but hardly the fastest.

    >>> slow, quick = (Block(median_us=t, fastest_us=t - 1, calls=9) for t in (60.0, 10.0))
    >>> is_hopeless([quick], [slow]), is_hopeless([slow], [quick])
    (True, False)
    """
    return latency_us(challenger).value > HOPELESS * latency_us(champion).value and min(
        b.fastest_us for b in challenger
    ) > HOPELESS * min(b.fastest_us for b in champion)


def is_decided(ratios: Sequence[float]) -> bool:
    """Whether more pairs of blocks would tell nothing that matters.

    A clear loser is let go after three; otherwise the interval of the median must leave 1 on one
    side, or be known to 5 %.

    >>> is_decided([1.6, 1.7, 1.5]), is_decided([1.0, 1.3, 0.8, 1.0, 1.2, 0.9])
    (True, False)
    """
    if len(ratios) >= MOST_PAIRS:
        return True
    if len(ratios) >= _CLEAR_PAIRS and min(ratios) > CLEAR:
        return True
    if len(ratios) < LEAST_PAIRS:
        return False
    found = median(ratios)
    return found.low > 1 + TIE or found.high < 1 - TIE or found.spread <= TIE


def is_steady(blocks: Sequence[Block]) -> bool:
    """Whether the latency of a candidate that has no rival is known to 5 %."""
    if len(blocks) < LEAST_PAIRS:
        return False
    return len(blocks) >= MOST_PAIRS or latency_us(blocks).spread <= RESOLUTION


def latency_us(blocks: Sequence[Block]) -> Median:
    """The latency of one inference: the median over blocks."""
    return median([block.median_us for block in blocks])


def challenger_wins(
    ratios: Sequence[float],
    champion: Candidate,
    challenger: Candidate,
    *,
    champion_bytes: int,
    challenger_bytes: int,
) -> bool:
    """Whether the challenger takes the champion's place.

    The faster one does. Where the measurement does not tell them apart (the interval of the ratio
    holds 1 and its median lies within 2.5 % of it), the smaller one does: the smaller variant, or
    of one variant the options that take less memory.

    Args:
        ratios: At least one.
        champion: The one whose place it is.
        challenger: The other.
        champion_bytes: Private memory that the champion takes.
        challenger_bytes: The same of the challenger.
    """
    found = median(ratios)
    tied = found.low <= 1 <= found.high and 1 - TIE <= found.value <= 1 + TIE
    if not tied:
        return found.value < 1
    if champion.variant == challenger.variant:
        return challenger_bytes < champion_bytes
    if challenger.size_bytes != champion.size_bytes:
        return challenger.size_bytes < champion.size_bytes
    return challenger.variant < champion.variant


def is_clearly_slower(ratios: Sequence[float]) -> bool:
    """Whether the challenger is slower beyond doubt, and by more than is worth a word."""
    found = median(ratios)
    return found.low > 1 and found.value > 1 + TIE


def saves_memory(before_bytes: int, after_bytes: int) -> bool:
    """Whether one takes enough less than the other to look for: a MiB and a twentieth."""
    saved = before_bytes - after_bytes
    return saved >= 1 << 20 and saved >= before_bytes * RESOLUTION


def thread_counts(processors: int) -> tuple[int, ...]:
    """Numbers of threads to try beside one: powers of two, and all.

    >>> thread_counts(1), thread_counts(4), thread_counts(6)
    ((), (2, 4), (2, 4, 6))
    """
    found = []
    threads = 2
    while threads < processors:
        found.append(threads)
        threads *= 2
    return (*found, processors) if processors > 1 else ()


def threads_pay(
    ratios: Sequence[float], *, least_cpu_us: float, cpu_us: float, keeps_limit: bool
) -> bool:
    """Whether more threads are taken.

    They must be faster beyond doubt. They may cost a twentieth more processor time for each
    inference than the least that was found, because a device has other work; if the fewer threads
    do not keep the limit of latency, they may cost what they want.

    Args:
        ratios: More threads against fewer.
        least_cpu_us: Processor time of one inference, at a sensor's pace, of the thriftiest.
        cpu_us: The same with more threads.
        keeps_limit: Whether the fewer threads keep the limit of latency.
    """
    if median(ratios).high >= 1:
        return False
    return not keeps_limit or cpu_us <= CPU_ROOM * least_cpu_us
