"""The single figures that parity is made of. Arrays in, one finite float out."""

import numpy as np

from edgepack.runtime.tensors import Array


def same_labels(expected: Array, got: Array) -> Array:
    """Compare labels one by one; text and whole numbers compare by what they read as.

    Returns:
        bool, the labels' shape.
    """
    if (expected.dtype.kind in "OU") != (got.dtype.kind in "OU"):
        expected, got = _as_text(expected), _as_text(got)
    same: Array = np.asarray(expected == got, dtype=np.bool_)
    return same


def agreement(expected: Array, got: Array) -> float:
    """Fraction of labels that are the same.

    >>> agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]))
    0.75
    """
    return float(same_labels(expected.reshape(-1), got.reshape(-1)).mean())


def rows_agreeing(expected: Array, got: Array) -> Array:
    """Which rows have all their labels the same.

    Returns:
        bool (N,).

    >>> rows_agreeing(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [1, 0]])).tolist()
    [True, False]
    """
    rows: Array = same_labels(expected, got).reshape(len(expected), -1).all(axis=1)
    return rows


def largest_difference(expected: Array, got: Array) -> float:
    """Largest |got - expected| where both are finite; 0 where none are."""
    first, second = _both_finite(expected, got)
    return float(np.abs(first - second).max(initial=0.0))


def largest_relative_error(expected: Array, got: Array) -> float:
    """Largest |got - expected| relative to |expected|, where both are finite.

    The denominator is never below the mean of |expected|: near zero, any error is infinitely
    large relative to it and says nothing.

    >>> largest_relative_error(np.array([100.0, 0.0]), np.array([101.0, 0.1]))
    0.01
    """
    first, second = _both_finite(expected, got)
    if first.size == 0:
        return 0.0
    size = np.abs(first)
    floor = size.mean() or 1.0
    return float((np.abs(first - second) / np.maximum(size, floor)).max())


def r2(expected: Array, got: Array) -> float:
    """Coefficient of determination, of the worst column: 1 - residual / total sum of squares.

    Only rows where both are finite count; without any, sameness does: 1 or 0. A constant column
    gives 1 if it is met and 0 if not.

    >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    0.5
    """
    rows = expected.shape[0]
    first = expected.reshape(rows, -1).astype(np.float64)
    second = got.reshape(rows, -1).astype(np.float64)
    kept = (np.isfinite(first) & np.isfinite(second)).all(axis=1)
    if not kept.any():
        return float(np.array_equal(first, second, equal_nan=True))
    first, second = first[kept], second[kept]
    residual = ((first - second) ** 2).sum(axis=0)
    total = ((first - first.mean(axis=0)) ** 2).sum(axis=0)
    constant = total == 0
    score = 1 - residual / np.where(constant, 1.0, total)
    return float(np.where(constant, (residual == 0).astype(np.float64), score).min())


def sqnr_db(expected: Array, got: Array) -> float | None:
    """Signal-to-quantization-noise ratio in decibels; None where there is no noise or no signal.

    >>> sqnr_db(np.array([10.0, 10.0]), np.array([11.0, 9.0]))
    20.0
    """
    first, second = _both_finite(expected, got)
    signal, noise = float((first**2).sum()), float(((first - second) ** 2).sum())
    if not (0 < signal < float("inf") and 0 < noise < float("inf")):
        return None
    return float(10 * np.log10(signal / noise))


def nonfinite_mismatches(expected: Array, got: Array) -> int:
    """How many values are NaN or infinite in one and not, or not the same, in the other."""
    odd = ~(np.isfinite(expected) & np.isfinite(got))
    same = (expected == got) | (np.isnan(expected) & np.isnan(got))
    return int((odd & ~same).sum())


def _both_finite(expected: Array, got: Array) -> tuple[Array, Array]:
    kept = np.isfinite(expected) & np.isfinite(got)
    return expected[kept].astype(np.float64), got[kept].astype(np.float64)


def _as_text(labels: Array) -> Array:
    if labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all()):
        labels = labels.astype(np.int64)
    return np.array(
        [str(label) for label in labels.reshape(-1).tolist()], dtype=np.object_
    ).reshape(labels.shape)
