"""Reports that wait for the broker, in agent.toml's `[outbox]`."""

from edgepack.trust.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxConfig:
    """Bounds of what waits on disk, and the pace at which it is told later.

    Attributes:
        max_mb: What waiting reports may weigh together, in MB (10^6 bytes).
        max_age_days: Reports that are older are dropped.
        flush_s: Metrics and predictions that could not be sent for so long are written to disk,
            all together; a power cut costs no more of them. Events are written at once.
        replay_per_s: How many reports a second are sent of what waited.
        replay_kbps: How many kilobits (1000 bits) a second those may take.
    """

    max_mb: float = 16.0
    max_age_days: float = 30.0
    flush_s: float = 60.0
    replay_per_s: float = 20.0
    replay_kbps: float = 128.0

    def numbers(self) -> tuple[tuple[str, float], ...]:
        """What must be above 0, by name."""
        return (
            ("outbox.max_mb", self.max_mb),
            ("outbox.max_age_days", self.max_age_days),
            ("outbox.flush_s", self.flush_s),
            ("outbox.replay_per_s", self.replay_per_s),
            ("outbox.replay_kbps", self.replay_kbps),
        )
