"""bench, as a person calls it; what is measured is tested elsewhere."""

import numpy as np
import pytest
from support.tiny_bundle import tiny_model, write_tiny_bundle

QUICK = ("--calls", "60", "--seconds", "0.5")


def test_a_bundle_is_measured(edgepack, bundle):
    """Latency, size, load time, memory and parity of each variant, as JSON and as a table."""
    report = edgepack("bench", "run", bundle, *QUICK, "--json").document
    (variant,) = report["variants"]
    assert ("onnx-fp32", True) == (variant["variant"], variant["passed"])
    for figure in ("p50_ms", "p90_ms", "p99_ms", "load_ms", "size_bytes"):
        assert variant[figure] > 0
    shown = edgepack("bench", "run", bundle, *QUICK)
    assert (0, True) == (shown.code, "p50 µs" in shown.out and "onnx-fp32" in shown.out)


def test_data_with_a_label_gives_accuracy(edgepack, bundle, tmp_path):
    """With truth beside the rows the report says how right the variant is."""
    x = np.random.default_rng(9).normal(size=(80, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=tiny_model().predict(x)["label"].astype(str))
    report = edgepack(
        "bench", "run", bundle, "--data", tmp_path / "data.npz", *QUICK, "--json"
    ).document
    assert (80, 1.0) == (report["variants"][0]["data_rows"], report["variants"][0]["accuracy"])


def test_a_model_that_misses_its_golden_samples_ends_with_6(edgepack, tmp_path):
    """Another model than the one that the golden samples came from is noticed."""
    path = write_tiny_bundle(tmp_path, model=tiny_model(seed=3).onnx())
    ended = edgepack("bench", "run", path, *QUICK)
    assert (6, True) == (ended.code, "FAILED" in ended.out)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 2), (["run"], 2), (["run", "x", "--calls", "0"], 2), (["run", "absent"], 4)],
)
def test_wrong_usage_is_refused(edgepack, arguments, code):
    """Missing verbs, wrong numbers and absent files have their codes."""
    assert code == edgepack("bench", *arguments).code


def test_verbose_is_taken_after_the_verb(edgepack):
    """-v may stand at the end, as with every command."""
    assert "Traceback" in edgepack("bench", "run", "absent", "-v").err
