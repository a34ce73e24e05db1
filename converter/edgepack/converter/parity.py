"""Compares a candidate with the original, with the runtime that devices use."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgepack.bundle.contract import Nonfinite
from edgepack.converter.draft import Candidate, Draft, MemorySource
from edgepack.converter.errors import one_line
from edgepack.converter.match import narrow
from edgepack.runtime import load
from edgepack.runtime.errors import EngineError, InputError, ParityError
from edgepack.runtime.parity import Comparison, compare
from edgepack.runtime.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Rows that calibration never saw.

    Attributes:
        inputs: By contract name, as the original got them.
        expected: The original's outputs.
        truth: What was really so, or None.
    """

    inputs: dict[str, Array]
    expected: dict[str, Array]
    truth: Array | None

    @property
    def rows(self) -> int:
        """How many."""
        return next(iter(self.expected.values())).shape[0]

    def without(self, output: str) -> "HeldOut":
        """The same rows without one of the outputs."""
        kept = {name: array for name, array in self.expected.items() if name != output}
        return replace(self, expected=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The comparison, or why there is none."""

    comparison: Comparison | None
    reason: str | None

    @property
    def passed(self) -> bool:
        """Whether the candidate may be packed."""
        return self.comparison is not None and self.comparison.passed


def judge(draft: Draft, candidate: Candidate, held_out: HeldOut) -> Judgement:
    """Run a candidate on the held-out rows and compare it with the original."""
    try:
        got = answers_of(draft, candidate, held_out.inputs)
        comparison = compare(
            draft.task,
            held_out.expected,
            got,
            tolerances=draft.tolerances,
            precision=candidate.precision,
            truth=held_out.truth,
            class_names=draft.class_names,
        )
    except (EngineError, InputError, ParityError) as exc:
        return Judgement(comparison=None, reason=one_line(exc))
    return Judgement(comparison=comparison, reason=comparison.reason)


def takes_nan(
    draft: Draft, candidate: Candidate, probe: Mapping[str, Array], expected: Mapping[str, Array]
) -> bool:
    """Tell whether a candidate answers rows with NaN as the original does."""
    lenient = draft.with_nonfinite(Nonfinite.NAN)
    try:
        comparison = compare(
            draft.task,
            expected,
            answers_of(lenient, candidate, probe),
            tolerances=draft.tolerances,
            precision=candidate.precision,
            class_names=draft.class_names,
        )
    except (EngineError, InputError, ParityError):
        return False
    return comparison.passed


def answers_of(draft: Draft, candidate: Candidate, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What a candidate answers, by the runtime that devices use.

    Raises:
        EngineError: The engine cannot run the file.
        InputError: The inputs do not meet the draft.
    """
    source = MemorySource(contract=draft.contract([candidate.variant()]), files=candidate.files)
    with load(source) as model, np.errstate(over="ignore"):
        return model.predict(narrow(draft.inputs, inputs))
