"""Long lists of numbers: what the quick parser gives is what the ordinary one gives."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_here import http_here
from support.tiny_bundle import tiny_model, write_tiny_bundle

from edgepack.agent.serve.decimal_text import parse_numbers
from edgepack.wire.errors import WireError
from edgepack.wire.number_text import LONG_BYTES, NumberText
from edgepack.wire.open_inference import parse_infer

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(-1e6, 1e6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1, 1, width=32),
    st.decimals(-9999, 9999, places=4).map(float),
)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": ")])


@given(st.lists(NUMBERS, min_size=1, max_size=30), SEPARATORS)
def test_it_is_what_the_ordinary_parser_gives(numbers, separators):
    """Bit by bit for float64, rounded once more for float32; or it is left to that parser."""
    text = json.dumps(numbers, separators=separators).encode()
    expected = np.array(json.loads(text), np.float64)
    found = parse_numbers(text, expected.shape, F64)
    assert found is None or expected.tolist() == found.tolist()
    found = parse_numbers(text, expected.shape, F32)
    with np.errstate(over="ignore"):
        assert found is None or expected.astype(F32).tolist() == found.tolist()


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=30))
def test_single_precision_survives(numbers):
    """What a client makes of float32 values comes back as the same values, and quickly."""
    values = [float(number) for number in numbers]
    found = parse_numbers(json.dumps(values).encode(), (len(values),), F32)
    plain = all(1e-4 <= abs(value) < 1e5 and value * 2**20 % 1 == 0 for value in values)
    assert found is not None or not plain
    assert found is None or values == found.tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64, np.float64])
def test_whole_numbers(dtype):
    """Integers stay exact; what an unsigned type cannot hold is left to the ordinary parser."""
    found = parse_numbers(b"[0,7,99999999]", (3,), np.dtype(dtype))
    assert ([0, 7, 99999999], np.dtype(dtype)) == (found.tolist(), found.dtype)
    negative = parse_numbers(b"[-1]", (1,), np.dtype(dtype))
    assert negative is None if np.dtype(dtype).kind == "u" else [-1] == negative.tolist()


def test_nested_lists_have_the_shape():
    """Rows within rows are taken when they are as the shape says."""
    array = np.arange(24.0).reshape(2, 3, 4) / 8
    for text in (json.dumps(array.tolist()), json.dumps(array.tolist(), separators=(",", ":"))):
        found = parse_numbers(text.encode(), (2, 3, 4), F32)
        assert array.ravel().tolist() == found.tolist()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[", "]", "[]", "[,]", "[1,]", "[,1]", "[1,,2]", "1,2", "[1 2]", "[1, 2", "[1,  2]"),
        *("[01,2]", "[+1,2]", "[1.,2]", "[.5,2]", "[1..2,3]", "[1.2.3,4]", "[-,1]", "[--1,2]"),
        *("[1-2,3]", "[1e,2]", "[e5,2]", "[1e5.5,2]", "[1ee5,2]", "[1e5e5,2]", "[01e5,2]"),
        *("[[1,2]]", "[[1],[2]]", "[1,[2]]", "[1]2", "[[1]2]", "[[1],2[3]]", "[1,2,3]", "[1]"),
        *("[123456789012345678901,2]", "[1\n,2]"),
    ],
)
def test_what_is_odd_is_left_to_the_ordinary_parser(text):
    """No JSON that is wrong becomes numbers, and no nesting that is not the shape's."""
    assert parse_numbers(text.encode(), (2,), F32) is None


@given(st.text(alphabet="0123456789.,-eE[] ", max_size=40))
def test_whatever_the_text_it_is_never_more_generous(text):
    """Where it gives numbers, the ordinary parser gives the same."""
    for shape in ((1,), (2,), (1, 2), (2, 1)):
        found = parse_numbers(text.encode(), shape, F64)
        if found is not None:
            expected = np.array(json.loads(text), np.float64)
            assert expected.ravel().tolist() == found.tolist()
            assert expected.ndim == 1 or expected.shape == shape


def request(data, **more):
    size = len(json.loads(data)) // 4
    shape = json.dumps([size, 4])
    head = f'{{"id": "a", "inputs": [{{"name": "x", "datatype": "FP32", "shape": {shape}, '
    return (head + f'"data": {data}}}], "outputs": [{{"name": "probabilities"}}]}}').encode()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with http_here() as server:
        server.put("tiny", write_tiny_bundle(tmp_path_factory.mktemp("bundle")))
        yield server


@pytest.mark.parametrize("indent", [None, 1])
def test_a_long_request_is_answered_like_a_short_one(here, indent):
    """Through the quick parser, and with line breaks that it leaves alone."""
    x = np.round(np.random.default_rng(1).normal(size=(2000, 4)), 6)
    data = json.dumps(x.ravel().tolist(), indent=indent)
    assert len(data) > LONG_BYTES
    status, answer, _ = here.ask("POST", "/v2/models/tiny/infer", request(data))
    assert 200 == status
    expected = tiny_model().predict(x)["probabilities"]
    np.testing.assert_allclose(expected.ravel(), answer["outputs"][0]["data"], rtol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("1.5,", "01.5,", "not valid JSON"),
        ("1.5,", "1.5,,", "not valid JSON"),
        ("1.5,", "1.5],[", "not valid JSON"),
        ("1.5,", "[1.5],", "at the same depth"),
        ("1.5,", "1e999,", "must be finite"),
        ("1.5,", "1.5,1.5,", "must have"),
    ],
)
def test_a_long_list_that_is_wrong_is_a_clear_error(here, old, new, expected):
    """The errors are those of a short one."""
    data = json.dumps([1.5] * 8000)
    body = request(data).replace(old.encode(), new.encode(), 1)
    status, answer, _ = here.ask("POST", "/v2/models/tiny/infer", body)
    assert 400 == status
    assert expected in answer["error"]


def test_only_values_are_taken_out():
    """A text that looks like data stays a text; a long list elsewhere is ignored as ever."""
    data = "[" + "1," * LONG_BYTES + "1]"
    name = '\\"data\\": ' + data
    tensor = f'{{"name": "{name}", "datatype": "FP32", "shape": [1], "data": [1]}}'
    found = parse_infer(f'{{"data": {data}, "inputs": [{tensor}]}}'.encode())
    assert json.loads(f'"{name}"') == found.tensors[0].name
    assert [1] == found.tensors[0].data
    long = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [9], "data": {data}}}]}}'
    assert NumberText(data.encode()) == parse_infer(long.encode()).tensors[0].data
    with pytest.raises(WireError, match="not valid JSON"):
        parse_infer(long.encode()[:-3])


def test_the_source_of_exactness_holds():
    """Below 2^53 the quotient by a power of ten is the nearest float64."""
    for number in (9007199254740991, 123456789012345, 1):
        for places in range(1, 8):
            text = f"{number // 10**places}.{number % 10**places:0{places}d}"
            found = parse_numbers(f"[{text}]".encode(), (1,), F64)
            assert found is None or math.isclose(float(text), found[0], rel_tol=0, abs_tol=0)
