"""What is known of one candidate while a contest goes on."""

from dataclasses import dataclass, field
from typing import Final

from edgepack.bundle.contract import Variant
from edgepack.monitor.median import Median
from edgepack.runtime.contest.choose import latency_us
from edgepack.runtime.contest.values import Block, Candidate, Judged, Opened, Paced

_BLOCK_S: Final = 0.003
_MOST_CALLS: Final = 200


@dataclass(slots=True, kw_only=True)
class Entry:
    """One candidate.

    Attributes:
        candidate: Which.
        variant: What the contract says of it.
        opened: What loading it took.
        rough: The first blocks: short, and not in turns with others.
        blocks: Those that count, if there are any.
        judged: Its verdict; None for options that were not judged yet.
        paced: At a sensor's pace.
        failed: It crashed, hung or failed since it was judged.
    """

    candidate: Candidate
    variant: Variant
    opened: Opened
    rough: list[Block]
    blocks: list[Block] = field(default_factory=list)
    judged: Judged | None = None
    paced: list[Paced] = field(default_factory=list)
    failed: bool = False

    @property
    def latency(self) -> Median:
        """Of one inference, in µs."""
        return latency_us(self.blocks or self.rough)

    @property
    def cpu_us(self) -> float:
        """Processor time of one inference at a sensor's pace."""
        calls = sum(item.calls for item in self.paced)
        return sum(item.cpu_us * item.calls for item in self.paced) / max(1, calls)

    @property
    def start_s(self) -> float:
        """Seconds that loading it and its first three inferences take, about."""
        return self.opened.load_ms / 1e3 + 3 * self.latency.value / 1e6

    @property
    def block_calls(self) -> int:
        """Inferences in a block of some milliseconds."""
        return max(1, min(_MOST_CALLS, int(_BLOCK_S * 1e6 / max(self.latency.value, 1e-3))))

    def figures(self) -> dict[str, float]:
        """For the report."""
        options = self.candidate.options
        latency = self.latency
        return {
            **(self.judged.figures if self.judged else {}),
            "p50_ms": latency.value / 1e3,
            "p50_low_ms": latency.low / 1e3,
            "p50_high_ms": latency.high / 1e3,
            "timed_calls": float(sum(block.calls for block in self.blocks or self.rough)),
            **({"cpu_ms": self.cpu_us / 1e3} if self.paced else {}),
            "load_ms": self.opened.load_ms,
            "memory_mb": self.opened.private_bytes / 1e6,
            "threads": float(options.threads),
            "spinning": float(options.spinning),
            "arena": float(options.arena),
            **({} if options.repack is None else {"repacked": float(options.repack)}),
        }
