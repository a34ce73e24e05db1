"""A figure that edgepack publishes about itself: what was measured, how, and what it must keep."""

from dataclasses import dataclass
from typing import Protocol

from edgepack.trust.decode import encode
from edgepack.trust.strict_json import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One number.

    Attributes:
        what: What it is, for a person.
        value: The number, mostly a median.
        unit: Its unit: "µs", "MB", "times", …
        low, high: How far it may be off, mostly a 95 % interval of the median; None if unknown.
        limit: The largest value that is promised, or None.
    """

    what: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    limit: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the number is within its limit, if it has one."""
        return self.limit is None or self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The result of one measurement.

    Attributes:
        name: Stem of its file in the results: `[a-z_]+`.
        title: One line for a heading.
        method: How it was measured, one paragraph.
        lines: The numbers.
    """

    name: str
    title: str
    method: str
    lines: tuple[Line, ...]

    @property
    def kept(self) -> bool:
        """Whether every number is within its limit."""
        return all(line.kept for line in self.lines)

    def to_json(self) -> dict[str, JsonValue]:
        """Give plain JSON values, with the verdict."""
        document = encode(self)
        assert isinstance(document, dict)
        return {**document, "kept": self.kept}


class Measurement(Protocol):
    """A module of this package that measures one thing; see `edgepack.bench.measurements`."""

    def measure(self) -> Figure:
        """Measure, which may take a minute."""
