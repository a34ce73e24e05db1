"""Does this device run the model as the original did? Golden samples in, a verdict out."""

import math
from time import perf_counter_ns
from typing import Final

import numpy as np

from edgepack.bundle.contract import Parity
from edgepack.monitor.latency import LatencyHistogram
from edgepack.runtime.golden import Golden
from edgepack.runtime.model import Model
from edgepack.runtime.parity import Comparison, compare
from edgepack.runtime.tensors import Array
from edgepack.trust.values import dataclass

SINGLE_ROWS: Final = 32
_FALSE_REJECTION_RATE: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenVerdict:
    """How a model answers the golden samples.

    Attributes:
        passed: Whether the model may serve.
        reason: One line that says why not, or None.
        rows: How many samples were compared.
        parity: The comparison with the original model's outputs.
    """

    passed: bool
    reason: str | None
    rows: int
    parity: Parity

    @property
    def figures(self) -> dict[str, float]:
        """Every figure by name, for a report."""
        return {
            **self.parity.figures,
            self.parity.metric: self.parity.value,
            "bound": self.parity.bound,
            "rows": float(self.rows),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestResult:
    """What came of the self-test.

    Attributes:
        passed: Whether the model may serve.
        reason: One line that says why not, or None.
        rows: How many samples were compared.
        parity: The comparison with the original model's outputs.
        p50_ms, p99_ms: Latency of single samples on this device, in milliseconds.
    """

    passed: bool
    reason: str | None
    rows: int
    parity: Parity
    p50_ms: float
    p99_ms: float

    @property
    def figures(self) -> dict[str, float]:
        """Every figure by name, for a report."""
        return {
            **self.parity.figures,
            self.parity.metric: self.parity.value,
            "bound": self.parity.bound,
            "rows": float(self.rows),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
        }


def run_selftest(model: Model, golden: Golden) -> SelfTestResult:
    """Judge a model by the golden samples, and time the first 32 one at a time.

    Raises:
        InputError, EngineError, ParityError: As `judge`.
    """
    verdict = judge(model, golden)
    latency = LatencyHistogram()
    for single in singles(golden):  # `judge` warmed up
        started = perf_counter_ns()
        model.predict(single)
        latency.record(perf_counter_ns() - started)
    return SelfTestResult(
        passed=verdict.passed,
        reason=verdict.reason,
        rows=verdict.rows,
        parity=verdict.parity,
        p50_ms=latency.quantile(0.5) / 1e6,
        p99_ms=latency.quantile(0.99) / 1e6,
    )


def judge(model: Model, golden: Golden) -> GoldenVerdict:
    """Answer the golden samples as one batch, and the first 32 one at a time as it will serve.

    Float variants are held to the contract's tolerances. Other variants are held to the bound
    that is stored with them; with few samples one chance disagreement weighs much, so that as
    many are allowed as happen once in a thousand times at that bound.

    Raises:
        InputError: The golden inputs do not meet the contract: the bundle contradicts itself.
        EngineError: The engine failed.
        ParityError: The model's outputs are not of the kinds that the golden samples have.
    """
    batch = model.predict(golden.inputs)
    answers = [model.predict(single) for single in singles(golden)]
    one_by_one = {
        name: np.concatenate([answer[name] for answer in answers]) for name in golden.outputs
    }
    whole = _compare(model, golden.outputs, batch, golden.truth)
    single_rows = _compare(model, _rows(golden.outputs, 0, len(answers)), one_by_one, None)
    reason = whole.reason
    if whole.passed and not single_rows.passed:
        reason = f"one sample at a time, {single_rows.reason}"
    return GoldenVerdict(
        passed=reason is None, reason=reason, rows=golden.rows, parity=whole.parity
    )


def singles(golden: Golden) -> list[dict[str, Array]]:
    """The first 32 samples, one at a time."""
    return [_rows(golden.inputs, row, row + 1) for row in range(min(golden.rows, SINGLE_ROWS))]


def device_bound(stored: Parity, rows: int) -> float:
    """The bound for this many samples, from the bound that the converter stored.

    A fraction of rows (agreement, within_tolerance) is counted in whole rows, and the stored
    bound held for many more of them than a self-test has. The bound here allows as many failing
    rows as a variant exactly at the stored bound has more of only once in 1,000 self-tests
    (binomial). A variant that must be perfect must be so here too; other metrics stay as stored.

    >>> stored = Parity(rows=500, metric="agreement", value=1.0, bound=0.99)
    >>> round(64 * (1 - device_bound(stored, 64)))
    4
    """
    if stored.metric not in {"agreement", "within_tolerance"}:
        return stored.bound
    failing = max(0.0, 1 - stored.bound)
    allowed = 0
    cumulative = (1 - failing) ** rows
    while cumulative < 1 - _FALSE_REJECTION_RATE:
        allowed += 1
        cumulative += (
            math.comb(rows, allowed) * failing**allowed * (1 - failing) ** (rows - allowed)
        )
    return 1 - allowed / rows


def _compare(
    model: Model, expected: dict[str, Array], got: dict[str, Array], truth: Array | None
) -> Comparison:
    rows = next(iter(expected.values())).shape[0]
    variant = model.variant
    return compare(
        model.contract.task,
        expected,
        got,
        tolerances=model.contract.tolerances,
        precision=variant.precision,
        truth=truth,
        class_names=model.contract.class_names,
        bound=device_bound(variant.parity, rows),
    )


def _rows(arrays: dict[str, Array], begin: int, end: int) -> dict[str, Array]:
    return {name: array[begin:end] for name, array in arrays.items()}
