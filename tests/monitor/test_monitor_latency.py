"""The latency histogram: exact counts, quantiles within 1 %, mergeable, quick."""

import json
import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.monitor import LatencyHistogram

NANOSECONDS = st.integers(1, 10**12 - 1)


def filled(values, **kwargs) -> LatencyHistogram:
    histogram = LatencyHistogram(**kwargs)
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(NANOSECONDS, min_size=1, max_size=600), st.floats(0, 1))
def test_quantiles_are_within_the_relative_error(values, q):
    """Each estimate is within 1 % of the value of that rank."""
    exact = sorted(values)[math.floor(q * (len(values) - 1))]

    assert abs(filled(values).quantile(q) - exact) <= 0.01 * exact * (1 + 1e-9)


@given(st.lists(NANOSECONDS, max_size=300), st.lists(NANOSECONDS, max_size=300))
def test_merging_is_the_same_as_recording_both(first, second):
    """Two devices' histograms add up to the one of all their latencies."""
    merged = filled(first)
    merged.merge(filled(second))

    assert filled(first + second).to_dict() == merged.to_dict()


@given(st.lists(NANOSECONDS, max_size=300), st.sampled_from([0.01, 0.05]))
def test_what_is_written_is_read(values, relative_error):
    """A histogram survives JSON."""
    histogram = filled(values, relative_error=relative_error)
    document = json.loads(json.dumps(histogram.to_dict()))

    assert histogram.to_dict() == LatencyHistogram.from_dict(document).to_dict()


def test_count_mean_and_maximum_are_exact():
    """Only quantiles are estimates."""
    histogram = filled([1000, 2000, 6000])

    assert (3, 3000.0, 6000) == (histogram.count, histogram.mean_ns, histogram.maximum_ns)


def test_without_records_there_is_no_quantile():
    """An empty histogram says NaN, and zero for what is a count."""
    empty = LatencyHistogram()

    assert 0 == empty.count == empty.maximum_ns
    assert math.isnan(empty.quantile(0.5))
    assert math.isnan(empty.mean_ns)


def test_what_is_out_of_range_counts_at_the_ends():
    """Less than 1 ns counts as 1, more than 1000 s in the last bucket."""
    histogram = filled([0, -5, 10**15])

    assert 3 == histogram.count
    assert 1 == pytest.approx(histogram.quantile(0), rel=0.011)
    assert 1e12 == pytest.approx(histogram.quantile(1), rel=0.03)


def test_taking_gives_what_was_counted_and_begins_anew():
    """Nothing is counted twice and nothing is lost."""
    histogram = filled([1000] * 5)
    taken = histogram.take()
    histogram.record(2000)

    assert (5, 1) == (taken.count, histogram.count)
    histogram.reset()
    assert 0 == histogram.count == histogram.maximum_ns


def test_no_record_is_lost_between_threads():
    """Eight threads record while another takes; the sum is exact."""
    histogram = LatencyHistogram()
    taken = LatencyHistogram()
    done = threading.Event()

    def take() -> None:
        while not done.is_set():
            taken.merge(histogram.take())

    taker = threading.Thread(target=take)
    taker.start()
    writers = [
        threading.Thread(target=lambda: [histogram.record(1000) for _ in range(20_000)])
        for _ in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    taker.join()
    taken.merge(histogram)

    assert 160_000 == taken.count
    assert 160_000 * 1000 == taken.mean_ns * taken.count


def test_histograms_of_another_error_do_not_merge():
    """Their buckets do not match."""
    with pytest.raises(ValueError, match=r"must be 0\.01 to merge, got 0\.02"):
        LatencyHistogram().merge(LatencyHistogram(0.02))


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_lies_within_0_and_1(q):
    """Anything else is an error."""
    with pytest.raises(ValueError, match=r"q must be within 0\.\.1"):
        LatencyHistogram().quantile(q)


@pytest.mark.parametrize("error", [0, 1, -0.5])
def test_the_relative_error_lies_between_0_and_1(error):
    """Anything else is an error."""
    with pytest.raises(ValueError, match="relative_error must be between 0 and 1"):
        LatencyHistogram(error)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"relative_error": 0.01, "counts": []},
        {"relative_error": 0.01, "counts": {}, "sum_ns": 1},
        {"relative_error": 0.01, "counts": {"0": -1}, "sum_ns": 1, "maximum_ns": 1},
        {"relative_error": 0.01, "counts": {"0": True}, "sum_ns": 1, "maximum_ns": 1},
        {"relative_error": 0.01, "counts": {"99999": 1}, "sum_ns": 1, "maximum_ns": 1},
        {"relative_error": 0.01, "counts": {"x": 1}, "sum_ns": 1, "maximum_ns": 1},
        {"relative_error": 2.0, "counts": {}, "sum_ns": 1, "maximum_ns": 1},
    ],
)
def test_a_malformed_document_is_a_value_error(document):
    """Whatever is wrong."""
    with pytest.raises(ValueError, match=r"must"):
        LatencyHistogram.from_dict(document)


def test_it_is_small():
    """A histogram of a thousandfold range takes some ten kilobytes."""
    histogram = filled(np.random.default_rng(0).integers(1000, 10**9, 5000).tolist())

    assert histogram._counts.nbytes < 20_000
    assert len(histogram._queue) < 512
