"""What a contest is asked and what it answers. Plain values."""

from collections.abc import Mapping
from dataclasses import field
from typing import Protocol

from edgepack.runtime.options import SessionOptions
from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestLimits:
    """What a contest may take, and what a model may.

    Attributes:
        total_s: Seconds for everything. What a variant leaves of its share is the others'.
        variant_s: Seconds for the parity of one variant; by default its share of what is left.
        compare_s: Seconds in which two candidates are told apart, if their speed allows it. Less
            makes the choice rougher: the spread that is reported says how much.
        max_latency_ms: A variant whose single inference takes longer is refused.
        max_memory_bytes: A variant that takes more private memory is refused.
    """

    total_s: float = 120.0
    variant_s: float | None = None
    compare_s: float = 4.0
    max_latency_ms: float | None = None
    max_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One variant under one set of options.

    Attributes:
        variant: Its name.
        size_bytes: Of its files.
        options: How it runs.
    """

    variant: str
    size_bytes: int
    options: SessionOptions = field(default_factory=SessionOptions)

    @property
    def label(self) -> str:
        """For people: "onnx-fp32", "onnx-fp32 with 2 threads, without arena"."""
        options = self.options
        parts = [f"{options.threads} threads"] if options.threads > 1 else []
        parts += ["spinning"] if options.spinning else []
        parts += ["no arena"] if not options.arena else []
        if options.repack is not None:
            parts.append("repacked weights" if options.repack else "weights as they lie")
        return f"{self.variant} ({', '.join(parts)})" if parts else self.variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A loaded candidate.

    Attributes:
        load_ms: From its files to a session that may run.
        private_bytes: Largest private memory that loading and three inferences added.
        peak_bytes: The same with mapped files.
    """

    load_ms: float
    private_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a candidate answers to the golden samples, beside what the original did."""

    passed: bool
    reason: str | None
    figures: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Inferences of one sample each, one after the other.

    Attributes:
        median_us: Of a single one.
        fastest_us: The fastest.
        calls: How many were timed.
    """

    median_us: float
    fastest_us: float
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """Inferences with pauses between them.

    Attributes:
        cpu_us: Processor time of the whole process, pauses included, for each inference.
        calls: How many.
    """

    cpu_us: float
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What became of one candidate, for a report.

    Attributes:
        candidate: Which.
        result: "chosen", or why not, in one line.
    """

    candidate: Candidate
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestReport:
    """The choice.

    Attributes:
        chosen: The candidate that is to serve; None if there is none.
        figures: Of the chosen one, by name, finite.
        tried: Every candidate; for people and for events.
    """

    chosen: Candidate | None
    figures: Mapping[str, float] = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Every candidate that was not chosen, and why."""
        return tuple(
            f"{item.candidate.label}: {item.result}"
            for item in self.tried
            if item.candidate != self.chosen
        )


class SubjectError(Exception):
    """A candidate cannot be used, in one line: it failed, crashed, hung, or took too much.

    Never leaves `edgepack.runtime.contest`.
    """


class Subject(Protocol):
    """One candidate, loaded, wherever it runs. Every method raises SubjectError."""

    @property
    def opened(self) -> Opened:
        """What loading took."""

    def judge(self, *, timeout_s: float) -> Judged:
        """Answer the golden samples."""

    def block(self, calls: int, *, timeout_s: float) -> Block:
        """Time so many inferences, after one or more that are not timed."""

    def paced(self, calls: int, pause_s: float, *, timeout_s: float) -> Paced:
        """Infer at a sensor's pace and tell the processor time."""

    def close(self) -> None:
        """End it; closing twice does nothing."""


class Place(Protocol):
    """Where candidates are loaded."""

    def start(self, candidate: Candidate, *, timeout_s: float) -> Subject:
        """Load a candidate.

        Raises:
            SubjectError: It cannot be loaded.
        """

    def has_room(self, private_bytes: int) -> bool:
        """Whether so much more memory may be taken without harm to what else runs here."""
