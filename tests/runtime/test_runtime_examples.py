"""The examples in docstrings are true."""

import doctest
import importlib

import pytest

MODULES = (
    "edgepack.runtime.affine",
    "edgepack.runtime.figures",
    "edgepack.runtime.labels",
    "edgepack.runtime.preprocess_signals",
    "edgepack.runtime.selftest",
    "edgepack.runtime.tensors",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name):
    """Each printed result is what the code gives."""
    failed, tried = doctest.testmod(importlib.import_module(name))

    assert tried > 0
    assert failed == 0
