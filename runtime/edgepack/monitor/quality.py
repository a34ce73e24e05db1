"""How right a model is, from truths that arrive later and not for every request.

Everything that counts is mergeable, so that windows add up to days and devices to fleets.
For one thread.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MAX_CLASSES: Final = 256
OTHER: Final = "(other)"


class TruthJoiner(Generic[T]):
    """Remembers predictions until their truth arrives, the newest `capacity` of them.

    Attributes:
        joined: Truths that met their prediction.
        unmatched: Truths for a request that is not known, not known any more, or had one.
        expired: Predictions that were forgotten before their truth came.

    >>> joiner = TruthJoiner(2)
    >>> for request in "abc":
    ...     joiner.predicted(request, request.upper())
    >>> joiner.truth("a"), joiner.truth("c"), joiner.truth("c")
    (None, 'C', None)
    >>> joiner.joined, joiner.unmatched, joiner.expired
    (1, 2, 1)
    """

    def __init__(self, capacity: int) -> None:
        """Remember up to `capacity` predictions.

        Raises:
            ValueError: `capacity` is below 1.
        """
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self._capacity = capacity
        self._waiting: OrderedDict[str, T] = OrderedDict()
        self.joined = 0
        self.unmatched = 0
        self.expired = 0

    def predicted(self, request_id: str, prediction: T) -> None:
        """Remember a prediction; one of the same id is replaced."""
        self._waiting.pop(request_id, None)
        self._waiting[request_id] = prediction
        if len(self._waiting) > self._capacity:
            self._waiting.popitem(last=False)
            self.expired += 1

    def truth(self, request_id: str) -> T | None:
        """Take the prediction that a truth is for, or None."""
        prediction = self._waiting.pop(request_id, None)
        if prediction is None:
            self.unmatched += 1
        else:
            self.joined += 1
        return prediction

    def __len__(self) -> int:
        return len(self._waiting)


class ClassificationQuality:
    """A confusion matrix that grows with the labels it sees, up to 256 of them.

    >>> quality = ClassificationQuality()
    >>> for truth, predicted in [("cat", "cat"), ("cat", "dog"), ("dog", "dog"), ("dog", "dog")]:
    ...     quality.add(truth, predicted)
    >>> quality.accuracy
    0.75
    >>> [round(edge, 3) for edge in quality.interval()]
    [0.301, 0.954]
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._labels: set[str] = set()
        self._right = 0

    def add(self, truth: str, predicted: str) -> None:
        """Count one prediction; labels beyond the 256th are counted as "(other)"."""
        self._right += truth == predicted
        self._counts[self._known(truth), self._known(predicted)] += 1

    @property
    def count(self) -> int:
        """Predictions that were counted."""
        return self._counts.total()

    @property
    def right(self) -> int:
        """Predictions that were right."""
        return self._right

    @property
    def accuracy(self) -> float:
        """Share of right predictions; NaN without any."""
        return self._right / self.count if self.count else math.nan

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Bounds of the accuracy, (0, 1) without any prediction; see `wilson_interval`."""
        return wilson_interval(self._right, self.count, confidence)

    def confusion(self) -> dict[tuple[str, str], int]:
        """Counts by (truth, predicted)."""
        return dict(self._counts)

    def recall(self, label: str) -> float:
        """Share of a class's samples that were found; NaN without any."""
        total = sum(count for (truth, _), count in self._counts.items() if truth == label)
        return self._counts[label, label] / total if total else math.nan

    def precision(self, label: str) -> float:
        """Share of a label's predictions that were right; NaN without any."""
        total = sum(count for (_, predicted), count in self._counts.items() if predicted == label)
        return self._counts[label, label] / total if total else math.nan

    def merge(self, other: "ClassificationQuality") -> None:
        """Add another's counts to this one; the other is not changed."""
        self._right += other._right
        for (truth, predicted), count in sorted(other._counts.items()):
            self._counts[self._known(truth), self._known(predicted)] += count

    def to_dict(self) -> dict[str, object]:
        """Give plain JSON values."""
        counts = [[truth, predicted, n] for (truth, predicted), n in sorted(self._counts.items())]
        return {"right": self._right, "counts": counts}

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> "ClassificationQuality":
        """Make one from what `to_dict` gave.

        Raises:
            ValueError: The document is not what `to_dict` gives.
        """
        quality = cls()
        counts, right = document.get("counts"), document.get("right")
        if not isinstance(counts, list) or not _is_count(right):
            raise ValueError("a classification quality must have right and counts")
        for entry in counts:
            match entry:
                case [str(truth), str(predicted), int(n)] if _is_count(n):
                    quality._counts[quality._known(truth), quality._known(predicted)] += n
                case _:
                    raise ValueError(
                        f"a count must be [truth, predicted, number], got {str(entry)[:60]}"
                    )
        quality._right = int(str(right))
        if quality._right > quality.count:
            raise ValueError(f"right must be at most {quality.count}, got {quality._right}")
        return quality

    def _known(self, label: str) -> str:
        if label in self._labels:
            return label
        if len(self._labels) >= MAX_CLASSES:
            return OTHER
        self._labels.add(label)
        return label


class RegressionQuality:
    """Errors of predicted values, and how much of the truth's variance they leave.

    Means and squares are merged by the formulas of T. F. Chan, G. H. Golub, R. J. LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979, which do
    not lose digits when the mean is large.

    >>> quality = RegressionQuality()
    >>> for truth, predicted in [(1.0, 1.0), (2.0, 2.0), (3.0, 4.0)]:
    ...     quality.add(truth, predicted)
    >>> round(quality.mae, 3), round(quality.rmse, 3), quality.r2
    (0.333, 0.577, 0.5)
    """

    def __init__(self) -> None:
        self.count = 0
        self._absolute = 0.0
        self._squared = 0.0
        self._mean = 0.0  # of the truths
        self._spread = 0.0  # sum of their squared distances from the mean

    def add(self, truth: float, predicted: float) -> None:
        """Count one prediction.

        Raises:
            ValueError: A value is not finite.
        """
        if not (math.isfinite(truth) and math.isfinite(predicted)):
            raise ValueError(f"truth and prediction must be finite, got {truth} and {predicted}")
        error = predicted - truth
        self._absolute += abs(error)
        self._squared += error * error
        self.count += 1
        distance = truth - self._mean
        self._mean += distance / self.count
        self._spread += distance * (truth - self._mean)

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN without predictions."""
        return self._absolute / self.count if self.count else math.nan

    @property
    def rmse(self) -> float:
        """Root of the mean squared error; NaN without predictions."""
        return math.sqrt(self._squared / self.count) if self.count else math.nan

    @property
    def r2(self) -> float | None:
        """Coefficient of determination; None where the truths do not differ."""
        return 1 - self._squared / self._spread if self._spread > 0 else None

    def merge(self, other: "RegressionQuality") -> None:
        """Add another's counts to this one; the other is not changed."""
        total = self.count + other.count
        if not other.count:
            return
        distance = other._mean - self._mean
        self._spread += other._spread + distance * distance * self.count * other.count / total
        self._mean += distance * other.count / total
        self._absolute += other._absolute
        self._squared += other._squared
        self.count = total


def wilson_interval(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of a proportion; they keep their coverage for few samples and at 0 and 1.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22(158), 1927.

    Args:
        right: Successes.
        count: Trials.
        confidence: Wanted coverage, in 0..1.

    Raises:
        ValueError: `right` is not within 0..count, or `confidence` not within 0..1.

    >>> [round(edge, 4) for edge in wilson_interval(95, 100)]
    [0.8882, 0.9785]
    """
    if not 0 <= right <= count or not 0 < confidence < 1:
        raise ValueError(
            f"right must be within 0..{count} and confidence within 0..1, "
            f"got {right} and {confidence}"
        )
    if count == 0:
        return 0.0, 1.0
    from statistics import NormalDist  # not at the start of a device: it brings in decimal

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / count
    spread = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / spread
    half = z / spread * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding must not push a bound past the share itself at 0 and at 1.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
