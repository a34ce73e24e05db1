"""Whether a version on probation has proven itself: a pure decision from what was counted.

A version goes only for what chance does not explain: bounds of intervals are compared, never
single figures, so that neither a quiet device nor noise rolls anything back. The intervals are
Wilson's for shares, R. G. Newcombe's hybrid score interval for the difference of two shares
("Interval estimation for the difference between independent proportions", Statistics in Medicine
17, 1998, method 10), and order statistics for the median of the latency. Errors of callers are
not among the figures at all.

It does NOT count, wait or roll back; that is `probation.py`.
"""

import math
from enum import StrEnum

from edgepack.agent.config import ProbationConfig
from edgepack.monitor.quality import wilson_interval
from edgepack.trust.values import dataclass

# Looking after every answer finds something "significant" sooner or later: before the end only
# the overwhelming counts.
_AT_THE_END = 0.95
_EARLY = 0.999
_EARLY_FAILURES = 3
_Z_AT_THE_END = 1.959964
_Z_EARLY = 3.290527


class Outcome(StrEnum):
    """What follows."""

    WAIT = "wait"
    CONFIRM = "confirm"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The median of the answers' latency in ms, and the bounds of its 95 % interval."""

    count: int
    median_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How a version did since it began to answer.

    Attributes:
        requests: Answered requests.
        failures: Requests that its engine failed on.
        latency: Of the answers, or None without any.
        truths: Truths of a trusted source that met their answer.
        right: How many of those answers were right; None for a regression.
        mae, rmse: For a regression, the errors of the answers; None without truths.
    """

    requests: int = 0
    failures: int = 0
    latency: Latency | None = None
    truths: int = 0
    right: int | None = None
    mae: float | None = None
    rmse: float | None = None


def together(one: Figures, other: Figures) -> Figures:
    """What two starts of the agent counted of one version.

    Medians do not add up: the latency is that of the longer series.

    >>> together(Figures(requests=60, failures=1), Figures(requests=50)).requests
    110
    """
    truths = one.truths + other.truths
    rights = [each.right for each in (one, other) if each.right is not None]
    latencies = [each.latency for each in (one, other) if each.latency is not None]
    return Figures(
        requests=one.requests + other.requests,
        failures=one.failures + other.failures,
        latency=max(latencies, key=lambda latency: latency.count, default=None),
        truths=truths,
        right=sum(rights) if rights else None,
        mae=_mean((one.mae, one.truths), (other.mae, other.truths)),
        rmse=_root(_mean((_square(one.rmse), one.truths), (_square(other.rmse), other.truths))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows, and why: `reason` for machines, `detail` for people."""

    outcome: Outcome
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Certainty:
    confidence: float
    z: float
    failures: int


_FINAL_CERTAINTY = _Certainty(_AT_THE_END, _Z_AT_THE_END, 1)
_EARLY_CERTAINTY = _Certainty(_EARLY, _Z_EARLY, _EARLY_FAILURES)


def judge(
    new: Figures, old: Figures | None, limits: ProbationConfig, *, time_is_up: bool
) -> Verdict:
    """Decide.

    Args:
        new: The version on probation.
        old: The version before it, if it was proven and its figures are known.
        limits: What is demanded.
        time_is_up: Whether the time of the probation has passed.

    Returns:
        WAIT only while the time is not up.

    >>> limits = ProbationConfig(requests=100, max_error_rate=0.01)
    >>> judge(Figures(requests=99, failures=1), None, limits, time_is_up=True).outcome.value
    'confirm'
    >>> judge(Figures(requests=80, failures=20), None, limits, time_is_up=True).reason
    'probation_errors'
    """
    is_enough = new.requests >= limits.requests and new.truths >= limits.truths
    certainty = _FINAL_CERTAINTY if time_is_up or is_enough else _EARLY_CERTAINTY
    for reason, find in (
        ("probation_errors", _too_many_errors),
        ("probation_latency", _too_slow),
        ("probation_quality", _too_often_wrong),
    ):
        detail = find(new, old, limits, certainty)
        if detail:
            return Verdict(outcome=Outcome.ROLL_BACK, reason=reason, detail=detail)
    if not time_is_up and not is_enough:
        return Verdict(outcome=Outcome.WAIT)
    return Verdict(outcome=Outcome.CONFIRM, detail=_unproven(new, limits))


def _too_many_errors(
    new: Figures, old: Figures | None, limits: ProbationConfig, certainty: _Certainty
) -> str:
    total = new.requests + new.failures
    if new.failures < certainty.failures:
        return ""
    low, _ = wilson_interval(new.failures, total, certainty.confidence)
    allowed, of_what = limits.max_error_rate, ""
    if old is not None and old.failures:
        old_low, old_high = wilson_interval(old.failures, old.requests + old.failures)
        if old_low > allowed:  # the version before surely failed as well: not this one's fault
            allowed, of_what = old_high, " of the version before"
    if low <= allowed:
        return ""
    return (
        f"{new.failures} of {total} requests failed on probation: at least {low:.2%}, "
        f"allowed {allowed:.2%}{of_what}"
    )


def _too_slow(
    new: Figures, old: Figures | None, limits: ProbationConfig, certainty: _Certainty
) -> str:
    latency = new.latency
    if latency is None or latency.count < limits.min_samples:
        return ""
    low = _widened(latency.median_ms, latency.low_ms, certainty)
    if limits.max_latency_ms is not None and low > limits.max_latency_ms:
        return (
            f"median latency of {latency.count} requests is {latency.median_ms:.3g} ms, "
            f"allowed {limits.max_latency_ms:g} ms"
        )
    before = old.latency if old is not None else None
    if before is None or before.count < limits.min_samples:
        return ""
    allowed = limits.max_latency_factor * _widened(before.median_ms, before.high_ms, certainty)
    if low <= allowed or low - before.high_ms <= limits.latency_slack_ms:
        return ""
    return (
        f"median latency of {latency.count} requests is {latency.median_ms:.3g} ms, "
        f"{latency.median_ms / before.median_ms:.1f} times the {before.median_ms:.3g} ms of the "
        f"version before, allowed {limits.max_latency_factor:g} times"
    )


def _too_often_wrong(
    new: Figures, old: Figures | None, limits: ProbationConfig, certainty: _Certainty
) -> str:
    if new.truths < limits.min_truths:
        return ""
    before = old if old is not None and old.truths >= limits.min_truths else None
    if new.right is not None:
        return _less_accurate(new, new.right, before, limits, certainty)
    return _larger_errors(new, before, limits, certainty)


def _less_accurate(
    new: Figures, right: int, old: Figures | None, limits: ProbationConfig, certainty: _Certainty
) -> str:
    _, high = wilson_interval(right, new.truths, certainty.confidence)
    share = right / new.truths
    if limits.min_accuracy is not None and high < limits.min_accuracy:
        return (
            f"{right} of {new.truths} answers were right: at most {high:.3f}, "
            f"demanded {limits.min_accuracy:g}"
        )
    if old is None or old.right is None:
        return ""
    old_share = old.right / old.truths
    old_low, _ = wilson_interval(old.right, old.truths, certainty.confidence)
    drop = old_share - share
    least = drop - math.sqrt((old_share - old_low) ** 2 + (high - share) ** 2)
    if least <= limits.max_accuracy_drop:
        return ""
    return (
        f"{share:.3f} of {new.truths} answers were right, {old_share:.3f} of the version before: "
        f"at least {least:.3f} less, allowed {limits.max_accuracy_drop:g}"
    )


def _larger_errors(
    new: Figures, old: Figures | None, limits: ProbationConfig, certainty: _Certainty
) -> str:
    if new.mae is None:
        return ""
    low = new.mae - certainty.z * _standard_error(new)
    if limits.max_mae is not None and low > limits.max_mae:
        return (
            f"mean absolute error of {new.truths} answers is {new.mae:.4g}, "
            f"allowed {limits.max_mae:g}"
        )
    if old is None or old.mae is None:
        return ""
    high = old.mae + certainty.z * _standard_error(old)
    if low <= limits.max_mae_factor * high:
        return ""
    return (
        f"mean absolute error of {new.truths} answers is {new.mae:.4g}, {old.mae:.4g} of the "
        f"version before, allowed {limits.max_mae_factor:g} times"
    )


def _standard_error(figures: Figures) -> float:
    """Of the mean absolute error, from the spread of the absolute errors."""
    mae, rmse = figures.mae or 0.0, figures.rmse or 0.0
    return math.sqrt(max(0.0, rmse * rmse - mae * mae) / figures.truths)


def _mean(*parts: tuple[float | None, int]) -> float | None:
    known = [(value, count) for value, count in parts if value is not None and count]
    if not known:
        return None
    return sum(value * count for value, count in known) / sum(count for _, count in known)


def _square(value: float | None) -> float | None:
    return None if value is None else value * value


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def _widened(middle: float, edge: float, certainty: _Certainty) -> float:
    """A bound of a 95 % interval as one of the wanted certainty, as if it were normal."""
    return middle + (edge - middle) * certainty.z / _Z_AT_THE_END


def _unproven(new: Figures, limits: ProbationConfig) -> str:
    if not new.requests:
        return "unexercised: no request during probation"
    if new.truths < limits.truths:
        return f"quality unproven: {new.truths} of {limits.truths} truths during probation"
    return ""
