"""The settings of the winner: memory first, then threads, each against what was best so far."""

from dataclasses import replace
from typing import Final

from edgepack.monitor.median import median
from edgepack.runtime.contest import choose
from edgepack.runtime.contest.entry import Entry
from edgepack.runtime.contest.ring import Ring
from edgepack.runtime.contest.values import ContestLimits
from edgepack.runtime.options import SessionOptions

_WITH_ARENA: Final = frozenset({"onnxruntime"})  # and threads that can spin


class Tuner:
    """Finds the options that suit this device.

    Args:
        ring: Measures.
        limits: What the model may take.
        processors: How many this device has for an inference.
    """

    def __init__(self, ring: Ring, limits: ContestLimits, *, processors: int) -> None:
        self._ring = ring
        self._limits = limits
        self._processors = processors

    def tune(self, winner: Entry) -> Entry | None:
        """The winner under its best options; None if it fails, or keeps the limits under none."""
        found = self._with_more_threads(self._with_less_memory(winner))
        for entry in (found,) if found is winner else (found, winner):
            self._ring.finish(entry)
            if not entry.failed:
                refused = self._beyond_limits(entry)
                if refused is None:
                    return entry
                self._ring.told[entry.candidate] = refused
        return None

    def _with_less_memory(self, entry: Entry) -> Entry:
        if entry.variant.engine.engine not in _WITH_ARENA:
            return entry
        options = replace(entry.candidate.options, arena=False)
        other = self._ring.open(entry, options)
        if other is None:
            return entry
        if not choose.saves_memory(entry.opened.private_bytes, other.opened.private_bytes):
            self._ring.told[other.candidate] = "saves no memory"
            return entry
        ratios = self._ring.compare(entry, other)
        if entry.failed or other.failed or choose.is_clearly_slower(ratios):
            if not other.failed:
                self._ring.told[other.candidate] = beaten(median(ratios or [1.0]).value)
            return entry
        self._ring.told[entry.candidate] = "takes more memory and is no faster"
        return other

    def _with_more_threads(self, entry: Entry) -> Entry:
        for threads in choose.thread_counts(self._processors):
            better = self._if_it_pays(entry, replace(entry.candidate.options, threads=threads))
            if better is None:
                break
            entry = better
        slow = entry.candidate.options.threads > 1 and not self._is_quick(entry)
        if slow and entry.variant.engine.engine in _WITH_ARENA:
            spinning = replace(entry.candidate.options, spinning=True)
            return self._if_it_pays(entry, spinning) or entry
        return entry

    def _if_it_pays(self, entry: Entry, options: SessionOptions) -> Entry | None:
        other = self._ring.open(entry, options)
        if other is None:
            return None
        ratios = self._ring.compare(entry, other)
        if entry.failed or other.failed:
            return None
        found = median(ratios)
        if found.high >= 1:
            self._ring.told[other.candidate] = beaten(found.value, "no faster")
            return None
        self._ring.pace(entry, other)
        if not (entry.paced and other.paced) or entry.failed or other.failed:
            return None
        pays = choose.threads_pay(
            ratios,
            least_cpu_us=entry.cpu_us,
            cpu_us=other.cpu_us,
            keeps_limit=self._is_quick(entry),
        )
        if not pays:
            cost = other.cpu_us / max(entry.cpu_us, 1e-3)
            self._ring.told[other.candidate] = (
                f"{1 / found.value:.2f} times faster for {cost:.2f} times the processor time"
            )
            return None
        self._ring.told[entry.candidate] = beaten(1 / found.value)
        return other

    def _beyond_limits(self, entry: Entry) -> str | None:
        most_bytes = self._limits.max_memory_bytes
        taken_bytes = entry.opened.private_bytes
        if most_bytes is not None and taken_bytes > most_bytes:
            return f"takes {taken_bytes / 1e6:.1f} MB, the limit is {most_bytes / 1e6:.1f} MB"
        if not self._is_quick(entry):
            latency_ms = entry.latency.value / 1e3
            return f"takes {latency_ms:.3g} ms, the limit is {self._limits.max_latency_ms:g} ms"
        return None

    def _is_quick(self, entry: Entry) -> bool:
        most_ms = self._limits.max_latency_ms
        return most_ms is None or entry.latency.value <= 1e3 * most_ms


def beaten(ratio: float, otherwise: str = "no faster, and larger") -> str:
    """Say how much slower than the better one a candidate is."""
    return otherwise if ratio <= 1 + choose.TIE else f"{ratio:.2f} times slower"
