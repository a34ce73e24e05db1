"""What the parent asks of the process that measures one variant. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRequest:
    """One variant to measure.

    Attributes:
        bundle: Path of the bundle.
        variant: Its name.
        threads: Of the engine.
        calls: Largest number of timed calls.
        seconds: Largest time for them, in seconds; at least 50 calls are made all the same.
        started_ns: Monotonic clock of the machine when the process was started, in nanoseconds.
        data: Path of a data file, or None.
        label: Column of the truth in it, or None.
    """

    bundle: str
    variant: str
    threads: int
    calls: int
    seconds: float
    started_ns: int
    data: str | None = None
    label: str | None = None
