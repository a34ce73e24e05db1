"""How outputs are compared, by task and precision."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgepack.bundle.contract import Task, Tolerances
from edgepack.runtime import ParityError, compare
from edgepack.runtime.figures import largest_relative_error, r2
from edgepack.runtime.tensors import strings

TOLERANCES = Tolerances(rtol=1e-4, atol=1e-5, max_drop=0.1)
NAMES = ("cat", "dog", "eel")


def classified(probabilities, names=None):
    """Make a classifier's outputs; labels are the largest probability's."""
    p = np.array(probabilities, np.float32)
    best = p.argmax(axis=1)
    label = best if names is None else strings([names[i] for i in best], best.shape)
    return {"label": label, "probabilities": p}


def run(task, expected, got, precision="fp32", **kwargs):
    return compare(task, expected, got, tolerances=TOLERANCES, precision=precision, **kwargs)


CLEAR = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]]


@pytest.mark.parametrize("names", [None, NAMES])
def test_the_same_answers_pass(names):
    """Every row is within tolerance, every figure at its best."""
    outputs = classified(CLEAR, names)
    found = run(Task.CLASSIFICATION, outputs, outputs, class_names=names or ())

    assert (True, None) == (found.passed, found.reason)
    assert (4, "within_tolerance", 1.0, 1.0) == (
        found.parity.rows,
        found.parity.metric,
        found.parity.value,
        found.parity.bound,
    )
    assert {
        "agreement": 1.0,
        "max_probability_difference": 0.0,
        "nonfinite_mismatches": 0.0,
        "rows_outside": 0.0,
    } == found.parity.figures


def test_a_float_variant_fails_on_one_probability_outside_the_tolerance():
    """The reason counts the rows; agreement alone would not have noticed."""
    got = classified(CLEAR)
    got["probabilities"][2, 2] += 1e-3
    found = run(Task.CLASSIFICATION, classified(CLEAR), got)

    assert "1 of 4 rows are outside the tolerance" == found.reason
    assert 0.75 == found.parity.value
    assert 1.0 == found.parity.figures["agreement"]
    assert math.isclose(1e-3, found.parity.figures["max_probability_difference"], rel_tol=1e-3)


@pytest.mark.parametrize("names", [None, NAMES])
@pytest.mark.parametrize(("gap", "passes"), [(0.0, True), (4e-5, True), (1e-3, False)])
def test_a_label_may_differ_only_where_the_original_had_no_opinion(names, gap, passes):
    """Within both probabilities' tolerance the order of two classes means nothing."""
    expected = classified([[0.4 + gap, 0.4, 0.2 - gap]], names)
    got = dict(expected)
    got["label"] = np.array([1]) if names is None else strings(["dog"], (1,))
    found = run(Task.CLASSIFICATION, expected, got, class_names=names or ())

    assert passes == found.passed
    assert 0.0 == found.parity.figures["agreement"]


def test_a_tie_between_other_classes_excuses_nothing():
    """The label that was got must be one of those that tie."""
    expected = classified([[0.4, 0.4, 0.2]])
    got = dict(expected, label=np.array([2]))

    assert not run(Task.CLASSIFICATION, expected, got).passed


def test_without_scores_every_label_must_agree():
    """A classifier without probabilities gives no excuse."""
    expected, got = {"label": np.array([0, 1])}, {"label": np.array([0, 0])}

    assert not run(Task.CLASSIFICATION, expected, got).passed


def test_an_unknown_label_is_no_tie():
    """A label that is not among the class names is just wrong."""
    expected = classified([[0.4, 0.4, 0.2]], NAMES)
    got = dict(expected, label=strings(["fox"], (1,)))

    assert not run(Task.CLASSIFICATION, expected, got, class_names=NAMES).passed


def test_a_quantized_classifier_is_judged_by_agreement():
    """Probabilities may differ; labels must agree as often as max_drop allows."""
    expected = classified(CLEAR * 5)
    got = classified(np.array(CLEAR * 5) * 0.9 + 0.03)
    found = run(Task.CLASSIFICATION, expected, got, "int8")
    assert (True, "agreement", 1.0, 0.9) == (
        found.passed,
        found.parity.metric,
        found.parity.value,
        found.parity.bound,
    )
    assert "agreement" not in found.parity.figures

    got["label"] = got["label"].copy()
    got["label"][:2] = (got["label"][:2] + 1) % 3
    assert run(Task.CLASSIFICATION, expected, got, "int8").passed
    got["label"][2] = (got["label"][2] + 1) % 3
    found = run(Task.CLASSIFICATION, expected, got, "int8")
    assert "agreement must be at least 0.9, got 0.85 on 20 rows" == found.reason
    assert run(Task.CLASSIFICATION, expected, got, "int8", bound=0.85).passed


@pytest.mark.parametrize(
    ("labels", "truth"),
    [
        (np.array([0, 1, 2, 0]), np.array([0, 1, 2, 1])),
        (np.array([0, 1, 2, 0]), np.array([0.0, 1.0, 2.0, 1.0])),
        (np.array([0, 1, 2, 0]), strings(["0", "1", "2", "1"], (4,))),
        (strings(["0", "1", "2", "0"], (4,)), np.array([0, 1, 2, 1])),
        (strings(["0", "1", "2", "0"], (4,)), np.array([0.0, 1.0, 2.0, 1.0])),
        (strings(["0", "1", "2", "0"], (4,)), strings(["0", "1", "2", "1"], (4,))),
    ],
)
def test_accuracy_compares_text_and_numbers_by_what_they_read_as(labels, truth):
    """A CSV gives 1.0 or "1" for what the model calls 1."""
    outputs = {"label": labels}
    found = run(Task.CLASSIFICATION, outputs, outputs, truth=truth)

    assert 0.75 == found.parity.figures["accuracy"] == found.parity.figures["accuracy_original"]


def test_labels_come_from_scores_where_there_is_no_label():
    """A network that gives scores only is judged by its largest."""
    expected = {"scores": np.array([[1.0, 2.0], [3.0, 0.0]])}
    got = {"scores": np.array([[2.0, 1.0], [3.0, 0.0]])}
    found = run(
        Task.CLASSIFICATION,
        expected,
        got,
        "int8",
        class_names=("no", "yes"),
        truth=strings(["yes", "no"], (2,)),
    )

    assert 0.5 == found.parity.value
    assert 1.0 == found.parity.figures["accuracy_original"]
    assert 0.5 == found.parity.figures["accuracy"]


def test_regression_has_r2_and_the_largest_relative_error():
    """Float variants by tolerance, others by R² against the original."""
    expected = {"value": np.array([100.0, 200.0, 300.0], np.float32)}
    near = {"value": np.array([100.001, 200.0, 300.0], np.float32)}
    far = {"value": np.array([110.0, 190.0, 300.0], np.float32)}
    truth = np.array([100.0, 200.0, 310.0])

    assert run(Task.REGRESSION, expected, near).passed
    assert not run(Task.REGRESSION, expected, far).passed
    found = run(Task.REGRESSION, expected, far, "int8", truth=truth)
    assert found.passed
    assert ("r2", 0.99, 0.9) == (found.parity.metric, found.parity.value, found.parity.bound)
    # 10 relative to the mean of 200, which is above the value of 100 itself.
    assert 0.05 == found.parity.figures["max_rel_error"]
    assert found.parity.figures["r2_truth_original"] > found.parity.figures["r2_truth"]


def test_several_targets_are_judged_by_the_worst():
    """One bad column is not hidden by good ones."""
    expected = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    got = expected.copy()
    got[:, 0] = 2.0

    assert 0.0 == r2(expected, got)


def test_an_outlier_near_the_border_may_change_sides():
    """A score of nearly zero has no side within the tolerance."""
    expected = {"label": np.array([1, -1]), "scores": np.array([[1e-6], [-0.5]])}
    flipped = {"label": np.array([-1, -1]), "scores": np.array([[-1e-6], [-0.5]])}
    wrong = dict(expected, label=np.array([1, 1]))

    assert run(Task.OUTLIER, expected, flipped).passed
    assert not run(Task.OUTLIER, expected, wrong).passed


def test_clusters_may_change_where_both_are_as_near():
    """Distances that tie excuse another cluster."""
    expected = {"label": np.array([0]), "scores": np.array([[1.0, 1.00001, 5.0]])}

    assert run(Task.CLUSTERING, expected, dict(expected, label=np.array([1]))).passed
    assert not run(Task.CLUSTERING, expected, dict(expected, label=np.array([2]))).passed


def test_a_generic_model_is_judged_by_its_worst_output():
    """R² of the worst output has a floor; without numbers there is only sameness."""
    expected = {"a": np.array([1.0, 2.0]), "b": np.array([10.0, 20.0])}
    got = {"a": np.array([1.0, 2.0]), "b": np.array([10.0, 14.0])}
    found = run(Task.GENERIC, expected, got, "int8")

    assert "r2 must be at least 0.9, got 0.28 on 2 rows" == found.reason
    assert 11.4 == round(found.parity.figures["sqnr_db"], 1)
    assert run(Task.TRANSFORM, expected, expected, "fp16").passed


def test_nan_equals_nan_and_nothing_else():
    """Where only one is NaN or infinite, no variant passes and figures stay finite."""
    expected = {"y": np.array([1.0, np.nan, np.inf])}
    for precision in ("fp32", "int8"):
        assert run(Task.GENERIC, expected, expected, precision).passed
        for got in ([1.0, 2.0, np.inf], [1.0, np.nan, -np.inf], [np.nan, np.nan, np.inf]):
            found = run(Task.GENERIC, expected, {"y": np.array(got)}, precision)
            assert not found.passed
            assert 1.0 == found.parity.figures["nonfinite_mismatches"]
            assert all(math.isfinite(figure) for figure in found.parity.figures.values())


@pytest.mark.parametrize(
    ("expected", "got", "message"),
    [
        ({"y": np.ones(2)}, {"z": np.ones(2)}, r"outputs must be \['y'\], got \['z'\]"),
        ({"y": np.ones(2)}, {"y": np.ones(3)}, r"must be float64 \(2,\), got float64 \(3,\)"),
        ({"y": np.ones(2)}, {"y": np.ones(2, int)}, "must be float64"),
        ({"y": np.ones(0)}, {"y": np.ones(0)}, "at least one"),
        ({"y": np.ones(2), "z": np.ones(3)},) * 2 + ("same number of rows",),
        ({}, {}, "outputs must be"),
    ],
)
def test_what_cannot_be_compared_is_an_error(expected, got, message):
    """Other names, shapes or kinds are no question of tolerance."""
    with pytest.raises(ParityError, match=message):
        run(Task.GENERIC, expected, got)


FLOATS = hnp.arrays(np.float64, (5, 3))


@given(FLOATS, FLOATS, st.sampled_from(list(Task)), st.sampled_from(["fp32", "int8"]))
def test_any_outputs_give_finite_figures(first, second, task, precision):
    """Figures go into JSON, which has no NaN."""
    found = run(task, {"y": first}, {"y": second}, precision, truth=np.arange(5))

    assert all(math.isfinite(f) for f in [*found.parity.figures.values(), found.parity.value])
    assert found.passed == (found.reason is None)


@given(FLOATS, st.sampled_from(list(Task)), st.sampled_from(["fp32", "int8"]))
@example(np.full((5, 3), np.inf), Task.REGRESSION, "int8")
def test_whatever_equals_itself_passes(outputs, task, precision):
    """Parity of a model with itself never fails."""
    assert run(task, {"y": outputs}, {"y": outputs.copy()}, precision).passed


@given(hnp.arrays(np.float64, 6, elements=st.floats(-1e6, 1e6)), st.floats(1e-3, 0.5))
def test_a_relative_error_is_found(values, error):
    """Every value off by a fraction e gives at most e, and e if the largest value is not zero."""
    found = largest_relative_error(values, values * (1 + error))

    assert found <= error * (1 + 1e-9)
    if np.abs(values).max() > 1e-3:
        assert math.isclose(error, found, rel_tol=1e-6)


def test_clusters_have_no_accuracy():
    """Their numbers mean nothing outside the model."""
    outputs = {"label": np.array([0, 1])}
    found = run(Task.CLUSTERING, outputs, outputs, truth=np.array([1, 0]))

    assert "accuracy" not in found.parity.figures
