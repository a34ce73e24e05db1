"""The verdict of a probation."""

import doctest
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.agent.config import ProbationConfig
from edgepack.agent.install import judge as judge_module
from edgepack.agent.install import tries
from edgepack.agent.install.judge import Figures, Latency, Outcome, judge, together
from edgepack.monitor import LatencyHistogram

LIMITS = ProbationConfig()
COUNTS = st.integers(0, 5000)


def latency(median_ms: float, count: int = 200, spread: float = 0.05) -> Latency:
    return Latency(
        count=count,
        median_ms=median_ms,
        low_ms=median_ms * (1 - spread),
        high_ms=median_ms * (1 + spread),
    )


@st.composite
def figures(draw) -> Figures:
    medians = st.floats(0.001, 10_000)
    spreads = st.floats(0, 0.9)
    regression = draw(st.booleans())
    truths = draw(COUNTS)
    mae = draw(st.floats(0, 1e6)) if regression and truths else None
    return Figures(
        requests=draw(COUNTS),
        failures=draw(COUNTS),
        latency=draw(
            st.none() | st.builds(latency, medians, count=st.integers(1, 5000), spread=spreads)
        ),
        truths=truths,
        right=None if regression else draw(st.integers(0, truths)),
        mae=mae,
        rmse=None if mae is None else mae * draw(st.floats(1, 10)),
    )


BOUNDS = st.builds(
    ProbationConfig,
    requests=st.integers(1, 1000),
    truths=st.integers(0, 100),
    max_error_rate=st.floats(0, 1),
    max_latency_factor=st.floats(1, 10),
    max_latency_ms=st.none() | st.floats(0.01, 1000),
    max_accuracy_drop=st.floats(0, 1),
    min_accuracy=st.none() | st.floats(0, 1),
    max_mae=st.none() | st.floats(0.01, 1e6),
    max_mae_factor=st.floats(1, 10),
)


@given(figures(), st.none() | figures(), BOUNDS, st.booleans())
def test_every_probation_ends_with_the_time(new, old, limits, time_is_up):
    """With the time up there is a verdict, and a rollback always has a reason and figures."""
    verdict = judge(new, old, limits, time_is_up=time_is_up)
    assert (verdict.outcome is Outcome.WAIT) <= (not time_is_up)
    is_rollback = verdict.outcome is Outcome.ROLL_BACK
    assert is_rollback == bool(verdict.reason)
    assert is_rollback <= bool(verdict.detail)


@given(figures(), BOUNDS, st.booleans())
def test_no_version_goes_for_being_like_the_one_before(figures, limits, time_is_up):
    """A version that does exactly what the last one did is no worse in any respect."""
    relative = replace(limits, max_latency_ms=None, min_accuracy=None, max_mae=None)
    alike = replace(figures, failures=0)
    verdict = judge(alike, alike, relative, time_is_up=time_is_up)
    assert "" == verdict.reason


@given(figures(), st.none() | figures(), BOUNDS, st.integers(1, 500))
def test_more_failures_never_help(new, old, limits, more):
    """What is rolled back for its errors is rolled back for more of them."""
    before = judge(new, old, limits, time_is_up=True)
    after = judge(replace(new, failures=new.failures + more), old, limits, time_is_up=True)
    assert (before.reason == "probation_errors") <= (after.reason == "probation_errors")


@given(figures(), st.none() | figures(), BOUNDS)
def test_truths_that_are_few_or_not_trusted_decide_nothing(new, old, limits):
    """Quality needs enough trusted truths."""
    few = replace(new, truths=0, right=None, mae=None, rmse=None)
    assert "probation_quality" != judge(few, old, limits, time_is_up=True).reason


@given(st.integers(0, 49), st.floats(1, 10_000), st.floats(0.001, 1))
def test_few_answers_say_nothing_of_latency(count, slow_ms, fast_ms):
    """A quiet device rolls nothing back for one slow answer."""
    new = Figures(requests=count, latency=latency(slow_ms, count=count))
    old = Figures(requests=1000, latency=latency(fast_ms))
    assert Outcome.CONFIRM is judge(new, old, LIMITS, time_is_up=True).outcome


def test_nothing_asked_is_confirmed_and_says_so():
    """Unexercised is no failure, and no secret."""
    verdict = judge(Figures(), None, LIMITS, time_is_up=True)
    assert (Outcome.CONFIRM, True) == (verdict.outcome, "unexercised" in verdict.detail)


@pytest.mark.parametrize(
    ("requests", "failures", "time_is_up", "expected"),
    [
        (99, 0, False, Outcome.WAIT),
        (100, 0, False, Outcome.CONFIRM),
        (99, 2, True, Outcome.CONFIRM),  # chance explains two of a hundred at 1 %
        (96, 5, False, Outcome.ROLL_BACK),  # and five it does not, nor does it need the end
        (0, 1, True, Outcome.ROLL_BACK),  # it never answered
        (5, 1, False, Outcome.WAIT),  # one failure among the first few is waited out
        (0, 3, False, Outcome.ROLL_BACK),
    ],
)
def test_errors(requests, failures, time_is_up, expected):
    """The bound of the interval decides, not the rate."""
    new = Figures(requests=requests, failures=failures)
    assert expected is judge(new, None, LIMITS, time_is_up=time_is_up).outcome


def test_errors_that_the_version_before_had_as_well():
    """A device whose sensor makes every model fail keeps the new one."""
    old = Figures(requests=900, failures=100)
    same = Figures(requests=90, failures=10)
    worse = Figures(requests=60, failures=40)
    assert Outcome.CONFIRM is judge(same, old, LIMITS, time_is_up=True).outcome
    assert "probation_errors" == judge(worse, old, LIMITS, time_is_up=True).reason


@pytest.mark.parametrize(
    ("new_ms", "old_ms", "reason"),
    [
        (25.0, 10.0, "probation_latency"),
        (19.0, 10.0, ""),
        (0.9, 0.1, ""),  # nine times as long, and nobody can tell
        (5.0, 0.1, "probation_latency"),
    ],
)
def test_latency_against_the_version_before(new_ms, old_ms, reason):
    """Twice as long is too long, if it is longer by more than the slack."""
    new, old = (Figures(requests=200, latency=latency(ms)) for ms in (new_ms, old_ms))
    assert reason == judge(new, old, LIMITS, time_is_up=True).reason


def test_latency_of_a_first_install():
    """Without a version before, only an absolute limit counts."""
    new = Figures(requests=200, latency=latency(30.0))
    assert "" == judge(new, None, LIMITS, time_is_up=True).reason
    limits = replace(LIMITS, max_latency_ms=20.0)
    assert "probation_latency" == judge(new, None, limits, time_is_up=True).reason


@pytest.mark.parametrize(
    ("right", "truths", "reason"),
    [(80, 100, "probation_quality"), (93, 100, ""), (12, 15, "")],
)
def test_accuracy_against_the_version_before(right, truths, reason):
    """It goes when even the kindest reading of both intervals is a loss."""
    new = Figures(requests=200, truths=truths, right=right)
    old = Figures(requests=1000, truths=500, right=480)
    assert reason == judge(new, old, LIMITS, time_is_up=True).reason


def test_accuracy_of_a_first_install():
    """An absolute limit needs no version before."""
    new = Figures(requests=200, truths=100, right=60)
    assert "" == judge(new, None, LIMITS, time_is_up=True).reason
    limits = replace(LIMITS, min_accuracy=0.8)
    assert "probation_quality" == judge(new, None, limits, time_is_up=True).reason


@pytest.mark.parametrize(("mae", "reason"), [(2.0, "probation_quality"), (1.1, "")])
def test_errors_of_a_regression(mae, reason):
    """The mean absolute error is compared with its standard error."""
    new = Figures(requests=200, truths=100, mae=mae, rmse=mae * 1.2)
    old = Figures(requests=200, truths=100, mae=1.0, rmse=1.2)
    assert reason == judge(new, old, LIMITS, time_is_up=True).reason


def test_truths_that_are_waited_for():
    """Enough answers are not enough where truths are demanded, until the time is up."""
    limits = replace(LIMITS, truths=30)
    new = Figures(requests=500, truths=10, right=10)
    assert Outcome.WAIT is judge(new, None, limits, time_is_up=False).outcome
    verdict = judge(new, None, limits, time_is_up=True)
    assert (Outcome.CONFIRM, "10 of 30 truths" in verdict.detail) == (verdict.outcome, True)


@given(st.lists(st.integers(1, 10**9), min_size=6, max_size=300))
def test_the_interval_of_a_median_encloses_it(latencies_ns):
    """Within the histogram's own error."""
    histogram = LatencyHistogram()
    for ns in latencies_ns:
        histogram.record(ns)
    low, high = histogram.median_interval()
    assert low <= histogram.quantile(0.5) <= high
    assert all(math.isfinite(edge) for edge in (low, high))


@pytest.mark.parametrize("module", [judge_module, tries])
def test_the_examples_are_true(module):
    """Each printed result is what the code gives."""
    failed, tried = doctest.testmod(module)
    assert (0, True) == (failed, tried > 0)


@given(figures(), figures())
def test_two_starts_are_counted_together(one, other):
    """Counts add up, means lie between, and the latency is that of the longer series."""
    both = together(one, other)
    assert (one.requests + other.requests, one.failures + other.failures) == (
        both.requests,
        both.failures,
    )
    assert one.truths + other.truths == both.truths
    counts = [each.latency.count for each in (one, other) if each.latency]
    assert max(counts, default=None) == (both.latency and both.latency.count)
    for name in ("mae", "rmse"):
        known = [getattr(each, name) for each in (one, other) if getattr(each, name) is not None]
        found = getattr(both, name)
        assert (found is None) == (not known)
        if known:
            assert min(known) - 1e-6 <= found <= max(known) * (1 + 1e-9) + 1e-6
