"""How far one model's answers are from another's, for the same inputs.

Labels are compared as they are, numbers by their absolute difference. For one thread.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.monitor.quality import wilson_interval

_Z = 1.959964  # two-sided 95 % of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Of one batch.

    Attributes:
        rows: Samples with a label.
        differing: How many of them got another label.
        values: Numbers that were compared, where there are no labels.
        sum, sum_squares, largest: Of their absolute differences.
    """

    rows: int = 0
    differing: int = 0
    values: int = 0
    sum: float = 0.0
    sum_squares: float = 0.0
    largest: float = 0.0


def compare(
    ours: Mapping[str, npt.NDArray[Any]], theirs: Mapping[str, npt.NDArray[Any]]
) -> Comparison:
    """Compare the outputs of two models.

    Args:
        ours: Name → array, the first dimension is the sample.
        theirs: The other model's, for the same samples.

    Raises:
        ValueError: They have no output in common that can be compared.

    >>> compare({"label": np.array(["a", "b"])}, {"label": np.array(["a", "c"])}).differing
    1
    """
    if "label" in ours and "label" in theirs:
        left, right = ours["label"].astype(str), theirs["label"].astype(str)
        if left.shape != right.shape:
            raise ValueError(f"labels must have the shape {left.shape}, got {right.shape}")
        return Comparison(rows=left.size, differing=int((left != right).sum()))
    names = [
        name
        for name, array in ours.items()
        if name in theirs
        and array.shape == theirs[name].shape
        and _is_number(array)
        and _is_number(theirs[name])
    ]
    if not names:
        raise ValueError(
            f"no output of {', '.join(sorted(ours))} can be compared with one of "
            f"{', '.join(sorted(theirs))}"
        )
    gaps = np.concatenate(
        [
            np.abs(ours[name].astype(np.float64) - theirs[name].astype(np.float64)).ravel()
            for name in names
        ]
    )
    gaps = gaps[np.isfinite(gaps)]
    return Comparison(
        values=gaps.size,
        sum=float(gaps.sum()),
        sum_squares=float(np.square(gaps).sum()),
        largest=float(gaps.max(initial=0.0)),
    )


class Disagreement:
    """What comparisons add up to.

    >>> disagreement = Disagreement()
    >>> disagreement.add(Comparison(rows=100, differing=3))
    >>> [round(value, 3) for value in disagreement.figures().values()]
    [0.03, 0.01, 0.085]
    """

    def __init__(self) -> None:
        self._rows = 0
        self._differing = 0
        self._values = 0
        self._sum = 0.0
        self._sum_squares = 0.0
        self._largest = 0.0

    def add(self, one: Comparison) -> None:
        """Count one comparison."""
        self._rows += one.rows
        self._differing += one.differing
        self._values += one.values
        self._sum += one.sum
        self._sum_squares += one.sum_squares
        self._largest = max(self._largest, one.largest)

    def figures(self) -> dict[str, float]:
        """Shares and differences with 95 % intervals; empty without comparisons."""
        figures: dict[str, float] = {}
        if self._rows:
            low, high = wilson_interval(self._differing, self._rows)
            figures |= {
                "disagreement": self._differing / self._rows,
                "disagreement_low": low,
                "disagreement_high": high,
            }
        if self._values:
            mean = self._sum / self._values
            variance = max(0.0, self._sum_squares / self._values - mean * mean)
            reach = _Z * math.sqrt(variance / self._values)
            figures |= {
                "abs_diff_mean": mean,
                "abs_diff_mean_low": max(0.0, mean - reach),
                "abs_diff_mean_high": mean + reach,
                "abs_diff_max": self._largest,
            }
        return figures


def _is_number(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind in "fiub"
