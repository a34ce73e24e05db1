"""The contest: every variant proves that it is right, then the right ones are timed in turns.

    parity of all → the clear losers go → pairs → settings of the winner → judged once more

At most two candidates are alive at the same time, whatever the number of variants. What measuring
does not finish in its time leaves a rougher choice, never none: only parity can refuse a variant,
and the limits that were asked for.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from edgepack.bundle import Bundle
from edgepack.bundle.contract import Contract, Variant
from edgepack.monitor.median import median
from edgepack.runtime.contest import choose
from edgepack.runtime.contest.entry import Entry
from edgepack.runtime.contest.processes import ForkedPlace
from edgepack.runtime.contest.ring import Ring
from edgepack.runtime.contest.tune import Tuner, beaten
from edgepack.runtime.contest.values import (
    Candidate,
    ContestLimits,
    ContestReport,
    Place,
    SubjectError,
    Tried,
)
from edgepack.runtime.contest.watch import Watch
from edgepack.runtime.engines import engine_named
from edgepack.runtime.errors import EngineError
from edgepack.runtime.options import SessionOptions

_WITH_MAPPING: Final = frozenset({"onnxruntime"})


def run_contest(bundle: Bundle, limits: ContestLimits) -> ContestReport:
    """Choose the variant and the settings of a bundle, on this device.

    Forks: only for a process that has no other threads.

    Raises:
        TensorFileError: The golden samples are broken.
    """
    place = ForkedPlace(bundle, max_memory_bytes=limits.max_memory_bytes)
    try:
        processors = len(os.sched_getaffinity(0))
        return Contest(bundle.contract, place, limits, processors=processors).run()
    finally:
        place.close()


class Contest:
    """Chooses the variant and the settings of one bundle.

    Args:
        contract: The bundle's.
        place: Where candidates run.
        limits: What the contest and the model may take.
        processors: How many this device has for an inference.
    """

    def __init__(
        self, contract: Contract, place: Place, limits: ContestLimits, *, processors: int
    ) -> None:
        self._contract = contract
        self._limits = limits
        self._watch = Watch(limits.total_s)
        self._ring = Ring(place, self._watch, limits.compare_s)
        self._tuner = Tuner(self._ring, limits, processors=processors)

    def run(self) -> ContestReport:
        """Try everything.

        Raises:
            TensorFileError: The golden samples are broken.
        """
        entries = self._prove_all()
        passed = len({entry.candidate.variant for entry in entries})
        while entries:
            winner = self._fastest(entries)
            entries = [entry for entry in entries if entry is not winner and not entry.failed]
            chosen = None if winner.failed else self._tuner.tune(winner)
            if chosen is None:
                continue
            self._ring.told[chosen.candidate] = "chosen"
            figures = chosen.figures() | {
                "variants_tried": float(len(self._contract.variants)),
                "variants_passed": float(passed),
                "self_test_s": self._watch.passed_s(),
            }
            return ContestReport(chosen=chosen.candidate, figures=figures, tried=self._told())
        return ContestReport(chosen=None, tried=self._told())

    def _prove_all(self) -> list[Entry]:
        candidates = [(v, c) for v in self._contract.variants for c in self._first_candidates(v)]
        entries = []
        for index, (variant, candidate) in enumerate(candidates):
            share_s = self._watch.left_s() / (len(candidates) - index)
            if self._limits.variant_s is not None:
                share_s = min(share_s, self._limits.variant_s)
            try:
                entries.append(self._ring.prove(variant, candidate, share_s))
            except SubjectError as exc:
                self._ring.told[candidate] = str(exc)
        return entries

    def _first_candidates(self, variant: Variant) -> Iterator[Candidate]:
        base = Candidate(variant=variant.name, size_bytes=variant.size_bytes)
        try:
            engine_named(variant.engine.engine).check(variant)
        except EngineError as exc:
            self._ring.told[base] = str(exc)
            return
        if len(variant.files) > 1 and variant.engine.engine in _WITH_MAPPING:
            yield replace(base, options=SessionOptions(repack=False))
            yield replace(base, options=SessionOptions(repack=True))
        else:
            yield base

    def _fastest(self, entries: Sequence[Entry]) -> Entry:
        """The entry that no other one beats; those that were beaten may come again later."""
        told = self._ring.told
        ranked = sorted(entries, key=lambda entry: entry.latency.value)
        champion = ranked[0]
        for challenger in ranked[1:]:
            if choose.is_hopeless(champion.rough, challenger.rough):
                ratio = challenger.latency.value / champion.latency.value
                told[challenger.candidate] = f"{ratio:.1f} times slower"
                continue
            ratios = self._ring.compare(champion, challenger)
            if champion.failed:
                champion = challenger
            elif not challenger.failed:
                found = median(ratios).value
                wins = choose.challenger_wins(
                    ratios,
                    champion.candidate,
                    challenger.candidate,
                    champion_bytes=champion.opened.private_bytes,
                    challenger_bytes=challenger.opened.private_bytes,
                )
                loser = champion if wins else challenger
                told[loser.candidate] = beaten(1 / found if wins else found)
                champion = challenger if wins else champion
        return champion

    def _told(self) -> tuple[Tried, ...]:
        return tuple(Tried(candidate=key, result=text) for key, text in self._ring.told.items())
