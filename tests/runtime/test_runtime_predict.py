"""What `predict` takes, what it refuses and in which words, and what it gives."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from runtime_models import (
    binding_of,
    bundle_of,
    graph_bytes,
    linear_bundle,
    quantized_bundle,
    sum_bundle,
    tensor,
    text_bundle,
)

from edgepack.bundle.contract import Datatype, Nonfinite
from edgepack.runtime import EngineError, InputError, UnsupportedModelError, load, quick

EYE = np.eye(3)


@pytest.fixture(scope="module")
def model():
    with load(linear_bundle(EYE)) as model:
        yield model


@pytest.fixture(scope="module")
def text_model():
    with load(text_bundle()) as model:
        yield model


@pytest.mark.parametrize(
    "x",
    [
        np.array([[1, 2, 3]], np.float32),
        np.array([[1, 2, 3]], np.float64),
        np.array([[1, 2, 3]], np.float16),
        np.array([[1, 2, 3]], np.int64),
        np.array([[1, 2, 3]], np.uint8),
        np.array([[1, 2, 3]], ">f4"),
        [[1, 2, 3]],
        [(1.0, 2, np.float32(3))],
        np.array([[1, 0], [2, 0], [3, 0]], np.float32).T[:1],
        np.array([[1, 9, 2, 9, 3, 9]], np.float32)[:, ::2],
    ],
    ids=["f4", "f8", "f2", "i8", "u1", "big-endian", "lists", "tuples", "transposed", "strided"],
)
def test_array_likes_are_cast_where_nothing_is_lost(model, x):
    """Numbers of any kind and order in memory give the same answer, on every call."""
    for _ in range(4):  # the plain path first, then bound buffers
        y = model.predict({"x": x})["y"]

        assert np.float32 == y.dtype
        assert [[1.0, 2.0, 3.0]] == y.tolist()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing, got nothing"),
        ({"X": [[1, 2, 3]]}, "input 'x' is missing, got 'X'; input 'X' is not in the contract"),
        ({"x": [[1, 2, 3]], "z": 1}, "input 'z' is not in the contract, expected 'x'"),
        ({"x": [1, 2, 3]}, r"shape must be \[-1, 3\], got \[3\] \(one sample is a batch of one"),
        ({"x": [[1, 2]]}, r"shape must be \[-1, 3\], got \[1, 2\]$"),
        ({"x": [[[1, 2, 3]]]}, r"shape must be \[-1, 3\], got \[1, 1, 3\]"),
        ({"x": 1.0}, r"shape must be \[-1, 3\], got \[\]"),
        ({"x": [[1, 2], [3]]}, "must be one array, got"),
        ({"x": [["1", "2", "3"]]}, "dtype must be FP32, got <U1"),
        ({"x": [[1, 2, None]]}, "dtype must be FP32, got object"),
        ({"x": [[1, 2, 3j]]}, "dtype must be FP32, got complex128"),
        ({"x": np.zeros((1, 3), "M8[s]")}, "dtype must be FP32, got datetime64"),
        ({"x": [[1, 2, 1e300]]}, r"values must fit FP32, got 1e\+300"),
        ({"x": [[1, float("nan"), 3]]}, "must be finite, got nan at row 0, feature 'f1' .1 of 3"),
        ({"x": [[1, 2, 3], [1, 2, -np.inf]]}, "must be finite, got -inf at row 1, feature 'f2'"),
        ([[1, 2, 3]], "inputs must be a mapping of 'x' to arrays, got list"),
        (None, "inputs must be a mapping"),
    ],
)
def test_what_does_not_meet_the_contract_is_refused_in_one_line(model, inputs, message):
    """The error says what, got and expected, and the model does not run."""
    before = model.latency.count

    with pytest.raises(InputError, match=message) as caught:
        model.predict(inputs)

    assert "\n" not in str(caught.value)
    assert InputError.exit_code == 3
    assert before == model.latency.count


def test_nonfinite_values_are_refused_on_the_bound_path_too():
    """After the same shape was answered often, NaN and infinity are refused as at first."""
    with load(linear_bundle(EYE)) as model:
        for _ in range(4):
            model.predict({"x": np.ones((1, 3), np.float32)})
        for value in (np.nan, np.inf, -np.inf):
            with pytest.raises(InputError, match=f"finite, got {value} at row 0, feature 'f0'"):
                model.predict({"x": np.array([[value, 1, 1]], np.float32)})

        assert [[1, 1, 1]] == model.predict({"x": np.ones((1, 3), np.float32)})["y"].tolist()


def test_large_finite_values_are_not_taken_for_infinite():
    """Values whose squares overflow float32 are answered, without a warning."""
    x = np.array([[3e38, -3e38, 1e30]], np.float32)
    with load(linear_bundle(EYE)) as model:
        for _ in range(4):
            np.testing.assert_array_equal(x, model.predict({"x": x})["y"])


def test_nan_is_passed_on_where_the_contract_takes_it_as_missing():
    """With `nonfinite: nan`, NaN reaches the model and infinity is still refused."""
    x = np.array([[np.nan, 1, 2]], np.float32)
    with load(linear_bundle(EYE, nonfinite=Nonfinite.NAN)) as model:
        for _ in range(4):
            assert np.isnan(model.predict({"x": x})["y"]).any()
        for _ in range(4):
            with pytest.raises(InputError, match="finite or NaN, got inf"):
                model.predict({"x": np.array([[np.inf, 1, 2]], np.float32)})


@given(hnp.arrays(np.float32, (2, 3)), st.sampled_from(list(Nonfinite)))
def test_all_paths_refuse_and_answer_alike(x, nonfinite):
    """For any values, buffers and direct runs give what the plain path gives, or its error."""
    answers = []
    for warm_up, binding_bytes in ((0, 0), (4, 0), (4, quick.MAX_BINDING_BYTES)):
        with (
            mock.patch.object(quick, "MAX_BINDING_BYTES", binding_bytes),
            load(linear_bundle(EYE, nonfinite=nonfinite)) as model,
        ):
            for _ in range(warm_up):
                model.predict({"x": np.ones((2, 3), np.float32)})
            try:
                answers.append(str(model.predict({"x": x})["y"].tolist()))
            except InputError as exc:
                answers.append(str(exc))

    assert answers[0] == answers[1] == answers[2]


def test_whole_numbers_must_fit_and_floats_are_not_cut():
    """An INT8 input takes wider integers that fit; what does not fit, and floats, are refused."""
    spec = tensor("x", Datatype.INT8, (-1,))
    output = tensor("y", Datatype.INT8, (-1,))
    file = graph_bytes(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Datatype.INT8, (-1,))],
        [("y", Datatype.INT8, (-1,))],
    )
    with load(bundle_of(file, [spec], [output])) as model:
        assert [-128, 127] == model.predict({"x": [-128, 127]})["y"].tolist()
        assert [1, 0] == model.predict({"x": [True, False]})["y"].tolist()
        with pytest.raises(InputError, match="values must fit INT8, got -1 to 128"):
            model.predict({"x": [-1, 128]})
        with pytest.raises(InputError, match="dtype must be INT8, got float64"):
            model.predict({"x": [1.0]})


@pytest.mark.parametrize(
    "words",
    [
        [["a"], ["né"]],
        np.array([["a"], ["né"]]),
        np.array([["a"], ["né"]], dtype=object),
        np.array([[np.str_("a")], ["né"]], dtype=object),
        [["a"], ["né".encode()]],
        np.array([[b"a"], ["né".encode()]]),
    ],
    ids=["lists", "U", "object", "np.str_", "mixed", "bytes"],
)
def test_text_is_taken_in_every_form(text_model, words):
    """Text comes back as `str` in an array of objects."""
    answer = text_model.predict({"word": words, "number": [[1], [2]]})

    assert ["a", "né"] == answer["same"].tolist()
    assert {str} == {type(word) for word in answer["same"].tolist()}
    assert [2.0, 4.0] == answer["twice"].tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([[1.0]], "values must be text, got float at position 0"),
        (np.array([[1.0]]), r"dtype must be BYTES \(text\), got float64"),
        (np.array([["a"], [np.nan]], object), "values must be text, got float at position 1"),
        ([[None]], "values must be text, got NoneType at position 0"),
        (np.array([[b"\xff"]]), "bytes must be UTF-8"),
    ],
)
def test_what_is_not_text_is_refused(text_model, words, message):
    """A number or a missing value among text is named with its place."""
    with pytest.raises(InputError, match=message):
        text_model.predict({"word": words, "number": np.ones((len(words), 1))})


def test_everything_that_is_wrong_is_told_at_once(text_model):
    """Problems of several inputs stand in one error."""
    with pytest.raises(InputError) as caught:
        text_model.predict({"word": [[1]], "number": [["a"]]})

    assert "input 'word': values must be text" in str(caught.value)
    assert "input 'number': dtype must be FP32" in str(caught.value)


def test_inputs_must_have_the_same_number_of_rows(text_model):
    """Different numbers of rows are refused before the engine sees them."""
    with pytest.raises(InputError, match=r"same number of rows, got \[1, 2\]"):
        text_model.predict({"word": [["a"]], "number": [[1], [2]]})


def test_a_batch_without_rows_gives_outputs_without_rows(model, text_model):
    """Zero rows are a batch like any other."""
    empty = model.predict({"x": np.empty((0, 3))})["y"]
    words = text_model.predict({"word": np.empty((0, 1), object), "number": np.empty((0, 1))})

    assert ((0, 3), np.float32) == (empty.shape, empty.dtype)
    assert ((0,), object) == (words["same"].shape, words["same"].dtype)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_file_of_a_fixed_batch_answers_any_number_of_rows(rows):
    """The runtime loops and fills up the last batch; the filling is not seen."""
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    with load(linear_bundle(2 * EYE, batch=2)) as model:
        np.testing.assert_array_equal(2 * x, model.predict({"x": x})["y"], strict=True)


def test_quantized_tensors_are_scaled_at_both_ends():
    """Real values go in and come out; what is beyond the integers saturates."""
    with load(quantized_bundle()) as model:
        answer = model.predict({"x": [[0.0, 1.0], [-1000.0, 1000.0]]})

    # 0 → step 3 → (3 + 1) * 2 = 8; 1 → step 5 → 12; the limits are steps -128 and 127.
    assert [[8.0, 12.0], [-254.0, 256.0]] == answer["y"].tolist()
    assert np.float32 == answer["y"].dtype


def test_nan_cannot_go_into_a_quantized_tensor():
    """A contract that takes NaN and a file that quantizes its input contradict each other."""
    bundle = quantized_bundle()
    spec = tensor("x", Datatype.FP32, (-1, 2), nonfinite=Nonfinite.NAN)
    bundle.contract = dataclasses.replace(bundle.contract, inputs=(spec,))
    with pytest.raises(UnsupportedModelError, match="takes NaN, which its quantized tensor 'qx'"):
        load(bundle)


def test_answers_belong_to_the_caller():
    """A later call changes neither the arrays that were answered nor the caller's input."""
    with load(linear_bundle(EYE)) as model:
        kept = []
        for value in range(6):
            x = np.full((1, 3), value, np.float32)
            answer = model.predict({"x": x})["y"]
            assert answer.flags.writeable
            kept.append(answer)
            x[:] = 99

    assert [[[float(v)] * 3] for v in range(6)] == [answer.tolist() for answer in kept]


def test_several_inputs_are_answered_by_name_not_by_order():
    """The order of the mapping does not matter, on every call."""
    with load(sum_bundle(3)) as model:
        for call in range(5):
            inputs = {f"c{i}": np.array([[10.0**i * call]], np.float32) for i in (2, 0, 1)}
            assert [111.0 * call] == model.predict(inputs)["value"].tolist()


def test_every_answer_is_timed_and_refusals_are_not():
    """The latency histogram counts calls that answered."""
    with load(linear_bundle(EYE)) as model:
        for _ in range(5):
            model.predict({"x": [[1, 2, 3]]})
        with pytest.raises(InputError):
            model.predict({"x": []})

        assert 5 == model.latency.count
        assert 1_000 < model.latency.quantile(0.5) < 1e9


def test_a_closed_model_says_so():
    """After `close`, predict raises EngineError on every path; closing twice is fine."""
    model = load(linear_bundle(EYE))
    x = np.ones((1, 3), np.float32)
    for _ in range(4):
        model.predict({"x": x})
    model.close()
    model.close()

    with pytest.raises(EngineError, match="model 'test' is closed"):
        model.predict({"x": x})


def test_an_output_of_another_size_than_promised_is_an_engine_error():
    """A file that does not give what the contract says is not passed on."""
    file = graph_bytes(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Datatype.FP32, (-1, 2))],
        [("y", Datatype.FP32, (-1, 2))],
    )
    x, y = tensor("x", Datatype.FP32, (-1, 2)), tensor("y", Datatype.FP32, (-1, 3))
    with (
        load(bundle_of(file, [x], [y])) as model,
        pytest.raises(EngineError, match=r"output 'y' must have shape \[-1, 3\], got \[1, 2\]"),
    ):
        model.predict({"x": [[1, 2]]})


def test_a_file_of_another_dtype_than_the_contract_is_cast():
    """An FP64 file behind an FP32 contract takes and gives float32."""
    file = graph_bytes(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Datatype.FP64, (-1, 1))],
        [("y", Datatype.FP64, (-1, 1))],
    )
    x, y = tensor("x", Datatype.FP32, (-1, 1)), tensor("y", Datatype.FP32, (-1,))
    bundle = bundle_of(
        file,
        [x],
        [y],
        input_bindings=[binding_of(x, dtype=Datatype.FP64)],
        output_bindings=[binding_of(y, dtype=Datatype.FP64)],
    )
    with load(bundle) as model:
        for _ in range(3):
            answer = model.predict({"x": np.array([[0.1]], np.float32)})["y"]

    np.testing.assert_array_equal(np.array([0.1], np.float32), answer, strict=True)
