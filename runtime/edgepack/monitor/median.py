"""A median and how well it is known.

The 95 % interval is distribution-free, from order statistics (H. A. David, H. N. Nagaraja, Order
Statistics, 3rd edition, 2003, section 7.1): it says how well the median is known, not how much
single values vary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_Z: Final = 1.959964  # two-sided 95 % of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """A median and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half the interval's width, as a share of the median; infinite for a median of 0."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else math.inf


def median(values: Sequence[float]) -> Median:
    """Give the median and its 95 % interval by order statistics.

    With fewer than six values the interval is all that was seen, which is less than 95 %.

    >>> median([5.0, 1.0, 3.0, 2.0, 4.0]).value
    3.0

    Raises:
        IndexError: There are no values.
    """
    ordered = sorted(values)
    count = len(ordered)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    reach = _Z * math.sqrt(count) / 2
    low = max(0, math.floor((count - 1) / 2 - reach))
    high = min(count - 1, math.ceil((count - 1) / 2 + reach))
    return Median(value=middle, low=ordered[low], high=ordered[high])
