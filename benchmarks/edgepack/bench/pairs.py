"""Two ways of doing one thing, timed in turns, so that whatever else the machine does hits both.

Blocks of calls alternate in the order A B B A; each pair of neighbouring blocks gives one
difference and one ratio. Their medians are what is reported, with the 95 % interval of the
median.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

from edgepack.monitor.median import Median, median


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What came of timing A and B in turns; times are of one call, in microseconds.

    Attributes:
        a_us, b_us: Medians over the blocks.
        difference_us: Of A - B over the pairs.
        ratio: Of A / B over the pairs.
        pairs: How many pairs of blocks.
        calls_per_block: How many calls in each.
    """

    a_us: Median
    b_us: Median
    difference_us: Median
    ratio: Median
    pairs: int
    calls_per_block: int


def time_pairs(
    a: Callable[[], object], b: Callable[[], object], *, pairs: int, calls_per_block: int
) -> Pairs:
    """Time A against B.

    Args:
        a: Called without arguments.
        b: The same work done the other way.
        pairs: How many pairs of blocks.
        calls_per_block: Calls in each block; a block should last a millisecond or more.
    """
    for call in (a, b):
        _block_us(call, calls_per_block)
    times: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            times[which].append(_block_us((a, b)[which], calls_per_block))
    both = list(zip(*times, strict=True))
    return Pairs(
        a_us=median(times[0]),
        b_us=median(times[1]),
        difference_us=median([first - second for first, second in both]),
        ratio=median([first / second for first, second in both]),
        pairs=pairs,
        calls_per_block=calls_per_block,
    )


def _block_us(call: Callable[[], object], calls: int) -> float:
    started_ns = perf_counter_ns()
    for _ in range(calls):
        call()
    return (perf_counter_ns() - started_ns) / calls / 1e3
