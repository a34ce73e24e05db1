"""How well a median is known."""

import random

import pytest

from edgepack.monitor.median import median


def test_a_median_has_an_interval_that_holds_it_as_often_as_said():
    """95 % of intervals from 100 values hold the true median."""
    source = random.Random(0)
    held = 0
    for _ in range(1000):
        found = median([source.random() for _ in range(100)])
        assert found.low <= found.value <= found.high
        held += found.low <= 0.5 <= found.high

    assert 930 <= held <= 980


def test_the_spread_is_half_the_interval_relative_to_the_median():
    """Few values tell little; none tell nothing."""
    assert 0.5 == median([1.0, 2.0, 3.0]).spread
    assert 0.0 == median([7.0]).spread
    assert float("inf") == median([0.0, 0.0]).spread
    with pytest.raises(IndexError):
        median([])
