"""How far two models' answers are apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.monitor.disagreement import Comparison, Disagreement, compare

FLOATS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


def labels(*names):
    return {"label": np.array(names, dtype=object)}


def test_labels_are_compared_where_there_are_any():
    """Probabilities may differ as they like."""
    ours = {**labels("a", "b", "c"), "probabilities": np.zeros((3, 2))}
    theirs = {**labels("a", "x", "y"), "probabilities": np.ones((3, 2))}
    assert Comparison(rows=3, differing=2) == compare(ours, theirs)


@given(FLOATS, st.floats(-10, 10))
def test_numbers_are_compared_by_their_difference(values, shift):
    """The mean of the differences and the largest come out, within rounding."""
    ours = {"value": np.array(values)}
    disagreement = Disagreement()
    disagreement.add(compare(ours, {"value": ours["value"] + shift}))
    figures = disagreement.figures()
    assert abs(shift) == pytest.approx(figures["abs_diff_mean"], abs=1e-6)
    low, high = figures["abs_diff_mean_low"], figures["abs_diff_mean_high"]
    assert low <= figures["abs_diff_mean"] <= high
    assert abs(shift) == pytest.approx(figures["abs_diff_max"], abs=1e-6)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 7))
def test_batches_add_up(same, size):
    """It makes no difference how the samples were batched."""
    whole, parts = Disagreement(), Disagreement()
    ours, theirs = ["a"] * len(same), ["a" if one else "b" for one in same]
    if same:
        whole.add(compare(labels(*ours), labels(*theirs)))
    for start in range(0, len(same), size):
        part = slice(start, start + size)
        parts.add(compare(labels(*ours[part]), labels(*theirs[part])))
    assert whole.figures() == parts.figures()


@pytest.mark.parametrize(
    "theirs", [{"other": np.zeros(3)}, {"value": np.zeros(4)}, {"value": np.array(["a"] * 3)}]
)
def test_outputs_that_have_nothing_in_common(theirs):
    """That is an error, not agreement."""
    with pytest.raises(ValueError, match="compared"):
        compare({"value": np.zeros(3)}, theirs)
