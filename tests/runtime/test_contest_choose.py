"""What a contest decides from what it measured."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.runtime import SessionOptions
from edgepack.runtime.contest import choose
from edgepack.runtime.contest.values import Block, Candidate

SMALL = Candidate(variant="int8", size_bytes=100)
LARGE = Candidate(variant="fp32", size_bytes=400)


def block(median_us: float, fastest_us: float | None = None) -> Block:
    fastest = median_us if fastest_us is None else fastest_us
    return Block(median_us=median_us, fastest_us=fastest, calls=10)


def wins(ratios, champion, challenger, champion_bytes=0, challenger_bytes=0) -> bool:
    return choose.challenger_wins(
        ratios,
        champion,
        challenger,
        champion_bytes=champion_bytes,
        challenger_bytes=challenger_bytes,
    )


def noisy(true_ratio: float, count: int, spread: float = 0.02) -> list[float]:
    source = random.Random(count)
    return [true_ratio * source.lognormvariate(0, spread) for _ in range(count)]


def test_int8_that_is_six_times_slower_does_not_win():
    """Being a quarter of the size does not make up for it."""
    assert not wins(noisy(6.0, 6), LARGE, SMALL)
    assert choose.is_hopeless([block(10.0)], [block(60.0)])


def test_int8_that_is_faster_wins():
    """In either role."""
    assert wins(noisy(0.5, 6), LARGE, SMALL)
    assert not wins(noisy(2.0, 6), SMALL, LARGE)


def test_a_tie_goes_to_the_smaller_variant():
    """Intervals that hold 1 tell nothing of speed."""
    assert wins(noisy(1.0, 20), LARGE, SMALL)
    assert not wins(noisy(1.0, 20), SMALL, LARGE)


def test_a_tie_between_settings_goes_to_the_one_that_takes_less_memory():
    """Mapped weights are chosen only where inference is not slower."""
    copied = Candidate(variant="v", size_bytes=9, options=SessionOptions(repack=True))
    mapped = Candidate(variant="v", size_bytes=9, options=SessionOptions(repack=False))
    assert wins(noisy(1.0, 20), copied, mapped, champion_bytes=100, challenger_bytes=1)
    assert not wins(noisy(1.1, 20), copied, mapped, champion_bytes=100, challenger_bytes=1)


def test_equal_twins_are_told_apart_by_their_names():
    """So that the same device always chooses the same one."""
    a, b = (Candidate(variant=name, size_bytes=1) for name in "ab")
    assert not wins([1.0] * 6, a, b)
    assert wins([1.0] * 6, b, a)


@given(st.floats(0.8, 1.25), st.integers(0, 1000))
def test_the_winner_is_never_more_than_a_twentieth_slower(true_ratio, seed):
    """Whatever the roles and the sizes, on a machine whose blocks differ by 2 %."""
    source = random.Random(seed)
    ratios: list[float] = []
    while not choose.is_decided(ratios):
        ratios.append(true_ratio * source.lognormvariate(0, 0.02))
    for champion, challenger in ((LARGE, SMALL), (SMALL, LARGE)):
        slower = true_ratio if wins(ratios, champion, challenger) else 1 / true_ratio
        assert slower <= 1 + choose.RESOLUTION


def test_a_clear_loser_is_let_go_early():
    """After three pairs; a near one is looked at longer, and never for ever."""
    assert choose.is_decided([1.6, 1.7, 1.8])
    assert not choose.is_decided([1.1, 1.2, 1.3])
    assert not choose.is_decided([0.7, 1.4] * 10)
    assert choose.is_decided([0.7, 1.4] * 30)


def test_a_busy_moment_does_not_make_a_variant_hopeless():
    """Its fastest inference is looked at too."""
    assert not choose.is_hopeless([block(10.0, 9.0)], [block(60.0, 9.5)])


def test_a_latency_is_steady_when_it_is_known_to_five_percent():
    """Six blocks at least."""
    assert not choose.is_steady([block(10.0)] * 5)
    assert choose.is_steady([block(10.0)] * 6)
    assert not choose.is_steady([block(5.0), block(15.0)] * 4)
    assert choose.is_steady([block(5.0), block(15.0)] * 30)


@pytest.mark.parametrize(
    ("ratios", "cpu_us", "keeps_limit", "expected"),
    [
        (noisy(0.6, 8), 104.0, True, True),  # nearly twice as fast for nothing
        (noisy(0.6, 8), 150.0, True, False),  # a device has other work
        (noisy(0.6, 8), 150.0, False, True),  # but must be in time
        (noisy(1.0, 8), 100.0, False, False),  # which this does not help
    ],
)
def test_threads_are_taken_where_they_cost_little_or_are_needed(
    ratios, cpu_us, keeps_limit, expected
):
    """Faster beyond doubt, and cheap at a sensor's pace, or the only way to keep the limit."""
    assert expected == choose.threads_pay(
        ratios, least_cpu_us=100.0, cpu_us=cpu_us, keeps_limit=keeps_limit
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(100 << 20, 2 << 20, True), (1 << 20, 0, True), (1 << 19, 0, False), (100 << 20, 97 << 20, 0)],
)
def test_memory_is_saved_from_a_mebibyte_and_a_twentieth_on(before, after, expected):
    """Less is noise of the allocator."""
    assert bool(expected) == choose.saves_memory(before, after)
