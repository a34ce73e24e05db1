"""Latency as a log-spaced histogram: any quantile within 1 %, in 8 KB, mergeable.

Source: C. Masson, J. E. Rim, H. K. Lee, "DDSketch: A fast and fully-mergeable quantile sketch with
relative-error guarantees", PVLDB 12(12), 2019, section 2.1: value x falls into bucket
i = ceil(log_gamma(x)) with gamma = (1 + a) / (1 - a), and the estimate 2 gamma^i / (gamma + 1) is
within a relative error a of every value in that bucket.

Deviations: the paper keeps the buckets in a sparse map and collapses the lowest when there are
too many; a latency lies between 1 ns and 1000 s, so all buckets that can occur are one array of
fixed size, and larger values count in the last one. Recording only appends to a queue; whole
blocks are counted at once, which makes a record cost less than a tenth of a microsecond.
"""

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

_LARGEST_NS: Final = 10**12
_BLOCK: Final = 256


class LatencyHistogram:
    """Counts latencies; safe to record from several threads.

    Args:
        relative_error: Largest relative error of a quantile (0.01 = 1 %).

    >>> histogram = LatencyHistogram()
    >>> for microseconds in range(1, 1001):
    ...     histogram.record(microseconds * 1000)
    >>> histogram.count
    1000
    >>> abs(histogram.quantile(0.99) - 990_000) / 990_000 < 0.01
    True
    """

    __slots__ = (
        "_counts",
        "_lock",
        "_log_gamma",
        "_maximum_ns",
        "_queue",
        "_sum_ns",
        "relative_error",
    )

    def __init__(self, relative_error: float = 0.01) -> None:
        if not 0 < relative_error < 1:
            raise ValueError(f"relative_error must be between 0 and 1, got {relative_error}")
        self.relative_error = relative_error
        self._log_gamma = math.log((1 + relative_error) / (1 - relative_error))
        buckets = math.ceil(math.log(_LARGEST_NS) / self._log_gamma) + 1
        self._counts = np.zeros(buckets, dtype=np.int64)
        self._sum_ns = 0
        self._maximum_ns = 0
        # Only thread-safe operations touch the queue: append here, popleft under the lock.
        self._queue: deque[int] = deque()
        self._lock = threading.Lock()

    def record(self, ns: int) -> None:
        """Count one latency in nanoseconds; less than 1 counts as 1."""
        queue = self._queue
        queue.append(ns)
        if len(queue) >= _BLOCK:
            with self._lock:
                self._fold()

    @property
    def count(self) -> int:
        """How many latencies were recorded."""
        with self._lock:
            self._fold()
            return int(self._counts.sum())

    @property
    def mean_ns(self) -> float:
        """Mean in nanoseconds, exact; NaN without records."""
        with self._lock:
            self._fold()
            count = int(self._counts.sum())
            return self._sum_ns / count if count else math.nan

    @property
    def sum_ns(self) -> int:
        """Sum in nanoseconds, exact."""
        with self._lock:
            self._fold()
            return self._sum_ns

    @property
    def maximum_ns(self) -> int:
        """Largest latency in nanoseconds, exact; 0 without records."""
        with self._lock:
            self._fold()
            return self._maximum_ns

    def quantile(self, q: float) -> float:
        """Estimate a quantile in nanoseconds, within the relative error; NaN without records.

        The estimate is for the value of rank floor(q (count - 1)), as in the paper's algorithm 2.

        Raises:
            ValueError: q is not within 0..1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be within 0..1, got {q}")
        with self._lock:
            self._fold()
            cumulative = np.cumsum(self._counts)
        count = int(cumulative[-1])
        if count == 0:
            return math.nan
        index = int(np.searchsorted(cumulative, math.floor(q * (count - 1)), side="right"))
        gamma = math.exp(self._log_gamma)
        return 2 * math.exp(index * self._log_gamma) / (gamma + 1)

    def counts_up_to(self, bounds_ns: Sequence[float]) -> list[int]:
        """Count how many latencies are at most each bound, which is met within the error.

        >>> histogram = LatencyHistogram()
        >>> for microseconds in (5, 50, 500):
        ...     histogram.record(microseconds * 1000)
        >>> histogram.counts_up_to([10_000, 100_000, 1_000_000])
        [1, 2, 3]
        """
        with self._lock:
            self._fold()
            cumulative = np.cumsum(self._counts)
        last = len(cumulative) - 1
        edges = [round(math.log(max(1.0, bound)) / self._log_gamma) for bound in bounds_ns]
        return [int(cumulative[min(edge, last)]) for edge in edges]

    def median_interval(self) -> tuple[float, float]:
        """Bounds of the median's 95 % interval in nanoseconds; NaN without records.

        By order statistics: the number of values below the median is binomial, so that the values
        of the ranks n/2 -+ 1.96 sqrt(n)/2 enclose it, whatever the distribution.

        >>> histogram = LatencyHistogram()
        >>> for microseconds in range(1, 1001):
        ...     histogram.record(microseconds * 1000)
        >>> [round(edge / 1e6, 2) for edge in histogram.median_interval()]
        [0.47, 0.54]
        """
        count = self.count
        if not count:
            return math.nan, math.nan
        reach = 1.96 / (2 * math.sqrt(count))
        return self.quantile(max(0.0, 0.5 - reach)), self.quantile(min(1.0, 0.5 + reach))

    def merge(self, other: "LatencyHistogram") -> None:
        """Add another histogram's counts to this one; the other is not changed.

        Raises:
            ValueError: The relative errors differ, so that the buckets do not match.
        """
        if other.relative_error != self.relative_error:
            raise ValueError(
                f"relative_error must be {self.relative_error} to merge, got {other.relative_error}"
            )
        added = other.snapshot()
        with self._lock:
            self._counts += added._counts
            self._sum_ns += added._sum_ns
            self._maximum_ns = max(self._maximum_ns, added._maximum_ns)

    def snapshot(self) -> "LatencyHistogram":
        """Copy what was counted so far."""
        with self._lock:
            return self._copy()

    def take(self) -> "LatencyHistogram":
        """Copy what was counted so far and begin anew, losing nothing in between."""
        with self._lock:
            taken = self._copy()
            self._counts[:] = 0
            self._sum_ns = 0
            self._maximum_ns = 0
            return taken

    def reset(self) -> None:
        """Forget everything."""
        self.take()

    def to_dict(self) -> dict[str, object]:
        """Give plain JSON values; only buckets that hold something are listed."""
        copy = self.snapshot()
        found = np.flatnonzero(copy._counts)
        return {
            "relative_error": self.relative_error,
            "sum_ns": copy._sum_ns,
            "maximum_ns": copy._maximum_ns,
            "counts": {str(index): int(copy._counts[index]) for index in found.tolist()},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> "LatencyHistogram":
        """Make a histogram from what `to_dict` gave.

        Raises:
            ValueError: The document is not what `to_dict` gives.
        """
        relative_error = document.get("relative_error")
        counts = document.get("counts")
        sums = [document.get("sum_ns"), document.get("maximum_ns")]
        well_formed = isinstance(relative_error, float) and isinstance(counts, dict)
        if not well_formed:
            raise ValueError("a latency histogram must have relative_error and counts")
        assert isinstance(relative_error, float)
        assert isinstance(counts, dict)
        if any(type(value) is not int or value < 0 for value in [*sums, *counts.values()]):
            raise ValueError("a latency histogram must hold whole numbers from 0 up")
        histogram = cls(relative_error)
        for key, count in counts.items():
            if not str(key).isdecimal() or int(key) >= len(histogram._counts):
                raise ValueError(
                    f"bucket must be 0..{len(histogram._counts) - 1}, got {str(key)[:40]!r}"
                )
            histogram._counts[int(key)] = count
        histogram._sum_ns, histogram._maximum_ns = (int(str(value)) for value in sums)
        return histogram

    def _copy(self) -> "LatencyHistogram":
        self._fold()
        copy = LatencyHistogram(self.relative_error)
        copy._counts[:] = self._counts
        copy._sum_ns = self._sum_ns
        copy._maximum_ns = self._maximum_ns
        return copy

    def _fold(self) -> None:
        """Count what stands in the queue; the lock is held."""
        queue = self._queue
        if not queue:
            return
        block = np.array([queue.popleft() for _ in range(len(queue))], dtype=np.int64)
        np.maximum(block, 1, out=block)
        # intp: bincount takes no int64 on 32-bit processors
        index = np.ceil(np.log(block) / self._log_gamma).astype(np.intp)
        np.minimum(index, len(self._counts) - 1, out=index)
        self._counts += np.bincount(index, minlength=len(self._counts))
        self._sum_ns += int(block.sum())
        self._maximum_ns = max(self._maximum_ns, int(block.max()))
