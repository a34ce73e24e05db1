"""Do a model's inputs still look like those it was made with?

Each window of n rows is compared with the reference of m rows, feature by feature, by two tests:

- Pearson's chi-square test of homogeneity over the reference's bins (K. Pearson, Biometrika
  8(1-2), 1911). Bins whose expected count in a window is below 5 are merged with a neighbour
  (W. G. Cochran, Biometrics 10(4), 1954), so that the statistic has its distribution.
- For what the reference never saw (numbers beyond its range, new text, NaN where there was
  none): if the k such values were as likely in the reference, all of them would fall into the
  window with probability n!/(n-k)! · (m+n-k)!/(m+n)! (Fisher's exact test). Numbers may leave at
  either end, which is at most k + 1 times as likely.

The population stability index is given too, because people know it, and decides nothing: under
no drift it is about (1/n + 1/m) times a chi-square variable (B. Yurdakul, J. Naranjo, Journal of
Risk Model Validation 14(4), 2020), so that the usual threshold of 0.1 raises 40 % false alarms
at n = 100.

The alarm's false rate is a setting, alpha. A feature raises the alarm when it deviates in K
windows in a row. With F features the level of one test is (alpha / F)^(1/K): Bonferroni over
the features, and K independent windows. Windows share the reference, and its own chance
deviations would repeat in each of them; where it has fewer than 5 n rows the level is therefore
alpha / F.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgepack.monitor.chi_square import upper_tail
from edgepack.monitor.reference import Array, parse_reference
from edgepack.monitor.window_counter import WindowCounter

_LEAST_EXPECTED: Final = 5.0
# Reference rows for each row of a window. Measured with alpha = 0.005, K = 3 and 5 normal features
# on 20,000 windows: 0.018 false alarms at 1, 0.007 at 2, 0.0057 at 4, 0.0025 at 10.
_ROWS_FOR_INDEPENDENCE: Final = 5
_LARGEST_SCORE: Final = 300.0
_HALF: Final = 0.5  # added to every count, so that the stability index has no empty bin


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftResult:
    """One window compared with the reference.

    Attributes:
        rows: Rows in the window.
        scores: For each feature -log10 of its p-value, at most 300.
        threshold: A feature whose score is at least this deviates.
        drifted: The features that have deviated in as many windows in a row as were asked for,
            this one included; the worst first.
        alarm: Whether there is such a feature.
        psi: For each feature the population stability index, for information.
    """

    rows: int
    scores: dict[str, float]
    threshold: float
    drifted: tuple[str, ...]
    alarm: bool
    psi: dict[str, float]


class DriftDetector:
    """Compares windows of a model's inputs with its reference. For one thread.

    Args:
        reference: What `build_reference` gave.
        window: Rows in a window.
        alpha: Wanted rate of false alarms for each window, in 0..1.
        consecutive: Windows in a row in which a feature must deviate.

    Raises:
        ValueError: A setting is out of range, or the reference is malformed.

    >>> from edgepack.monitor.reference import build_reference
    >>> rng = np.random.default_rng(0)
    >>> reference = build_reference({"x": rng.normal(size=(2000, 2))})
    >>> detector = DriftDetector(reference, window=100, alpha=0.01, consecutive=2)
    >>> same = [detector.observe({"x": rng.normal(size=(100, 2))}) for _ in range(2)]
    >>> [result.alarm for result in same]
    [False, False]
    >>> shifted = [detector.observe({"x": rng.normal(size=(100, 2)) + [0, 1]}) for _ in range(2)]
    >>> [(result.alarm, result.drifted) for result in shifted]
    [(False, ()), (True, ('x_1',))]
    """

    def __init__(
        self, reference: bytes, *, window: int = 200, alpha: float = 0.01, consecutive: int = 2
    ) -> None:
        if window < 1 or consecutive < 1:
            raise ValueError(
                f"window and consecutive must be at least 1, got {window} and {consecutive}"
            )
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
        parsed = parse_reference(reference)
        self.window = window
        self._rows = parsed.rows
        self._names = [feature.name for feature in parsed.features]
        self._counter = WindowCounter(parsed)
        self._tests = _Tests(self._counter.reference_counts, parsed.rows, window)
        independent = parsed.rows >= _ROWS_FOR_INDEPENDENCE * window
        level = (alpha / len(self._names)) ** (1 / consecutive if independent else 1)
        self.threshold = float(-np.log10(level))
        self._consecutive = consecutive
        self._streaks = np.zeros(len(self._names), np.int64)

    def observe(self, inputs: Mapping[str, Array]) -> DriftResult | None:
        """Look at rows.

        Args:
            inputs: By the model's input names, as they were given to it.

        Returns:
            None while the window is not full. If the rows complete several windows: the first
            that raised the alarm, else the last.

        Raises:
            ValueError: The inputs are not those of the reference.
        """
        found = None
        if any(array.ndim == 0 for array in inputs.values()):
            raise ValueError("inputs must have rows, got a single value")
        rows = max((array.shape[0] for array in inputs.values()), default=0)
        begin = 0
        while begin < rows:
            end = min(rows, begin + self.window - self._counter.rows)
            self._counter.add({name: array[begin:end] for name, array in inputs.items()})
            begin = end
            if self._counter.rows == self.window:
                result = self._finish()
                found = found if found is not None and found.alarm else result
        return found

    def _finish(self) -> DriftResult:
        scores = self._tests.scores(self._counter.counts, self._counter.unseen)
        psi = stability_index(self._counter.reference_counts, self._counter.counts)
        self._counter.clear()
        deviates = scores >= self.threshold
        self._streaks = np.where(deviates, self._streaks + 1, 0)
        raised = self._streaks >= self._consecutive
        worst_first = [index for index in np.argsort(-scores).tolist() if raised[index]]
        return DriftResult(
            rows=self.window,
            scores=dict(zip(self._names, scores.tolist(), strict=True)),
            threshold=self.threshold,
            drifted=tuple(self._names[index] for index in worst_first),
            alarm=bool(raised.any()),
            psi=dict(zip(self._names, psi.tolist(), strict=True)),
        )


class _Tests:
    """The two tests of every feature, for windows of one size."""

    def __init__(self, reference: Array, rows: int, window: int) -> None:
        self._window = window
        self._rows = rows
        self._groups = np.array([_merge(counts * window / rows) for counts in reference])
        self._reference = self._grouped(reference)
        self._degrees = self._groups.max(axis=1)
        steps = np.arange(window, dtype=np.float64)
        all_in_window = np.log((window - steps) / (rows + window - steps)).cumsum()
        ways = np.log(np.arange(window) + 2)  # k + 1 for k = 1 …
        self._unseen_log10 = np.append(0.0, np.minimum(0, all_in_window + ways)) / np.log(10)

    def scores(self, counts: Array, unseen: Array) -> Array:
        """Give -log10 of each feature's p-value, float64 (features,)."""
        observed = self._grouped(counts)
        pooled = (self._reference + observed) / (self._rows + self._window)
        safe = np.where(pooled > 0, pooled, 1.0)
        statistic = (
            (observed - pooled * self._window) ** 2 / (safe * self._window)
            + (self._reference - pooled * self._rows) ** 2 / (safe * self._rows)
        ).sum(axis=1)
        smallest = 10.0**-_LARGEST_SCORE
        tails = [
            upper_tail(value, degrees) if degrees else 1.0
            for value, degrees in zip(statistic.tolist(), self._degrees.tolist(), strict=True)
        ]
        by_bins = -np.log10(np.maximum(tails, smallest))
        by_unseen = -self._unseen_log10[unseen]
        # Two tests have two chances, where there are bins enough for the first.
        chances = np.where(self._degrees > 0, 2, 1)
        best = np.maximum(by_bins, by_unseen) - np.log10(chances)
        scores: Array = np.clip(best, 0.0, _LARGEST_SCORE)
        return scores

    def _grouped(self, counts: Array) -> Array:
        grouped = np.zeros(counts.shape)
        rows = np.broadcast_to(np.arange(len(counts))[:, None], counts.shape)
        np.add.at(grouped, (rows, self._groups), counts)
        return grouped


def stability_index(reference: Array, observed: Array) -> Array:
    """Population stability index of each feature: the sum of (p - q) ln(p / q) over its bins.

    Half a count is added to every bin that either has used, because an empty one has no
    logarithm.

    >>> stability_index(np.array([[50, 50]]), np.array([[50, 50]])).tolist()
    [0.0]
    """
    used = reference + observed > 0
    first = np.where(used, reference + _HALF, 0.0)
    second = np.where(used, observed + _HALF, 0.0)
    p = first / first.sum(axis=1, keepdims=True)
    q = second / second.sum(axis=1, keepdims=True)
    ratio = np.divide(q, p, out=np.ones_like(q), where=used)
    index: Array = ((q - p) * np.log(ratio)).sum(axis=1)
    return index


def _merge(expected: Array) -> list[int]:
    """Number the groups that bins belong to, so that each group expects at least 5 rows."""
    groups = []
    group, total = 0, 0.0
    for position, value in enumerate(expected.tolist()):
        groups.append(group)
        total += value
        if total >= _LEAST_EXPECTED and expected[position + 1 :].sum() >= _LEAST_EXPECTED:
            group, total = group + 1, 0.0
    return groups
