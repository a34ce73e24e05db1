"""What callers give to a model with preprocessing: as declared, or by default and said."""

import numpy as np
import pytest

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.bundle.pre_shapes import specs_after
from edgepack.converter.errors import RequestError, UnfitDataError
from edgepack.converter.raw_inputs import declared_inputs, default_steps
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.preprocess import apply_steps, parse_steps, render_steps

U8, F32 = Datatype.UINT8, Datatype.FP32


def spec(datatype: Datatype, *shape: int, name: str = "input_1") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def folder(array: np.ndarray, rate_hz: int | None = None) -> Dataset:
    """What a folder gives."""
    return Dataset(
        arrays={"image" if array.ndim == 4 else "audio": array},
        named=True,
        truth=None,
        rows=len(array),
        digest="sha256:0",
        format="folder",
        names=tuple(f"{row}.png" for row in range(len(array))),
        rate_hz=rate_hz,
    )


def npz(**arrays: np.ndarray) -> Dataset:
    rows = len(next(iter(arrays.values())))
    return Dataset(
        arrays=arrays, named=True, truth=None, rows=rows, digest="sha256:0", format="npz"
    )


PHOTOS = folder(np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8))
SOUNDS = folder(np.linspace(-1, 1, 2000, dtype=np.float32).reshape(2, 1000), rate_hz=8000)


@pytest.mark.parametrize(
    ("model", "steps", "raw", "words"),
    [
        (spec(U8, -1, 48, 64, 3), (), (U8, (-1, 48, 64, 3)), ()),
        (spec(F32, -1, 48, 64, 3), ("cast",), (U8, (-1, 48, 64, 3)), ("0 to 255",)),
        (spec(F32, -1, -1, -1, 3), ("cast",), (U8, (-1, 48, 64, 3)), ("0 to 255",)),
        (
            spec(F32, -1, 3, 48, 64),
            ("cast", "layout"),
            (U8, (-1, 48, 64, 3)),
            ("0 to 255", "NCHW"),
        ),
        (
            spec(F32, -1, 3, 32, 32),
            ("resize", "cast", "layout"),
            (U8, (-1, -1, -1, 3)),
            ("stretched from 64 by 48 to 32 by 32", "0 to 255", "NCHW"),
        ),
        (
            spec(F32, -1, 24, 32, 1),
            ("channels", "resize", "cast"),
            (U8, (-1, -1, -1, 3)),
            ("gray", "resized from 64 by 48 to 32 by 24", "0 to 255"),
        ),
        (spec(U8, -1, 1, 48, 64), ("channels", "layout"), (U8, (-1, 48, 64, 3)), ("gray", "NCHW")),
    ],
)
def test_images_are_made_what_the_model_takes(model, steps, raw, words):
    """Every step is said, values are never scaled, and the result fits the model."""
    found = default_steps([model], PHOTOS)

    assert list(steps) == [step["step"] for step in render_steps(found.steps)]
    assert raw == (found.inputs[0].datatype, found.inputs[0].shape)
    assert len(words) == len(found.messages)
    for word, message in zip(words, found.messages, strict=True):
        assert word in message
    (made,) = specs_after(found.inputs, found.steps)
    assert model.datatype is made.datatype
    array = apply_steps(found.steps, {"input_1": PHOTOS.arrays["image"]})["input_1"]
    assert all(want in (-1, got) for want, got in zip(model.shape, array.shape, strict=True))


def test_gray_images_become_coloured_for_a_model_of_three_channels():
    """The other way round."""
    found = default_steps([spec(F32, -1, 8, 8, 3)], folder(np.zeros((1, 8, 8, 1), np.uint8)))
    assert ["channels", "cast"] == [step["step"] for step in render_steps(found.steps)]
    assert "images are made coloured for the model" == found.messages[0]


@pytest.mark.parametrize(
    ("model", "steps", "raw"),
    [
        (spec(F32, -1, 1000), (), (-1, 1000)),
        (spec(F32, -1, -1), (), (-1, -1)),
        (spec(F32, -1, 400), ("window",), (-1, -1)),
        (spec(F32, -1, 1, 1000), ("reshape",), (-1, 1000)),
        (spec(F32, -1, 1600, 1), ("window", "reshape"), (-1, -1)),
    ],
)
def test_signals_are_cut_or_filled_up(model, steps, raw):
    """And get the dimension of channels that the model wants."""
    found = default_steps([model], SOUNDS)

    assert list(steps) == [step["step"] for step in render_steps(found.steps)]
    assert raw == found.inputs[0].shape
    assert ("window" in steps) == bool(found.messages)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (spec(F32, -1, 10), PHOTOS, r"no images of 1 or 3 channels: a recipe"),
        (spec(F32, -1, 8, 8, 4), PHOTOS, r"no images of 1 or 3 channels: a recipe"),
        (spec(Datatype.INT8, -1, 48, 64, 3), PHOTOS, r"takes INT8, the images are bytes"),
        (spec(F32, -1, 49, 10, 1), SOUNDS, r"which is no signal: a recipe .*log-mel"),
    ],
)
def test_what_only_a_recipe_can_say_is_told(model, data, message):
    """In one line."""
    with pytest.raises(UnfitDataError, match=message):
        default_steps([model], data)


def test_other_data_gets_no_steps():
    """An npz is taken as the model wants it, and so are several inputs."""
    two = [spec(F32, -1, 8), spec(F32, -1, 3, 48, 64, name="b")]
    for model, data in [([spec(F32, -1, 3, 2, 2)], npz(x=np.zeros((1, 2, 2, 3)))), (two, PHOTOS)]:
        found = default_steps(model, data)
        assert (tuple(model), ()) == (found.inputs, found.steps)


def test_declared_steps_say_what_callers_give():
    """The input is as the data has it, free where the steps make one size of all."""
    steps = parse_steps(
        [
            {"step": "scale", "input": "input_1", "factor": 1 / 255},
            {"step": "resize", "input": "input_1", "height": 8, "width": 8},
        ]
    )
    found = declared_inputs([spec(F32, -1, 8, 8, 3)], PHOTOS, steps)
    assert (U8, (-1, -1, -1, 3)) == (found.inputs[0].datatype, found.inputs[0].shape)


def test_only_the_size_that_a_step_gives_is_free():
    """Channels that are normalized one by one are not."""
    data = npz(x=np.zeros((2, 128, 9)))
    steps = parse_steps(
        [
            {"step": "normalize", "input": "x", "mean": [0.0] * 9, "std": [1.0] * 9},
            {"step": "window", "input": "x", "length": 100},
        ]
    )
    found = declared_inputs([spec(F32, -1, 100, 9, name="x")], data, steps)
    assert (F32, (-1, -1, 9)) == (found.inputs[0].datatype, found.inputs[0].shape)


def test_columns_are_as_the_model_takes_them():
    """Steps on a table need no array."""
    data = npz(a=np.zeros(3), b=np.zeros(3))
    model = spec(F32, -1, 2, name="x")
    found = declared_inputs([model], data, parse_steps([{"step": "scale", "input": "x"}]))
    assert (model,) == found.inputs


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"step": "scale", "input": "image"}, "input must be one of 'input_1', got 'image'"),
        (
            {"step": "scale", "input": "input_1"},
            r"must make FP32 \[-1, 3, 48, 64\] .*, they make FP32 \[-1, 48, 64, 3\]",
        ),
        ({"step": "layout", "input": "input_1", "to": "NCHW"}, r"they make UINT8 \[-1, 3, 48, 64"),
    ],
)
def test_steps_that_lead_elsewhere_are_told(step, message):
    """With what they make and what the model takes."""
    with pytest.raises(RequestError, match=message):
        declared_inputs([spec(F32, -1, 3, 48, 64)], PHOTOS, parse_steps([step]))


def test_the_rate_of_the_signals_is_the_spectrograms():
    """Otherwise every frequency would be another."""
    step = {"step": "log-mel", "input": "x", "rate": 16000, "frame": 64, "hop": 64, "mels": 4}
    with pytest.raises(RequestError, match="must have 16000 Hz as the step log-mel says, got 8000"):
        declared_inputs([spec(F32, -1, 15, 4, name="x")], SOUNDS, parse_steps([step]))
