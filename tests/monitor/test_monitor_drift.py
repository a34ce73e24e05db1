"""Drift: silent on the same data as often as promised, loud on other data."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgepack.monitor import DriftDetector, build_reference
from edgepack.monitor.drift import stability_index
from edgepack.monitor.reference import MAX_FEATURES, parse_reference
from edgepack.monitor.window_counter import WindowCounter

# Rows of each kind of data that a detector must be silent on.
KINDS = {
    "normal": lambda rng, n: {"x": rng.normal(size=(n, 5))},
    "skewed": lambda rng, n: {"x": rng.exponential(size=(n, 5))},
    "counts": lambda rng, n: {"x": rng.poisson(1.0, size=(n, 5))},
    "rare": lambda rng, n: {"x": (rng.random((n, 5)) < 0.03).astype(float)},
    "missing": lambda rng, n: {"x": np.where(rng.random((n, 5)) < 0.2, np.nan, rng.random((n, 5)))},
    "text": lambda rng, n: {"t": rng.choice(["L", "M", "H"], (n, 1), p=[0.6, 0.3, 0.1])},
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(("rows", "consecutive"), [(1000, 1), (1000, 2), (1000, 3), (200, 2)])
def test_false_alarms_are_no_more_frequent_than_alpha(kind, rows, consecutive):
    """Of 400 windows of n = 100 from the reference's own distribution, about alpha raise it."""
    rng = np.random.default_rng(7)
    alpha = 0.05
    alarms = 0
    for _ in range(20):  # the reference is drawn anew, because its own chance counts too
        reference = build_reference(KINDS[kind](rng, rows))
        detector = DriftDetector(reference, window=100, alpha=alpha, consecutive=consecutive)
        for _ in range(20):
            result = detector.observe(KINDS[kind](rng, 100))
            alarms += result.alarm

    # Binomial: 400 windows at 0.05 exceed 33 alarms once in 1000 times. Windows that share a
    # reference are not quite independent, which the margin to 0.05 makes up for.
    assert alarms <= 33


def test_the_alarm_is_not_silent_by_construction():
    """At alpha = 0.5 and one window, same data does raise false alarms: the threshold is alive."""
    rng = np.random.default_rng(3)
    detector = DriftDetector(
        build_reference(KINDS["normal"](rng, 5000)), window=100, alpha=0.5, consecutive=1
    )
    alarms = sum(detector.observe(KINDS["normal"](rng, 100)).alarm for _ in range(400))

    assert 100 < alarms < 240


CHANGES = {
    "shifted": lambda x, rng: x + np.array([0, 0, 0.5, 0, 0]),
    "scaled": lambda x, rng: x * [1, 1, 2, 1, 1],
    "stuck": lambda x, rng: np.where([0, 0, 1, 0, 0], 0.1, x),
    "beyond": lambda x, rng: np.where(rng.random(x.shape) < [0, 0, 0.1, 0, 0], 99.0, x),
    "missing": lambda x, rng: np.where(rng.random(x.shape) < [0, 0, 0.1, 0, 0], np.nan, x),
    "infinite": lambda x, rng: np.where(rng.random(x.shape) < [0, 0, 0.1, 0, 0], np.inf, x),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_real_change_is_found_in_few_windows(change):
    """Half a standard deviation, twice the spread, a stuck sensor, values never seen, gaps."""
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(20):
        reference = build_reference({"x": rng.normal(size=(2000, 5))})
        detector = DriftDetector(reference, window=200, alpha=0.01, consecutive=2)
        for _ in range(4):
            rows = CHANGES[change](rng.normal(size=(200, 5)), rng)
            result = detector.observe({"x": rows})
        found += result.alarm and result.drifted[0] == "x_2"

    assert found >= 19


def test_a_constant_feature_that_changes_is_found():
    """A pixel that was always 0 has one bin only, and is watched all the same."""
    reference = build_reference({"x": np.zeros((1000, 1))})
    detector = DriftDetector(reference, window=100, alpha=0.01, consecutive=1)

    assert not detector.observe({"x": np.zeros((100, 1))}).alarm
    assert not detector.observe({"x": np.r_[np.zeros((99, 1)), [[1]]]}).alarm
    assert detector.observe({"x": np.ones((100, 1))}).alarm


def test_new_text_is_found():
    """A category that the reference never saw raises the alarm once it is more than chance."""
    rng = np.random.default_rng(0)
    detector = DriftDetector(
        build_reference(KINDS["text"](rng, 2000)), window=100, alpha=0.01, consecutive=1
    )
    rows = KINDS["text"](rng, 100)["t"].astype(object)
    rows[:8] = "X"

    assert detector.observe({"t": rows}).alarm


def test_digits_of_a_dimmed_camera_are_found():
    """Real data: other handwriting is silent, a dimmed camera is not."""
    from sklearn.datasets import load_digits

    x = load_digits().data
    rng = np.random.default_rng(0)
    rng.shuffle(x)
    detector = DriftDetector(
        build_reference({"x": x[:1000]}), window=200, alpha=0.01, consecutive=2
    )
    calm = [detector.observe({"x": x[1000 + 200 * i : 1200 + 200 * i]}).alarm for i in range(3)]
    dimmed = [detector.observe({"x": 0.7 * x[1000 + 200 * i : 1200 + 200 * i]}) for i in range(2)]

    assert [False] * 3 == calm
    assert dimmed[-1].alarm
    assert len(dimmed[-1].drifted) > 10


def test_the_alarm_needs_so_many_windows_in_a_row():
    """A calm window in between begins the count anew."""
    rng = np.random.default_rng(0)
    detector = DriftDetector(
        build_reference({"x": rng.normal(size=(2000, 1))}), window=100, alpha=0.01, consecutive=3
    )
    alarms = [
        detector.observe({"x": rng.normal(size=(100, 1)) + shift}).alarm
        for shift in (2, 2, 0, 2, 2, 2, 2, 0)
    ]

    assert [False, False, False, False, False, True, True, False] == alarms


def test_rows_may_come_one_by_one_or_all_at_once():
    """The same rows give the same result, however they are cut."""
    rng = np.random.default_rng(0)
    reference = build_reference({"x": rng.normal(size=(1000, 3))})
    rows = rng.normal(size=(300, 3)) + 1
    one, all_ = (DriftDetector(reference, window=100, consecutive=2) for _ in range(2))
    results = [one.observe({"x": rows[i : i + 1]}) for i in range(300)]
    windows = [result for result in results if result is not None]

    assert 3 == len(windows)
    assert [False, True, True] == [result.alarm for result in windows]
    # Of several windows at once, the first that raised the alarm is told.
    assert windows[1] == all_.observe({"x": rows})
    assert one.observe({"x": rows[:1]}) is None


def test_scores_share_one_threshold_and_psi_is_given():
    """A score is -log10 p; the stability index is that of its definition."""
    rng = np.random.default_rng(0)
    reference = build_reference({"x": rng.normal(size=(1000, 2))})
    detector = DriftDetector(reference, window=100, alpha=0.02, consecutive=1)
    result = detector.observe({"x": rng.normal(size=(100, 2)) + np.array([0, 3])})

    assert math.isclose(-math.log10(0.01), result.threshold)
    assert result.scores["x_0"] < result.threshold < result.scores["x_1"] <= 300
    assert result.psi["x_0"] < 0.3 < result.psi["x_1"]
    counts = np.array([[30, 70]]), np.array([[50, 50]])
    p, q = 30.5 / 101, 50.5 / 101
    expected = (q - p) * math.log(q / p) + (p - q) * math.log((1 - q) / (1 - p))
    assert math.isclose(expected, stability_index(*counts)[0])


def test_float32_values_on_an_edge_stay_in_their_bin():
    """A device sees float32 where the workstation had float64; tenths must not change bins."""
    tenths = np.round(np.random.default_rng(0).integers(0, 10, (1000, 1)) * 0.1, 1)
    reference = parse_reference(build_reference({"x": tenths}))
    counter = WindowCounter(reference)
    counter.add({"x": tenths.astype(np.float32)})

    np.testing.assert_array_equal(counter.reference_counts, counter.counts)


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 60), st.integers(1, 4)), elements=st.floats(width=32)
    )
)
def test_the_reference_counts_its_own_rows_as_a_window_does(x):
    """Building and counting agree for any numbers, NaN and infinities included."""
    counter = WindowCounter(parse_reference(build_reference({"x": x})))
    counter.add({"x": x})

    np.testing.assert_array_equal(counter.reference_counts, counter.counts)
    assert len(x) == counter.rows


@given(st.lists(st.text(max_size=5), min_size=1, max_size=200))
def test_text_is_counted_as_in_the_reference(words):
    """Any text, many categories included."""
    column = np.array(words, dtype=object).reshape(-1, 1)
    counter = WindowCounter(parse_reference(build_reference({"t": column})))
    counter.add({"t": column})

    np.testing.assert_array_equal(counter.reference_counts, counter.counts)
    assert 0 == counter.unseen.sum()


def test_the_reference_is_bounded_and_named():
    """Of many columns 512 are kept, spread over all; names are the features'."""
    wide = parse_reference(build_reference({"x": np.zeros((2, 5000))}))
    assert MAX_FEATURES == len(wide.features)
    assert 4990 == wide.features[-1].column

    named = build_reference(
        {"x": np.zeros((2, 2)), "word": np.array([["a"], ["b"]])}, feature_names={"x": ["a", "b"]}
    )
    assert ["a", "b", "word"] == [feature.name for feature in parse_reference(named).features]
    twice = build_reference(
        {"x": np.zeros((2, 1)), "y": np.zeros((2, 1))}, feature_names={"x": ["a"], "y": ["a"]}
    )
    assert ["a", "y.0.a"] == [feature.name for feature in parse_reference(twice).features]


def test_the_reference_holds_no_rows():
    """Long text, which may be anything, is counted and not kept."""
    secret = "s" * 300
    reference = build_reference({"t": np.array([[secret], ["a"]])})

    assert secret not in reference.decode()
    assert 1 == parse_reference(reference).features[0].other


@pytest.mark.parametrize(
    "columns", [{"x": np.zeros((0, 2))}, {}, {"x": np.zeros((1, 1)), "y": np.zeros((2, 1))}]
)
def test_a_reference_needs_rows(columns):
    """No rows, or different numbers of them, are an error."""
    with pytest.raises(ValueError, match="same number of rows and at least 1"):
        build_reference(columns)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": np.zeros((1, 2))}, "input 'x' of the drift reference is missing"),
        ({"x": np.zeros((1, 1))}, "must have at least 2 columns, got 1"),
        ({"x": np.array([["a", "b"]])}, "must be numbers, got <U1"),
        ({"x": np.array(1.0)}, "must have rows"),
    ],
)
def test_other_inputs_than_the_references_are_an_error(inputs, message):
    """The error says what is wrong with which input."""
    detector = DriftDetector(build_reference({"x": np.zeros((9, 2))}))
    with pytest.raises(ValueError, match=message):
        detector.observe(inputs)


@pytest.mark.parametrize(
    "settings",
    [{"window": 0}, {"consecutive": 0}, {"alpha": 0.0}, {"alpha": 1.0}],
)
def test_settings_are_checked(settings):
    """A window has a row, and alpha lies between 0 and 1."""
    with pytest.raises(ValueError, match="must be"):
        DriftDetector(build_reference({"x": np.zeros((9, 1))}), **settings)


GOOD = json.loads(build_reference({"x": np.arange(20.0), "t": np.array(["a", "b"] * 10)}))


KEYS = st.sampled_from(["format", "rows", "features", "counts", "edges", "name", "source"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS)
def test_any_document_is_a_reference_or_a_value_error(document):
    """Whatever the JSON, nothing but ValueError comes out."""
    for data in (json.dumps(document), json.dumps({**GOOD, "features": document})):
        try:
            parse_reference(data.encode())
        except ValueError as exc:
            assert "\n" not in str(exc)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"rows": 0},
        {"rows": 19},
        {"features": []},
        {"features": GOOD["features"][:1] * 2},
        {"features": [{**GOOD["features"][0], "edges": [2, 1]}]},
        {"features": [{**GOOD["features"][0], "low": "a"}]},
        {"features": [{**GOOD["features"][0], "high": 1e39}]},
        {"features": [{**GOOD["features"][1], "categories": ["a", "a"]}]},
        {"features": [{**GOOD["features"][1], "categories": [1, 2]}]},
    ],
)
def test_a_malformed_reference_is_refused(change):
    """Each breach of the form is a ValueError."""
    with pytest.raises(ValueError, match="malformed"):
        parse_reference(json.dumps({**GOOD, **change}).encode())


def test_an_oversized_reference_is_not_parsed():
    """More than 4 MiB are not looked at."""
    with pytest.raises(ValueError, match="at most 4194304 bytes"):
        parse_reference(b" " * (4 << 20) + b"{}")


def test_nesting_without_end_is_a_value_error():
    """A document of ten thousand brackets does not end the process."""
    with pytest.raises(ValueError, match="malformed"):
        parse_reference(b"[" * 100_000)


def test_refused_rows_leave_the_window_as_it_was():
    """Rows with one bad input are not half counted."""
    reference = build_reference({"x": np.zeros((9, 1)), "y": np.zeros((9, 1))})
    counter = WindowCounter(parse_reference(reference))
    for bad in ({"x": np.zeros((2, 1))}, {"x": np.zeros((2, 1)), "y": np.zeros((1, 1))}):
        with pytest.raises(ValueError, match="input"):
            counter.add(bad)

    assert 0 == counter.rows == counter.counts.sum()
