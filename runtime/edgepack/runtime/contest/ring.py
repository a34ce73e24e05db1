"""Where candidates are started, judged and timed, alone or two in turns."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from edgepack.bundle.contract import Variant
from edgepack.runtime.contest import choose
from edgepack.runtime.contest.entry import Entry
from edgepack.runtime.contest.values import Candidate, Place, Subject, SubjectError
from edgepack.runtime.contest.watch import Watch
from edgepack.runtime.options import SessionOptions

_FIRST_CALLS: Final = 25
_FIRST_BLOCKS: Final = 3
_FEWEST_PAIRS: Final = 3  # of a model so slow that its time is up before there are six
_EXTENSION: Final = 3.0
_OPENING: Final = 40  # inferences in the first blocks, about
_JUDGING: Final = 400  # inferences' worth of time for the golden samples, about
_PACED_CALLS: Final = 8
_PACE_S: Final = 0.02


class Ring:
    """Measures; decides nothing.

    Args:
        place: Where candidates run.
        watch: The time that is left.
        compare_s: Seconds for telling two apart.

    Attributes:
        told: What became of each candidate, in one line.
    """

    def __init__(self, place: Place, watch: Watch, compare_s: float) -> None:
        self._place = place
        self._watch = watch
        self._compare_s = compare_s
        self.told: dict[Candidate, str] = {}

    def prove(self, variant: Variant, candidate: Candidate, timeout_s: float) -> Entry:
        """Judge a candidate that was never tried.

        Raises:
            SubjectError: It cannot be loaded, gives wrong answers, crashes or hangs.
        """
        deadline = time.monotonic() + timeout_s
        with self._started(candidate, timeout_s) as subject:
            judged = subject.judge(timeout_s=_until(deadline))
            if not judged.passed:
                raise SubjectError(judged.reason or "wrong answers")
            entry = self._entry(variant, candidate, subject, _until(deadline))
            entry.judged = judged
        return entry

    def open(self, known: Entry, options: SessionOptions) -> Entry | None:
        """Load a known candidate's variant under other options; None if that fails.

        Nor is anything new begun when the time for measuring is up.
        """
        if not self._watch.measuring_left_s():
            return None
        candidate = replace(known.candidate, options=options)
        patience_s = self._watch.patience_s(known.start_s + known.latency.value * _OPENING / 1e6)
        try:
            with self._started(candidate, patience_s) as subject:
                return self._entry(known.variant, candidate, subject, patience_s)
        except SubjectError as exc:
            self.told[candidate] = str(exc)
            return None

    def compare(self, champion: Entry, challenger: Entry) -> list[float]:
        """Time two in turns: ratios of neighbouring blocks, challenger / champion.

        One that fails is marked; then there may be no ratios. Where there is no memory for both,
        or no time, the one ratio is that of what is known already.
        """
        both_bytes = champion.opened.private_bytes + challenger.opened.private_bytes
        known = [challenger.latency.value / champion.latency.value]
        if not self._watch.measuring_left_s() or not self._place.has_room(both_bytes):
            return known
        ratios: list[float] = []
        with contextlib.ExitStack() as stack:
            sides = []
            for entry in (champion, challenger):
                subject = self._start(entry, stack)
                if subject is None:
                    return []
                sides.append((entry, subject))
            started = time.monotonic()
            while not choose.is_decided(ratios) and self._watch.measuring_left_s():
                passed_s = time.monotonic() - started
                enough = (
                    choose.LEAST_PAIRS if passed_s < _EXTENSION * self._compare_s else _FEWEST_PAIRS
                )
                if passed_s > self._compare_s and len(ratios) >= enough:
                    break
                for entry, subject in sides if len(ratios) % 2 == 0 else sides[::-1]:
                    if not self._block(entry, subject):
                        return ratios
                ratios.append(challenger.blocks[-1].median_us / champion.blocks[-1].median_us)
        return ratios or known

    def pace(self, *entries: Entry) -> None:
        """Measure processor time at a sensor's pace, there and back again."""
        for entry in (*entries, *reversed(entries)):
            with contextlib.ExitStack() as stack:
                subject = self._start(entry, stack)
                if subject is not None:
                    self._pace(entry, subject)

    def finish(self, entry: Entry) -> None:
        """Judge a candidate if its options were not, and time it until its latency is known.

        When there is no time left, one that was judged stays as it is.
        """
        if entry.judged is not None and not self._watch.measuring_left_s():
            return
        with contextlib.ExitStack() as stack:
            subject = self._start(entry, stack)
            if subject is None:
                return
            with self._failing(entry):
                if entry.judged is None:
                    expected_s = _JUDGING * entry.latency.value / 1e6
                    entry.judged = subject.judge(timeout_s=self._watch.patience_s(expected_s))
                    if not entry.judged.passed:
                        raise SubjectError(entry.judged.reason or "wrong answers")
            end = time.monotonic() + self._compare_s
            while not entry.failed and not choose.is_steady(entry.blocks):
                if time.monotonic() > end or not self._watch.measuring_left_s():
                    break
                self._block(entry, subject)
            if not entry.failed and not entry.paced and self._watch.measuring_left_s():
                self._pace(entry, subject)

    def _entry(
        self, variant: Variant, candidate: Candidate, subject: Subject, timeout_s: float
    ) -> Entry:
        deadline = time.monotonic() + timeout_s
        first = subject.block(1, timeout_s=timeout_s)
        entry = Entry(candidate=candidate, variant=variant, opened=subject.opened, rough=[first])
        calls = min(_FIRST_CALLS, entry.block_calls)
        entry.rough = [
            subject.block(calls, timeout_s=_until(deadline)) for _ in range(_FIRST_BLOCKS)
        ]
        return entry

    def _start(self, entry: Entry, stack: contextlib.ExitStack) -> Subject | None:
        found: list[Subject] = []
        with self._failing(entry):
            patience_s = self._watch.patience_s(entry.start_s)
            found.append(stack.enter_context(self._started(entry.candidate, patience_s)))
        return found[0] if found else None

    def _block(self, entry: Entry, subject: Subject) -> bool:
        calls = entry.block_calls
        with self._failing(entry):
            patience_s = self._watch.patience_s(calls * entry.latency.value / 1e6)
            entry.blocks.append(subject.block(calls, timeout_s=patience_s))
        return not entry.failed

    def _pace(self, entry: Entry, subject: Subject) -> None:
        with self._failing(entry):
            expected_s = _PACED_CALLS * (_PACE_S + entry.latency.value / 1e6)
            patience_s = self._watch.patience_s(expected_s)
            entry.paced.append(subject.paced(_PACED_CALLS, _PACE_S, timeout_s=patience_s))

    @contextlib.contextmanager
    def _failing(self, entry: Entry) -> Iterator[None]:
        try:
            yield
        except SubjectError as exc:
            entry.failed = True
            self.told[entry.candidate] = str(exc)

    @contextlib.contextmanager
    def _started(self, candidate: Candidate, timeout_s: float) -> Iterator[Subject]:
        subject = self._place.start(candidate, timeout_s=timeout_s)
        try:
            yield subject
        finally:
            subject.close()


def _until(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
