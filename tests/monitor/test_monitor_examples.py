"""The examples in docstrings are true, and chi-square agrees with scipy."""

import doctest
import importlib

import numpy as np
import pytest

from edgepack.monitor.chi_square import upper_tail

MODULES = ("chi_square", "disagreement", "drift", "latency", "median", "quality", "reference")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name):
    """Each printed result is what the code gives."""
    failed, tried = doctest.testmod(importlib.import_module(f"edgepack.monitor.{name}"))

    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("degrees", range(1, 30))
def test_the_upper_tail_is_that_of_scipy(degrees):
    """From the centre to a probability of 1e-80."""
    stats = pytest.importorskip("scipy.stats")
    for x in np.linspace(0, 400, 100):
        expected = stats.chi2.sf(x, degrees)
        assert expected == pytest.approx(upper_tail(float(x), degrees), rel=1e-10, abs=1e-300)
