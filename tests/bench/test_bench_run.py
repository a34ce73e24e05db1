"""Measuring a bundle: each variant in its own process, and what cannot be measured."""

import dataclasses
import json

import numpy as np
import pytest
from bench_models import regression_model, sign_model
from support.tiny_bundle import CLASSES, FEATURES, tiny_model, write_tiny_bundle

from edgepack.bench import BenchError, bench_bundle, render_text, rich_table
from edgepack.bench.measure import LEAST_CALLS, score, time_singles
from edgepack.bench.table import HEADERS
from edgepack.bundle import Part, media_types, open_bundle, write_bundle
from edgepack.bundle.contract import Task
from edgepack.bundle.errors import BundleError
from edgepack.runtime import VariantError, load
from edgepack.runtime.errors import DatasetError

X = np.random.default_rng(7).normal(size=(200, 4)).astype(np.float32)
LABELS = [str(label) for label in tiny_model().predict(X)["label"]]


def write_csv(path, labels=None):
    header = ",".join([*FEATURES, *(["state"] if labels else [])])
    rows = [
        ",".join([*map(str, row), *([labels[index]] if labels else [])])
        for index, row in enumerate(X.tolist())
    ]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def with_second_variant(path, folder, model: bytes):
    """Add a variant "other" with another file to a bundle."""
    bundle = open_bundle(path)
    (first,) = bundle.contract.variants
    other = dataclasses.replace(
        first, name="other", files=("other/model.onnx",), size_bytes=len(model)
    )
    contract = dataclasses.replace(bundle.contract, variants=(first, other))
    parts = [
        Part(path=name, media_type=media_types.WEIGHTS, data=data)
        for name, data in (
            ("onnx-fp32/model.onnx", bundle.read("onnx-fp32/model.onnx")),
            ("other/model.onnx", model),
        )
    ]
    golden = bundle.read("golden.safetensors")
    parts.append(Part(path="golden.safetensors", media_type=media_types.DATASET, data=golden))
    target = folder / "two-1.0.0.edgepack"
    write_bundle(target, contract, parts)
    return target


def test_a_bundle_is_measured_with_data(tmp_path):
    """Latency, load, memory, parity and accuracy of a variant, as values, JSON and tables."""
    path = write_tiny_bundle(tmp_path)
    labels = [*LABELS[:-20], *["nothing"] * 20]
    seen = []
    report = bench_bundle(
        path,
        data=write_csv(tmp_path / "data.csv", labels),
        label="state",
        calls=100,
        progress=seen.append,
    )
    (variant,) = report.variants

    assert ["onnx-fp32"] == seen
    assert report.passed
    assert (100, 64) == (variant.latency.calls, report.golden_rows)
    latency = variant.latency
    assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms < 100
    assert 0 < variant.load_ms < variant.start_ms
    assert variant.size_bytes == len(open_bundle(path).read("onnx-fp32/model.onnx"))
    assert 10e6 < variant.peak_memory_bytes < 500e6
    assert 0 < variant.model_memory_bytes < variant.peak_memory_bytes
    assert ("within_tolerance", 1.0) == (variant.metric, variant.value)
    assert (200, 0.9) == (variant.on_data.rows, variant.on_data.accuracy)
    assert variant.on_data.accuracy_low < 0.9 < variant.on_data.accuracy_high
    flat = json.loads(json.dumps(report.to_json()))["variants"][0]
    assert {"p50_ms", "p99_ms", "load_ms", "size_bytes", "agreement", "accuracy"} <= set(flat)
    text = render_text(report)
    assert "accuracy 0.9000" in text
    assert all(header in text for header in HEADERS)
    assert len(HEADERS) == len(rich_table(report).columns)


def test_without_data_there_is_no_accuracy(tmp_path):
    """Golden samples are enough for everything else."""
    report = bench_bundle(write_tiny_bundle(tmp_path), calls=60)

    assert report.variants[0].on_data is None
    assert "accuracy" not in report.to_json()["variants"][0]


def test_a_variant_that_fails_its_golden_samples_is_told(tmp_path):
    """It is measured all the same, and the report has not passed."""
    path = with_second_variant(write_tiny_bundle(tmp_path), tmp_path, tiny_model(seed=3).onnx())
    report = bench_bundle(path, calls=60)

    assert [True, False] == [variant.passed for variant in report.variants]
    assert not report.passed
    assert "other: 64 of 64 rows are outside the tolerance" in render_text(report)


def test_a_variant_that_cannot_be_loaded_does_not_stop_the_others(tmp_path):
    """Its error stands in the report beside what was measured."""
    path = with_second_variant(write_tiny_bundle(tmp_path), tmp_path, b"no model")
    report = bench_bundle(path, calls=60)

    assert ["onnx-fp32"] == [variant.variant for variant in report.variants]
    (failure,) = report.failures
    assert "other" == failure.variant
    assert "onnxruntime cannot load other/model.onnx" in failure.error
    assert not report.passed
    assert failure.error in render_text(report)


def test_when_nothing_can_be_measured_it_is_an_error(tmp_path):
    """One line with the first reason."""
    path = write_tiny_bundle(tmp_path, model=b"no model")
    with pytest.raises(BenchError, match="no variant could be measured: onnxruntime cannot load"):
        bench_bundle(path)


def test_data_that_does_not_fit_is_an_error(tmp_path):
    """A label that the data does not have is named."""
    data = write_csv(tmp_path / "data.csv")
    with pytest.raises(BenchError, match=r"label 'state' is not in data\.csv"):
        bench_bundle(write_tiny_bundle(tmp_path), data=data, label="state", calls=60)


def test_measuring_has_a_time_limit(tmp_path):
    """A variant that takes longer than it is given is an error, not a hang."""
    with pytest.raises(BenchError, match=r"'onnx-fp32' must be measured within 0\.01 s"):
        bench_bundle(write_tiny_bundle(tmp_path), timeout_s=0.01)


def test_a_process_that_dies_is_an_error(tmp_path, monkeypatch):
    """Its exit code and last words are told."""
    monkeypatch.setenv("PYTHONHASHSEED", "not a number")
    with pytest.raises(BenchError, match=r"ended with exit code 1: Python runtime state"):
        bench_bundle(write_tiny_bundle(tmp_path))


def test_variants_are_measured_by_name(tmp_path):
    """Only those that are asked for; an unknown one is refused before anything runs."""
    path = with_second_variant(write_tiny_bundle(tmp_path), tmp_path, tiny_model(seed=3).onnx())

    report = bench_bundle(path, variants=("other",), calls=60)
    assert ["other"] == [variant.variant for variant in report.variants]
    with pytest.raises(VariantError, match="got 'third'"):
        bench_bundle(path, variants=("other", "third"))


def test_a_file_that_is_no_bundle_is_refused(tmp_path):
    """By the bundle's own error."""
    path = tmp_path / "x.edgepack"
    path.write_bytes(b"x" * 2048)
    with pytest.raises(BundleError):
        bench_bundle(path)


def test_at_least_fifty_calls_are_timed(tmp_path):
    """However little time there is; and never more than were asked for."""
    with load(write_tiny_bundle(tmp_path)) as model:
        short = time_singles(model, {"x": X}, 200, calls=1000, seconds=0.0)
        long = time_singles(model, {"x": X}, 200, calls=80, seconds=60.0)

    assert (LEAST_CALLS, 80) == (short.calls, long.calls)


def test_data_without_truth_is_checked_and_not_scored(tmp_path):
    """Columns that do not fit the model are an error all the same."""
    with load(write_tiny_bundle(tmp_path)) as model:
        assert score(model, write_csv(tmp_path / "data.csv"), None) is None
        (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
        with pytest.raises(DatasetError):
            score(model, tmp_path / "bad.csv", None)


def test_classes_are_compared_as_text(tmp_path):
    """Every row that is answered right counts."""
    with load(write_tiny_bundle(tmp_path)) as model:
        found = score(model, write_csv(tmp_path / "data.csv", LABELS), "state")

    assert set(LABELS) <= set(CLASSES)
    assert (200, 1.0, 1.0) == (found.rows, found.accuracy, found.accuracy_high)
    assert found.r2 is None


def test_regression_is_scored_by_r2_and_error(tmp_path):
    """In the target's unit."""
    truth = X @ np.array([1, 2, 3, 4], np.float32) + 0.5
    np.savez(tmp_path / "data.npz", x=X, y=truth)
    with regression_model(np.array([[1], [2], [3], [4]])) as model:
        found = score(model, tmp_path / "data.npz", None)

    assert 0.5 == pytest.approx(found.mae, rel=1e-5)
    assert 0.9 < found.r2 < 1
    assert found.accuracy is None


def test_classes_are_no_truth_for_outliers_or_clusters(tmp_path):
    """A share of right answers is given only where the truth speaks of the same thing."""
    with load(write_tiny_bundle(tmp_path)) as model:
        data = write_csv(tmp_path / "data.csv", LABELS)
        for task in (Task.OUTLIER, Task.CLUSTERING, Task.GENERIC):
            model.contract = dataclasses.replace(model.contract, task=task)
            assert score(model, data, "state") is None


def test_outliers_are_scored_where_the_truth_says_1_or_minus_1(tmp_path):
    """As scikit-learn's outlier models do."""
    truth = np.where(X[:, 0] > 0, 1, -1)
    np.savez(tmp_path / "data.npz", x=X, y=truth)
    with sign_model() as model:
        found = score(model, tmp_path / "data.npz", None)
        np.savez(tmp_path / "classes.npz", x=X, y=truth + 1)

        assert 1.0 == found.accuracy
        assert score(model, tmp_path / "classes.npz", None) is None
