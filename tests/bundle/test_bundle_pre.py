"""The steps of a contract's `pre`: read strictly, checked against the inputs, written one way."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from bundle_factory import small_contract
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle import parse_contract, render_contract
from edgepack.bundle.contract import Datatype, Nonfinite, TensorSpec
from edgepack.bundle.errors import ContractError
from edgepack.bundle.pre_codec import MAX_STEPS, parse_steps, render_steps
from edgepack.bundle.pre_shapes import MAX_SAMPLE_VALUES, model_inputs, specs_after
from edgepack.bundle.pre_steps import STEPS

TEXT = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text()
SCALE = {"step": "scale", "input": "x", "factor": 0.5}
MEL = {"step": "log-mel", "input": "x", "rate": 16000, "frame": 480, "hop": 320, "mels": 10}
RESIZE = {"step": "resize", "input": "x", "height": 96, "width": 64}
WINDOW = {"step": "window", "input": "x", "length": 100}
NORMALIZE = {"step": "normalize", "input": "x", "mean": [0, 1, 2], "std": [1, 1, 1]}


def spec(datatype: Datatype, *shape: int, **more) -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=shape, **more)


def after(given: TensorSpec, *pre: dict) -> tuple[Datatype, tuple[int, ...]]:
    (made,) = specs_after([given], parse_steps(pre))
    return made.datatype, made.shape


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({}, "step must be one of scale, normalize, cast"),
        ({"step": "blur", "input": "x"}, "step must be one of .*, got 'blur'"),
        ({"step": ["scale"], "input": "x"}, "step must be one of"),
        ("scale", "a step must be an object, got str"),
        ({"step": "scale"}, "missing field at input"),
        ({**SCALE, "fctor": 1}, "parameter must be one of input, factor, offset, got 'fctor'"),
        ({**SCALE, "factor": "1"}, "expected a number, got str '1' at factor"),
        ({**SCALE, "factor": float("inf")}, "factor must be finite"),
        ({**NORMALIZE, "std": [1, 1]}, "mean and std must have as many numbers"),
        ({**NORMALIZE, "std": [1, 0, 1]}, "std must be > 0, got 0.0"),
        ({**NORMALIZE, "axis": 0}, "axis must be -1 or 1 to 7, got 0"),
        ({"step": "cast", "input": "x", "datatype": "FLOAT"}, "expected one of BOOL"),
        ({"step": "transpose", "input": "x", "axes": [1, 0]}, "0 first"),
        ({"step": "transpose", "input": "x", "axes": [0, 2]}, "each of 0 to 1 once"),
        ({"step": "transpose", "input": "x", "axes": []}, "0 first"),
        ({"step": "layout", "input": "x", "to": "CHWN"}, "expected one of NHWC, NCHW"),
        ({"step": "reshape", "input": "x", "shape": [1] * 8}, "at most 7 sizes"),
        ({"step": "reshape", "input": "x", "shape": [-1]}, "sizes >= 1"),
        ({**RESIZE, "height": 0}, "height must be 1 to 8192, got 0"),
        ({**RESIZE, "method": "cubic"}, "expected one of bilinear, nearest, area"),
        ({**RESIZE, "method": "area", "antialias": True}, "antialias is for the method bilinear"),
        ({"step": "channels", "input": "x", "to": 2}, "to must be 1 or 3, got 2"),
        ({**WINDOW, "length": 1 << 30}, "length must be 1 to"),
        ({**WINDOW, "frame": 10}, "frame and hop must be given together"),
        ({**WINDOW, "frame": 101, "hop": 1}, "frame must be 1 to 100"),
        ({"step": "dct", "input": "x", "keep": 0}, "keep must be 1 to 1024, got 0"),
        ({**MEL, "power": 3}, "power must be 1 to 2"),
        ({**MEL, "fft": 256}, "fft must be 480"),
        ({**MEL, "high_hz": 9000.0}, "ascending between 0 and 8000"),
        ({**MEL, "floor": 0}, r"floor \+ offset must be > 0"),
    ],
)
def test_a_step_that_no_reader_could_apply_is_told(step, message):
    """Each in one line that begins with its place."""
    with pytest.raises(ContractError, match=message) as caught:
        parse_steps([step])

    assert "contract: pre[0]" == str(caught.value)[:16]
    assert "\n" not in str(caught.value)


def test_every_bad_step_is_told():
    """One error carries all of them."""
    with pytest.raises(ContractError) as caught:
        parse_steps([{**SCALE, "x": 1}, SCALE, {"step": "?"}])

    assert ["pre[0]", "pre[2]"] == [problem[:6] for problem in caught.value.problems]


def test_there_are_not_too_many_steps():
    """The bound is told before any is read."""
    with pytest.raises(ContractError, match="at most 32 steps, got 33"):
        parse_steps([SCALE] * (MAX_STEPS + 1))


U8, F32, F64 = Datatype.UINT8, Datatype.FP32, Datatype.FP64
IMAGE = spec(U8, -1, 480, 640, 3)
SOUND = spec(F32, -1, 16000)


@pytest.mark.parametrize(
    ("given_spec", "pre", "expected"),
    [
        (IMAGE, (SCALE,), (F32, (-1, 480, 640, 3))),
        (spec(F64, -1, 4), (SCALE,), (F64, (-1, 4))),
        (IMAGE, (NORMALIZE,), (F32, (-1, 480, 640, 3))),
        (spec(U8, -1, 2, 2, -1), (NORMALIZE,), (F32, (-1, 2, 2, 3))),
        (spec(U8, -1, 3, 2, 2), ({**NORMALIZE, "axis": 1},), (F32, (-1, 3, 2, 2))),
        (IMAGE, (RESIZE,), (U8, (-1, 96, 64, 3))),
        (spec(U8, -1, -1, -1, 3), (RESIZE,), (U8, (-1, 96, 64, 3))),
        (spec(U8, -1, 3, 9, 9), ({**RESIZE, "layout": "NCHW"},), (U8, (-1, 3, 96, 64))),
        (IMAGE, ({**RESIZE, "step": "center-crop"},), (U8, (-1, 96, 64, 3))),
        (IMAGE, ({"step": "layout", "input": "x", "to": "NCHW"},), (U8, (-1, 3, 480, 640))),
        (
            spec(U8, -1, 3, 4, 5),
            ({"step": "layout", "input": "x", "to": "NHWC"},),
            (U8, (-1, 4, 5, 3)),
        ),
        (
            spec(F32, -1, 9, 128),
            ({"step": "transpose", "input": "x", "axes": [0, 2, 1]},),
            (F32, (-1, 128, 9)),
        ),
        (IMAGE, ({"step": "cast", "input": "x", "datatype": "INT8"},), ("INT8", IMAGE.shape)),
        (IMAGE, ({"step": "channels", "input": "x", "to": 1},), (U8, (-1, 480, 640, 1))),
        (
            spec(F32, -1, 1, 4, 4),
            ({"step": "channels", "input": "x", "to": 3, "layout": "NCHW"},),
            (F32, (-1, 3, 4, 4)),
        ),
        (SOUND, (WINDOW,), (F32, (-1, 100))),
        (spec(F32, -1, -1, 2), (WINDOW,), (F32, (-1, 100, 2))),
        (SOUND, ({**WINDOW, "frame": 30, "hop": 20},), (F32, (-1, 4, 30))),
        (SOUND, (MEL,), (F32, (-1, 49, 10))),
        (SOUND, (MEL, {"step": "dct", "input": "x", "keep": 4}), (F32, (-1, 49, 4))),
        (spec(F64, -1, -1), (MEL,), (F32, (-1, -1, 10))),
        (
            SOUND,
            (MEL, {"step": "reshape", "input": "x", "shape": [49, 10, 1]}),
            (F32, (-1, 49, 10, 1)),
        ),
    ],
)
def test_the_shapes_of_steps(given_spec, pre, expected):
    """What a step makes of a datatype and a shape, free sizes included."""
    assert expected == after(given_spec, *pre)


@pytest.mark.parametrize(
    ("given_spec", "step", "message"),
    [
        (IMAGE, {**SCALE, "input": "y"}, "input must be one of 'x', got 'y'"),
        (spec(Datatype.BYTES, -1, 4), SCALE, "must be numbers, got text"),
        (spec(F32, -1, 4), NORMALIZE, "1 or 4 numbers"),
        (spec(F32, -1), NORMALIZE, "axis must be one of 1 and not the batch"),
        (spec(F32, -1, 4), {**NORMALIZE, "axis": 2}, "axis must be one of 2"),
        (IMAGE, {"step": "cast", "input": "x", "datatype": "BYTES"}, "must be of numbers"),
        (IMAGE, {"step": "transpose", "input": "x", "axes": [0, 1]}, "axes must be 4"),
        (SOUND, {"step": "layout", "input": "x", "to": "NCHW"}, "4 dimensions"),
        (SOUND, RESIZE, "4 dimensions"),
        (spec(U8, -1, 8193, 4, 3), RESIZE, "at most 8192 pixels a side"),
        (spec(Datatype.INT64, -1, 4, 4, 3), RESIZE, "8 or 16 bits or floats, got INT64"),
        (spec(U8, -1, 90, 90, 3), {**RESIZE, "step": "center-crop"}, "at least 96 by 64"),
        (spec(U8, -1, 4, 4, 4), {"step": "channels", "input": "x", "to": 1}, "1 or 3 channels"),
        (SOUND, {"step": "reshape", "input": "x", "shape": [9]}, "must have 16000 values"),
        (spec(F32, -1, -1), {"step": "reshape", "input": "x", "shape": [9]}, "must be known"),
        (IMAGE, WINDOW, "a signal must be"),
        (spec(U8, -1, 9), {**WINDOW, "value": -1.0}, "value must fit UINT8, got -1"),
        (spec(U8, -1, 9), {**WINDOW, "value": 0.5}, "value must fit UINT8, got 0.5"),
        (spec(F32, -1, 9, 1), MEL, r"a signal must be \(N, T\)"),
        (spec(F32, -1, 9), {"step": "dct", "input": "x", "keep": 10}, r"must have 10 \(keep\) to"),
        (spec(F32, -1), {"step": "dct", "input": "x", "keep": 1}, "the last dimension must"),
        (spec(F32, -1, 479), MEL, "at least 480 samples, got 479"),
        (spec(F32, -1, 9, 9, 1, nonfinite=Nonfinite.NAN), RESIZE, "takes NaN"),
        (
            spec(F32, -1, 9, nonfinite=Nonfinite.NAN),
            {"step": "cast", "input": "x", "datatype": "INT8"},
            "takes NaN",
        ),
        (spec(U8, -1, 2, 2, 4096), {**RESIZE, "height": 8192}, f"at most {MAX_SAMPLE_VALUES}"),
    ],
)
def test_a_step_that_does_not_fit_is_told(given_spec, step, message):
    """By the step that does not, and what it got."""
    with pytest.raises(ContractError, match=message) as caught:
        specs_after([given_spec], parse_steps([step]))

    assert 1 == len(caught.value.problems)


def test_a_contract_tells_what_the_model_takes():
    """Names and order stay; an input without steps is as it was."""
    other = TensorSpec(name="other", datatype=F64, shape=(-1, 2), feature_names=("a", "b"))
    contract = small_contract(inputs=(IMAGE, other), pre=(SCALE,), requires=("pre",))

    found = model_inputs(contract)

    assert ["x", "other"] == [item.name for item in found]
    assert (F32, IMAGE.shape) == (found[0].datatype, found[0].shape)
    assert other == found[1]


def test_columns_keep_their_names_and_lose_their_range():
    """A scaled column is still that column, in another unit."""
    given_spec = spec(F32, -1, 2, feature_names=("a", "b"), unit="K", minimum=0.0, maximum=9.0)
    (made,) = specs_after([given_spec], parse_steps([SCALE]))

    assert (("a", "b"), None, None) == (made.feature_names, made.unit, made.minimum)


def test_a_contract_with_steps_comes_back():
    """parse(render(x)) == x, and what was a whole number in a float's place is written as one."""
    pre = ({"step": "scale", "input": "x", "factor": 2},)
    contract = small_contract(pre=pre, requires=("pre",))

    data = render_contract(contract)

    assert contract == parse_contract(data)
    assert data == render_contract(parse_contract(data))
    (written,) = json.loads(data)["pre"]
    assert "2.0" == repr(written["factor"])
    assert ["factor", "input", "step"] == sorted(written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": (SCALE,)}, "pre needs 'pre' in requires"),
        ({"pre": ({"step": "?"},), "requires": ("pre",)}, "step must be one of"),
        ({"pre": (RESIZE,), "requires": ("pre",)}, "4 dimensions"),
        ({"pre": (SCALE,), "requires": ("pre",), "inputs": (spec(F32),)}, "must have dimensions"),
    ],
)
def test_a_contract_whose_steps_do_not_do_is_refused(changes, message):
    """By writer and reader alike."""
    with pytest.raises(ContractError, match=message):
        render_contract(small_contract(**changes))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
KEYS = sorted({field.name for kind in STEPS.values() for field in fields(kind)})


@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6),
    st.sampled_from(sorted(STEPS)),
    st.lists(st.integers(-1, 5), max_size=5),
)
def test_whatever_a_step_says_is_read_or_refused(parameters, name, shape):
    """No other error, and no shape that a contract may not have."""
    document = {"input": "x", **parameters, "step": name}
    try:
        steps = parse_steps([document])
        (made,) = specs_after([spec(U8, *shape)], steps)
    except ContractError:
        return
    assert steps == parse_steps(render_steps(steps))
    assert 1 <= len(made.shape) <= 8


def test_every_step_and_parameter_is_documented():
    """Each has its row on the page, and the bounds are the code's."""
    rows = {
        line.split("|")[1].strip(" `"): line for line in TEXT.splitlines() if line.startswith("| `")
    }
    for name, kind in STEPS.items():
        parameters = {field.name for field in fields(kind)} - {"input"}
        assert [] == [item for item in sorted(parameters) if f"`{item}`" not in rows[name]], name
    assert f"at most {MAX_STEPS} objects" in TEXT
    assert str(MAX_SAMPLE_VALUES) in TEXT
