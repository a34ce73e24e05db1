"""The self-test on golden samples."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from runtime_models import bundle_of, graph_bytes, linear_bundle, tensor
from support.tiny_bundle import tiny_model, write_tiny_bundle

from edgepack.bundle import open_bundle
from edgepack.bundle.contract import Datatype, Parity, Task
from edgepack.runtime import Golden, ParityError, load, parse_golden, run_selftest
from edgepack.runtime.selftest import device_bound

X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
WEIGHTS = np.array([[1.0], [2.0], [-1.0]], np.float32)


def stored(metric="agreement", bound=0.99) -> Parity:
    return Parity(rows=1000, metric=metric, value=1.0, bound=bound)


def test_the_original_model_passes_and_is_timed(tmp_path):
    """A good bundle passes on its own golden samples, with latency and every figure."""
    path = write_tiny_bundle(tmp_path)
    bundle = open_bundle(path)
    golden = parse_golden(bundle.read("golden.safetensors"), bundle.contract)
    with load(path) as model:
        result = run_selftest(model, golden)

    assert (True, None, 64) == (result.passed, result.reason, result.rows)
    assert 0 < result.p50_ms <= result.p99_ms < 1000
    assert 1.0 == result.figures["accuracy"] == result.figures["within_tolerance"]
    assert {"p50_ms", "p99_ms", "rows", "bound", "agreement"} <= set(result.figures)


def test_another_model_fails_with_the_reason(tmp_path):
    """A file that does not do what the golden samples say is found out."""
    path = write_tiny_bundle(tmp_path, model=tiny_model(seed=9).onnx())
    bundle = open_bundle(path)
    golden = parse_golden(bundle.read("golden.safetensors"), bundle.contract)
    with load(path) as model:
        result = run_selftest(model, golden)

    assert not result.passed
    assert "64 of 64 rows are outside the tolerance" == result.reason


def test_one_wrong_row_fails_a_float_variant():
    """fp32 is held to the contract's tolerances on every row."""
    expected = X @ WEIGHTS
    expected[40] += 1e-2
    with load(linear_bundle(WEIGHTS)) as model:
        result = run_selftest(model, Golden(inputs={"x": X}, outputs={"y": expected}))

    assert "1 of 64 rows are outside the tolerance" == result.reason


def test_a_model_that_is_right_in_batches_only_fails():
    """The device will answer single samples, so they are tried too."""
    file = graph_bytes(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [("x", Datatype.FP32, (-1, 3))],
        [("y", Datatype.FP32, (-1, 3))],
    )
    x, y = tensor("x", Datatype.FP32, (-1, 3)), tensor("y", Datatype.FP32, (-1, 3))
    with load(bundle_of(file, [x], [y])) as model:
        golden = Golden(inputs={"x": X}, outputs={"y": X - X.mean(axis=0)})
        result = run_selftest(model, golden)

    assert "one sample at a time, 32 of 32 rows are outside the tolerance" == result.reason


@pytest.mark.parametrize(("wrong", "passes"), [(0, True), (4, True), (5, False), (64, False)])
def test_a_quantized_variant_is_held_to_its_stored_bound(wrong, passes):
    """At a bound of 0.99, four of 64 labels may differ by chance and five may not."""
    file = graph_bytes(
        [
            helper.make_node("Greater", ["x", "zero"], ["above"]),
            helper.make_node("Cast", ["above"], ["wide"], to=7),
            helper.make_node("Squeeze", ["wide", "axis"], ["label"]),
        ],
        [("x", Datatype.FP32, (-1, 1))],
        [("label", Datatype.INT64, (-1,))],
        {"zero": np.float32(0), "axis": np.array([1])},
    )
    x, label = tensor("x", Datatype.FP32, (-1, 1)), tensor("label", Datatype.INT64, (-1,))
    bundle = bundle_of(
        file, [x], [label], task=Task.CLASSIFICATION, precision="int8", parity=stored()
    )
    values = X[:, :1]
    expected = (values[:, 0] > 0).astype(np.int64)
    expected[len(expected) - wrong :] ^= 1  # beyond the rows that are tried one at a time
    with load(bundle) as model:
        result = run_selftest(model, Golden(inputs={"x": values}, outputs={"label": expected}))

    assert passes == result.passed
    assert 1 - wrong / 64 == result.figures["agreement"]


def test_outputs_of_another_kind_are_an_error():
    """Golden samples that do not have the model's outputs cannot be compared."""
    with load(linear_bundle(WEIGHTS)) as model:
        golden = Golden(inputs={"x": X}, outputs={"y": np.zeros((64, 1), np.int64)})
        with pytest.raises(ParityError, match="output 'y' must be int64"):
            run_selftest(model, golden)


def test_a_perfect_variant_must_be_perfect_on_the_device():
    """A bound of 1 leaves no room for chance; other metrics stay as they are stored."""
    assert 1.0 == device_bound(stored(bound=1.0), 64)
    assert 0.95 == device_bound(stored("r2", 0.95), 64)
    assert 0.05 == device_bound(stored("max_rel_error", 0.05), 64)


@given(st.integers(1, 200), st.floats(0, 1))
def test_the_bound_for_few_samples_is_never_stricter(rows, bound):
    """It allows at least the share of failing rows that the stored bound allows, roughly."""
    found = device_bound(stored(bound=bound), rows)

    assert 0 <= found <= 1
    assert found <= bound + 1 / rows


def test_good_variants_are_rejected_once_in_a_thousand_times():
    """A variant exactly at its bound fails no more often than said."""
    rng = np.random.default_rng(1)
    for rows, bound in ((64, 0.99), (64, 0.9), (128, 0.95)):
        allowed = round(rows * (1 - device_bound(stored(bound=bound), rows)))
        failing = rng.binomial(rows, 1 - bound, size=200_000)
        assert (failing > allowed).mean() <= 1.2e-3


def test_the_figures_need_no_truth():
    """Without truth there is no accuracy among the figures."""
    with load(linear_bundle(WEIGHTS)) as model:
        golden = Golden(inputs={"x": X}, outputs={"y": X @ WEIGHTS})
        result = run_selftest(model, golden)

    assert result.passed
    assert "accuracy" not in result.figures
    assert dataclasses.asdict(result.parity)["metric"] == "within_tolerance"
