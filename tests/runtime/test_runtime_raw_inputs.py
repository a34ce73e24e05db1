"""A bundle with `pre`: predict takes raw data, and every path gives the same answer."""

from types import MappingProxyType

import numpy as np
import pytest
from onnx import helper
from runtime_models import FakeBundle, binding_of, bundle_of, graph_bytes, linear_bundle, tensor

from edgepack.bundle.contract import Datatype, Nonfinite
from edgepack.bundle.errors import ContractError
from edgepack.runtime import Golden, InputError, load, parse_golden, render_golden, run_selftest

PRE = (
    {"step": "resize", "input": "image", "height": 2, "width": 2, "method": "area"},
    {"step": "scale", "input": "image", "factor": 1 / 255},
    {"step": "layout", "input": "image", "to": "NCHW"},
)


def image_bundle(*, batch: int | None = None, pre=PRE, **spec) -> FakeBundle:
    """Gives the mean of each channel of float images (N, 3, 2, 2), of bytes (N, H, W, 3)."""
    rows = -1 if batch is None else batch
    model = graph_bytes(
        [helper.make_node("ReduceMean", ["pixels"], ["y"], axes=[2, 3], keepdims=0)],
        [("pixels", Datatype.FP32, (rows, 3, 2, 2))],
        [("y", Datatype.FP32, (rows, 3))],
    )
    image = tensor("image", Datatype.UINT8, (-1, -1, -1, 3), **spec)
    y = tensor("y", Datatype.FP32, (-1, 3))
    bound = binding_of(image, tensor="pixels", dtype=Datatype.FP32, batch=batch)
    return bundle_of(
        model,
        [image],
        [y],
        input_bindings=[bound],
        output_bindings=[binding_of(y, batch=batch)],
        pre=pre,
        requires=("pre",),
    )


def images(rows: int, height: int = 4, width: int = 8) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (rows, height, width, 3), dtype=np.uint8)


def means(raw: np.ndarray) -> np.ndarray:
    half = raw.astype(np.float64).reshape(len(raw), 2, 2, 2, 4, 3).mean(axis=(2, 4)).round()
    return (half / 255).mean(axis=(1, 2))


def test_raw_images_are_answered():
    """Bytes of any size go in; the model gets floats of its own size and layout."""
    raw = images(5)
    with load(image_bundle()) as model:
        found = model.predict({"image": raw})["y"]
        lists = model.predict(MappingProxyType({"image": raw.tolist()}))["y"]

    np.testing.assert_allclose(means(raw), found, atol=1e-5)
    np.testing.assert_array_equal(found, lists)


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_every_call_gives_the_same_answer(batch):
    """The plain path, the prepared one, a fixed batch and single samples agree to the bit."""
    raw = images(5)
    with load(image_bundle(batch=batch)) as model:
        first = model.predict({"image": raw})["y"]
        for _ in range(4):
            np.testing.assert_array_equal(first, model.predict({"image": raw})["y"])
        for row in range(5):
            single = model.predict({"image": raw[row : row + 1]})["y"]
            np.testing.assert_array_equal(first[row : row + 1], single)


def test_the_quick_path_answers_prepared_inputs(monkeypatch):
    """From the third call of a shape on, the adapter is not asked."""
    raw = images(1)
    with load(image_bundle()) as model:
        calls = []
        run = model._adapter.run
        monkeypatch.setattr(model._adapter, "run", lambda arrays: calls.append(1) or run(arrays))
        for size in (4, 6, 8, 10):  # sizes differ, what the model gets does not
            model.predict({"image": images(1, size)})

        assert 2 == len(calls)
        assert 4 == model.latency.count
        np.testing.assert_allclose(means(raw), model.predict({"image": raw})["y"], atol=1e-5)


def test_no_rows_give_no_rows():
    """As without steps."""
    with load(image_bundle()) as model:
        assert (0, 3) == model.predict({"image": images(0)})["y"].shape


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((1, 3, 2, 2), np.uint8), r"input 'image': shape must be \[-1, -1, -1, 3\]"),
        (np.zeros((1, 2, 2, 3), np.float32), "dtype must be UINT8, got float32"),
        (np.zeros((1, 0, 2, 3), np.uint8), "resize: images must have 1 to 8192 pixels a side"),
        (np.zeros((1, 1, 8193, 3), np.uint8), "resize: images must have 1 to 8192 pixels a side"),
    ],
)
def test_raw_inputs_are_checked_as_the_contract_says(given, message):
    """By the raw datatype and shape; the model is not run."""
    with load(image_bundle()) as model, pytest.raises(InputError, match=message):
        model.predict({"image": given})


def test_what_comes_out_infinite_is_refused():
    """Also where the quick path could answer."""
    bundle = linear_bundle(np.eye(2))
    object.__setattr__(bundle.contract, "pre", ({"step": "scale", "input": "x", "factor": 1e38},))
    with load(bundle) as model:
        for _ in range(4):
            model.predict({"x": np.ones((1, 2), np.float32)})
        with pytest.raises(InputError, match="values must be finite, got inf at row 0"):
            model.predict({"x": np.array([[1, 100]], np.float32)})


def test_nan_passes_where_it_means_missing():
    """Steps on columns keep it."""
    bundle = linear_bundle(np.eye(2), nonfinite=Nonfinite.NAN)
    object.__setattr__(bundle.contract, "pre", ({"step": "scale", "input": "x", "factor": 2},))
    with load(bundle) as model:
        found = model.predict({"x": np.array([[1, np.nan]], np.float32)})["y"]
    assert np.isnan(found).any()


def test_a_file_that_takes_bytes_gets_what_the_steps_leave():
    """A quantized input tensor is quantized after the steps."""
    model = graph_bytes(
        [helper.make_node("Identity", ["qx"], ["qy"])],
        [("qx", Datatype.INT8, (-1, 2))],
        [("qy", Datatype.INT8, (-1, 2))],
    )
    x, y = tensor("x", Datatype.UINT8, (-1, 2)), tensor("y", Datatype.FP32, (-1, 2))
    affine = {"dtype": Datatype.INT8, "scale": 0.5, "zero_point": 3}
    bundle = bundle_of(
        model,
        [x],
        [y],
        precision="int8",
        input_bindings=[binding_of(x, tensor="qx", **affine)],
        output_bindings=[binding_of(y, tensor="qy", **affine)],
        pre=({"step": "scale", "input": "x", "factor": 0.5, "offset": 1.0},),
        requires=("pre",),
    )
    with load(bundle) as loaded:
        assert [[1.0, 3.0]] == loaded.predict({"x": np.array([[0, 4]], np.uint8)})["y"].tolist()


def test_steps_that_do_not_fit_do_not_load():
    """A source that is no checked bundle gets the error of the contract."""
    with pytest.raises(ContractError, match="step must be one of"):
        load(image_bundle(pre=({"step": "?", "input": "image"},)))


def test_the_self_test_and_the_golden_samples_are_raw():
    """Golden samples hold bytes, and the self-test runs the steps."""
    raw = images(40)
    bundle = image_bundle()
    golden = Golden(inputs={"image": raw}, outputs={"y": means(raw).astype(np.float32)})
    with load(bundle) as model:
        read = parse_golden(render_golden(golden), bundle.contract)
        result = run_selftest(model, read)

    assert np.uint8 == read.inputs["image"].dtype
    assert (True, None) == (result.passed, result.reason)
