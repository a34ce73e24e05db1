"""Ranges that leave the rarest values out, so that the others get finer steps."""

import numpy as np

from edgepack.runtime.tensors import Array

_PERCENT = 99.99
_BINS = 2048
_LEVELS = 256
_TRIED = np.linspace(0.5, 1.0, 26)  # of the whole range: less has never been best


def clip_percentile(values: Array, low: float, high: float) -> tuple[float, float]:
    """Leave out one value in 10,000 at each end.

    >>> low, high = clip_percentile(np.r_[np.linspace(-1, 1, 100_000), 900.0], -1.0, 900.0)
    >>> bool(high < 1.01)
    True
    """
    bottom, top = np.percentile(values, [100 - _PERCENT, _PERCENT])
    return max(low, float(bottom)), min(high, float(top))


def clip_entropy(values: Array, low: float, high: float) -> tuple[float, float]:
    """Choose the range whose 256 steps keep most of the distribution.

    The idea is that of S. Migacz, "8-bit inference with TensorRT" (2017): the smallest
    Kullback-Leibler divergence between the values, those outside gathered at the ends, and what is
    left of them after quantization. Here the range need not be symmetric.
    """
    if not low < high:
        return low, high
    best = (np.inf, low, high)
    for part in _TRIED[::-1]:
        bottom, top = low * part, high * part
        if not bottom < top:
            continue
        counts, _ = np.histogram(np.clip(values, bottom, top), bins=_BINS, range=(bottom, top))
        inside, _ = np.histogram(values, bins=_BINS, range=(bottom, top))
        divergence = _divergence(counts.astype(np.float64), inside.astype(np.float64))
        if divergence < best[0]:
            best = (divergence, bottom, top)
    return float(best[1]), float(best[2])


def _divergence(reference: Array, inside: Array) -> float:
    per_level = _BINS // _LEVELS
    groups = inside.reshape(_LEVELS, per_level)
    filled = groups > 0
    share = groups.sum(axis=1) / np.maximum(filled.sum(axis=1), 1)
    rebuilt = np.where(filled, share[:, None], 0.0).reshape(-1)
    p = reference / max(reference.sum(), 1.0)
    q = rebuilt / max(rebuilt.sum(), 1.0)
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-9))))
