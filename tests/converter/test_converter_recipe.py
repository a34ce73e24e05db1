"""Recipes: what they say, and one line for what they may not."""

import hashlib
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.contract import Datatype, Task, TensorSpec
from edgepack.bundle.pre_shapes import specs_after
from edgepack.bundle.pre_steps import STEPS, Scale
from edgepack.converter.errors import RequestError
from edgepack.converter.recipe import (
    MAX_RECIPE_BYTES,
    Recipe,
    RecipeConvert,
    RecipeData,
    RecipeModel,
    parse_recipe,
    read_recipe,
)
from edgepack.converter.request import Precision

PAGE = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_of_the_page_is_read(tmp_path):
    """Every value comes out where it belongs."""
    path = tmp_path / "recipe.toml"
    path.write_text(EXAMPLES[0])

    found = read_recipe(path)

    expected = RecipeModel(
        name="parking-camera", version="1.2.0", task=Task.CLASSIFICATION, label=None
    )
    assert expected == found.model
    assert (96, 96) == found.image_size
    assert (
        RecipeConvert(
            formats=("onnx", "tflite"),
            precision=(Precision.FP32, Precision.INT8),
            max_drop=0.01,
            calibration="minmax",
            calibration_rows=200,
            activation="u8",
            weight="s8",
            reduce_range=True,
            per_channel=True,
            seed=7,
        )
        == found.convert
    )
    assert f"sha256:{hashlib.sha256(EXAMPLES[0].encode()).hexdigest()}" == found.digest
    image = TensorSpec(name="image", datatype=Datatype.UINT8, shape=(-1, 96, 96, 3))
    (made,) = specs_after([image], found.steps_for(["image"]))
    assert (Datatype.FP32, (-1, 3, 96, 96)) == (made.datatype, made.shape)


def test_the_second_example_leads_to_its_shape():
    """One second of sound becomes 49 frames of 40 filters."""
    found = parse_recipe(EXAMPLES[1].encode())
    sound = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, -1))
    (made,) = specs_after([sound], found.steps_for(["x"]))
    assert (-1, 49, 40, 1) == made.shape
    assert 16000 == found.data.audio_samples


def test_every_key_and_step_is_documented():
    """The table has each key, the section each step."""
    for table, kind in [("model", RecipeModel), ("data", RecipeData), ("convert", RecipeConvert)]:
        for field in fields(kind):
            assert f"`{table}.{field.name}`" in PAGE
    assert [] == [name for name in STEPS if f"`{name}`" not in PAGE]


def test_an_empty_recipe_says_nothing():
    """Every key may be left out."""
    found = parse_recipe(b"")
    assert (RecipeModel(), RecipeData(), RecipeConvert(), ()) == (
        found.model,
        found.data,
        found.convert,
        found.pre,
    )
    assert None is found.image_size


def test_one_precision_or_format_needs_no_list():
    """As on the command line."""
    found = parse_recipe(b'[convert]\nprecision = "auto"\nformats = "onnx"').convert
    assert ((Precision.AUTO,), ("onnx",)) == (found.precision, found.formats)


def test_a_step_without_an_input_is_for_the_only_one():
    """With several inputs it must name one."""
    found = parse_recipe(b'[[pre]]\nstep = "scale"\n[[pre]]\nstep = "scale"\ninput = "b"')
    assert ["a", "b"] == [step.input for step in found.steps_for(["a"])]
    with pytest.raises(RequestError, match="must name its input, one of a, b"):
        found.steps_for(["a", "b"])
    named = parse_recipe(b'[[pre]]\nstep = "scale"\ninput = "b"\nfactor = 2')
    assert (Scale(input="b", factor=2.0),) == named.steps_for(["a", "b"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "key must be one of model, data, convert, pre, got 'x'"),
        ("digest = 'a'", "key must be one of model"),
        ("[model]\nnme = 'a'", r"key in \[model\] must be one of name, version, task, label, got"),
        ('[convert]\nactivation = "s16"', "activation must be one of u8, s8, got 's16'"),
        ('[convert]\nactivation = "s8"\nweight = "u8"', "activation s8 needs weight s8"),
        ('[convert]\nreduce_range = true\nweight = "u8"', "reduce_range is for weight s8"),
        ("[convert]\nsymmetric = true", r"key in \[convert\] must be one of formats, precision"),
        ("[data]\nsize = 1", r"key in \[data\] must be one of image_size, audio_samples"),
        ("model = 1", "expected an object, got int 1 at model"),
        ("[model]\nname = 3", "expected str, got int 3 at model.name"),
        ("[model]\nname = 'a b'", r"name must be 1 to 64 of"),
        ("[model]\nversion = '1'", r"version must be SemVer"),
        ("[model]\ntask = 'x'", "expected one of classification"),
        ("[data]\nimage_size = [96]", r"image_size must be \[height, width\], each 1 to 8192"),
        ("[data]\nimage_size = [0, 9]", r"image_size must be"),
        ("[data]\naudio_samples = 0", "audio_samples must be 1 to"),
        ("[convert]\nformats = ['coreml']", "formats must be of onnx, tflite, got 'coreml'"),
        ("[convert]\nprecision = ['int4']", "expected one of auto, fp32, fp16"),
        ("[convert]\nprecision = ['auto', 'fp32']", "precision auto stands alone"),
        ("[convert]\nmax_drop = 1", "max_drop must be 0 to below 1, got 1"),
        ("[convert]\nmax_drop = nan", "max_drop must be 0 to below 1, got nan"),
        ("[convert]\nrtol = -1", "rtol must be >= 0, got -1"),
        ("[convert]\ncalibration = 'mean'", "calibration must be one of minmax, entropy"),
        ("[convert]\ncalibration_rows = 0", "calibration_rows must be 1 to"),
        ("[convert]\nseed = -1", "seed must be 0 to"),
        ("[[pre]]\nstep = 'blur'", r"pre\[0\]: step must be one of scale"),
        (
            "[[pre]]\nstep = 'scale'\nfctor = 2",
            r"pre\[0\]: scale: parameter must be one of input, factor, offset, got 'fctor'",
        ),
        ("pre = [1]", r"expected an object, got int 1 at pre\[0\]"),
        ("[pre]\nstep = 'scale'", "expected a list, got dict"),
        ("[model", "is not TOML"),
        ("a" * 40, "is not TOML"),
    ],
)
def test_a_bad_recipe_is_told(text, message, tmp_path):
    """In one line with the file's name; a recipe is a request."""
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(RequestError, match=message) as caught:
        read_recipe(path)
    assert "recipe r.toml" == str(caught.value)[:13]
    assert "\n" not in str(caught.value)
    assert 2 == caught.value.exit_code


def test_a_recipe_that_cannot_be_read_is_told(tmp_path):
    """Missing, a folder, no text, or too large."""
    with pytest.raises(RequestError, match=r"recipe no.toml cannot be read: No such file"):
        read_recipe(tmp_path / "no.toml")
    with pytest.raises(RequestError, match="cannot be read: Is a directory"):
        read_recipe(tmp_path)
    path = tmp_path / "r.toml"
    path.write_bytes(b"# \xff")
    with pytest.raises(RequestError, match="is not TOML"):
        read_recipe(path)
    path.write_bytes(b"#" * (MAX_RECIPE_BYTES + 1))
    with pytest.raises(RequestError, match="must be at most 1048576 bytes"):
        read_recipe(path)


@given(st.binary(max_size=80), st.integers(0, len(EXAMPLES[0])))
def test_whatever_a_recipe_holds_is_read_or_refused(noise, place):
    """A value or the documented error, nothing else."""
    text = EXAMPLES[0].encode()
    try:
        found = parse_recipe(text[:place] + noise + text[place + len(noise) :])
    except RequestError:
        return
    assert isinstance(found, Recipe)
