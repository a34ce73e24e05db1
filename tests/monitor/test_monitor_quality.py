"""Quality from truths that arrive later."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.monitor import (
    ClassificationQuality,
    RegressionQuality,
    TruthJoiner,
    wilson_interval,
)
from edgepack.monitor.quality import MAX_CLASSES, OTHER

PAIRS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=50)
VALUES = st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), max_size=50)


def classified(pairs) -> ClassificationQuality:
    quality = ClassificationQuality()
    for truth, predicted in pairs:
        quality.add(truth, predicted)
    return quality


def measured(pairs) -> RegressionQuality:
    quality = RegressionQuality()
    for truth, predicted in pairs:
        quality.add(truth, predicted)
    return quality


@given(PAIRS, PAIRS)
def test_merged_confusion_is_the_confusion_of_all(first, second):
    """Windows and devices add up."""
    merged = classified(first)
    merged.merge(classified(second))

    assert classified(first + second).to_dict() == merged.to_dict()


@given(PAIRS)
def test_confusion_survives_json(pairs):
    """What is written is read."""
    quality = classified(pairs)
    document = json.loads(json.dumps(quality.to_dict()))

    assert quality.to_dict() == ClassificationQuality.from_dict(document).to_dict()


def test_accuracy_recall_and_precision():
    """Each is the share that its name says; NaN where there is nothing to divide by."""
    quality = classified([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b"), ("c", "b")])

    assert (5, 0.6) == (quality.count, quality.accuracy)
    assert (0.5, 1.0) == (quality.recall("a"), quality.precision("a"))
    assert (1.0, 0.5) == (quality.recall("b"), quality.precision("b"))
    assert math.isnan(quality.precision("c"))
    assert math.isnan(ClassificationQuality().accuracy)
    assert (0.0, 1.0) == ClassificationQuality().interval()
    assert 2 == quality.confusion()["b", "b"]


def test_endless_new_labels_do_not_fill_the_memory():
    """Labels beyond the 256th share one name, and right answers are still counted right."""
    quality = classified([(f"label{i}", f"label{i}") for i in range(1000)])

    assert len(quality.confusion()) == MAX_CLASSES + 1
    assert 1000 - MAX_CLASSES == quality.confusion()[OTHER, OTHER]
    assert 1.0 == quality.accuracy


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"right": 0, "counts": {}},
        {"right": -1, "counts": []},
        {"right": 2, "counts": [["a", "a", 1]]},
        {"right": 0, "counts": [["a", "a"]]},
        {"right": 0, "counts": [["a", 1, 1]]},
        {"right": 0, "counts": [["a", "a", -1]]},
        {"right": 0, "counts": [["a", "a", True]]},
    ],
)
def test_a_malformed_confusion_is_a_value_error(document):
    """Whatever is wrong."""
    with pytest.raises(ValueError, match="must"):
        ClassificationQuality.from_dict(document)


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_interval_holds_the_share(right, wrong):
    """Its bounds lie round the measured share and within 0..1."""
    low, high = wilson_interval(right, right + wrong)

    assert 0 <= low <= high <= 1
    if right + wrong:
        assert low <= right / (right + wrong) <= high


def test_the_interval_covers_as_often_as_it_says():
    """Even for rare errors and few samples, on average over the true share."""
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.8, 1.0, 4000)
    hits = 0
    for share in shares:
        low, high = wilson_interval(int(rng.binomial(40, share)), 40)
        hits += low <= share <= high

    assert 0.94 < hits / 4000 < 0.97


@pytest.mark.parametrize("arguments", [(2, 1), (-1, 1), (1, 1, 0.0), (1, 1, 1.0)])
def test_an_impossible_share_is_an_error(arguments):
    """More successes than trials, or a confidence of 1."""
    with pytest.raises(ValueError, match="right must be within"):
        wilson_interval(*arguments)


@given(VALUES, VALUES)
def test_merged_errors_are_the_errors_of_all(first, second):
    """Windows and devices add up, within rounding."""
    merged, whole = measured(first), measured(first + second)
    merged.merge(measured(second))

    assert whole.count == merged.count
    if whole.count:
        assert whole.mae == pytest.approx(merged.mae, abs=1e-9)
        assert whole.rmse == pytest.approx(merged.rmse, abs=1e-9)
    assert whole._spread == pytest.approx(merged._spread, rel=1e-9, abs=1e-6)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=3, max_size=50))
def test_figures_are_those_of_their_definitions(pairs):
    """MAE, RMSE and R² as a textbook computes them from all values at once."""
    truth, predicted = np.array(pairs).T
    quality = measured(pairs)

    assert np.abs(truth - predicted).mean() == pytest.approx(quality.mae)
    assert np.sqrt(((truth - predicted) ** 2).mean()) == pytest.approx(quality.rmse)
    spread = ((truth - truth.mean()) ** 2).sum()
    if spread > 1e-3:
        assert 1 - ((truth - predicted) ** 2).sum() / spread == pytest.approx(quality.r2, rel=1e-6)


def test_r2_survives_a_large_mean():
    """A temperature in pascals of pressure does not lose its digits."""
    rng = np.random.default_rng(0)
    truth = 1e9 + rng.normal(size=1000)
    quality = measured(zip(truth.tolist(), (truth + 0.1).tolist(), strict=True))

    assert 1 - 0.01 / truth.var() == pytest.approx(quality.r2, abs=1e-3)


def test_without_spread_there_is_no_r2():
    """Truths that do not differ leave nothing to explain."""
    assert measured([(1.0, 1.0), (1.0, 2.0)]).r2 is None
    assert math.isnan(RegressionQuality().mae)


@pytest.mark.parametrize("pair", [(math.nan, 1.0), (1.0, math.inf)])
def test_values_must_be_finite(pair):
    """One NaN would spoil every sum for good."""
    with pytest.raises(ValueError, match="must be finite"):
        RegressionQuality().add(*pair)


def test_the_joiner_forgets_the_oldest_first():
    """Memory is bounded whatever comes; what was forgotten is counted."""
    joiner = TruthJoiner(100)
    for request in range(1000):
        joiner.predicted(f"r{request}", request)

    assert (100, 900) == (len(joiner), joiner.expired)
    assert joiner.truth("r0") is None
    assert 999 == joiner.truth("r999")
    assert (1, 1) == (joiner.joined, joiner.unmatched)


def test_a_prediction_is_joined_once():
    """A second truth for a request is not counted, and a later prediction replaces the first."""
    joiner = TruthJoiner(10)
    joiner.predicted("a", "first")
    joiner.predicted("a", "second")

    assert "second" == joiner.truth("a")
    assert joiner.truth("a") is None


def test_the_joiner_needs_room():
    """Capacity 0 remembers nothing and is an error."""
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        TruthJoiner(0)
