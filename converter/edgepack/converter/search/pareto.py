"""Which of the candidates that are good enough are worth their bytes. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_SAME_SIZE: Final = 0.1  # sizes nearer than this are one size: quality then decides
_SAME_QUALITY: Final = 0.001  # a tenth of a point is within the noise of any held-out set


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A candidate as the choice sees it.

    Attributes:
        name: Of the candidate.
        family: Candidates are only compared within a family: what a device computes them with
            ("fp16", "int8 static", "int8 dynamic"). Which family is fastest only it knows.
        size_bytes: Smaller is better.
        quality: Larger is better.
    """

    name: str
    family: str
    size_bytes: int
    quality: float


def dominated(points: Sequence[Point]) -> dict[str, str]:
    """The candidates that another of their family makes needless, with that other's name.

    >>> dominated([Point(name="a", family="f", size_bytes=100, quality=0.9),
    ...            Point(name="b", family="f", size_bytes=101, quality=0.8)])
    {'b': 'a'}
    """
    found: dict[str, str] = {}
    for point in points:
        for other in points:
            if other is point or other.family != point.family or other.name in found:
                continue
            if _beats(other, point) and not (
                _beats(point, other) and points.index(point) < points.index(other)
            ):
                found[point.name] = other.name
                break
    return found


def _beats(first: Point, second: Point) -> bool:
    """Whether the first is no larger and no worse, give or take what does not count."""
    return (
        first.size_bytes <= second.size_bytes * (1 + _SAME_SIZE)
        and first.quality >= second.quality - _SAME_QUALITY
    )
