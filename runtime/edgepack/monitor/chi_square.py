"""The upper tail of the chi-square distribution, without scipy, which a device does not have.

For whole degrees of freedom it has a closed form: M. Abramowitz, I. A. Stegun, Handbook of
Mathematical Functions, 1964, equations 26.4.4 and 26.4.5.
"""

import math


def upper_tail(x: float, degrees: int) -> float:
    """Probability that a chi-square variable exceeds x.

    Args:
        x: The statistic, not negative.
        degrees: Degrees of freedom, at least 1.

    >>> round(upper_tail(3.841459, 1), 6), round(upper_tail(18.307038, 10), 6)
    (0.05, 0.05)
    """
    half = x / 2
    if degrees % 2 == 0:
        term = math.exp(-half)
        total = term
        for index in range(1, degrees // 2):
            term *= half / index
            total += term
        return min(1.0, total)
    total = math.erfc(math.sqrt(half))
    term = math.exp(-half) * math.sqrt(half) / math.gamma(1.5)
    for index in range(degrees // 2):
        total += term
        term *= half / (index + 1.5)
    return min(1.0, total)
