"""Float64 thresholds for float32 inputs.

A table holds decimals; a device gives them as the nearest float32. The threshold must be rounded
so that these go the way of their decimals: 40.2 as float32 is above the float64 threshold 40.2
that it was trained to be at. Rounding down, which is right for values that are float32 by nature,
would send it the wrong way; rounding to the nearest would send such a value the wrong way if it
lies next to the threshold. So the two float32 next to the threshold decide: each goes where the
shortest decimal that names it goes.
"""

import numpy as np

from edgepack.runtime.tensors import Array


def float32_thresholds(thresholds: Array) -> Array:
    """Round the thresholds of `value <= threshold`.

    Args:
        thresholds: float64 (M,).

    Returns:
        float32 (M,): the largest float32 whose shortest decimal is at or below the threshold.

    >>> float(float32_thresholds(np.array([40.2]))[0]) > 40.2
    True
    """
    exact, places = np.unique(thresholds, return_inverse=True)
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = exact.astype(np.float32)
        lower = np.nextafter(nearest, np.float32(-np.inf))
        below = np.where(nearest <= exact, nearest, lower)
        above = np.nextafter(below, np.float32(np.inf))
    found: Array = below.astype(np.float32)
    for index in np.flatnonzero(below != exact):
        if _decimal(above[index]) <= exact[index]:
            found[index] = above[index]
        elif _decimal(below[index]) > exact[index]:
            found[index] = np.nextafter(below[index], np.float32(-np.inf))
    return found[places].reshape(thresholds.shape)


def _decimal(value: np.float32) -> float:
    return float(np.format_float_scientific(value, unique=True))
