"""Open Inference Protocol as bytes: round trips, and whatever else comes."""

import contextlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.wire.errors import WireError
from edgepack.wire.open_inference import (
    VALUE_BYTES,
    InferAnswer,
    InferRequest,
    OutputWish,
    WireTensor,
    byte_strings,
    parse_answer,
    parse_infer,
    render_answer,
    render_infer,
)
from edgepack.wire.tensorflow_serving import parse_predict

NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
IDS = st.none() | st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128
)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def tensors(draw):
    name, shape = draw(NAMES), draw(SHAPES)
    count = math.prod(shape)
    if draw(st.booleans()):
        datatype = draw(st.sampled_from(sorted(VALUE_BYTES)))
        size = count * VALUE_BYTES[datatype]
        return WireTensor(
            name, datatype, shape, memoryview(draw(st.binary(min_size=size, max_size=size)))
        )
    values = draw(st.lists(st.integers(-9, 9), min_size=count, max_size=count))
    return WireTensor(name, "INT64", shape, values)


TENSORS = st.lists(tensors(), max_size=4, unique_by=lambda tensor: tensor.name).map(tuple)
WISHES = st.lists(st.builds(OutputWish, NAMES, st.booleans()), max_size=3).map(tuple)


def joined(parts):
    return b"".join(parts)


@settings(deadline=None)  # a busy machine is slow, and that is no defect
@given(
    request_id=IDS,
    inputs=TENSORS,
    wishes=WISHES,
    binary=st.booleans(),
)
def test_a_request_survives_the_wire(request_id, inputs, wishes, binary):
    """`parse(render(x)) == x`, with JSON and binary tensors mixed."""
    request = InferRequest(request_id, inputs, {}, wishes, binary)
    parts, header_bytes = render_infer(request)
    assert request == parse_infer(joined(parts), header_bytes)


@settings(deadline=None)
@given(outputs=TENSORS, request_id=IDS, model=NAMES)
def test_an_answer_survives_the_wire(outputs, request_id, model):
    """`parse(render(x)) == x`."""
    answer = InferAnswer(model, "1.0.0", request_id, outputs)
    parts, header_bytes = render_answer(answer)
    assert answer == parse_answer(joined(parts), header_bytes)


KEYS = st.sampled_from(
    [
        "id",
        "inputs",
        "outputs",
        "name",
        "shape",
        "data",
        "datatype",
        "parameters",
        "binary_data_size",
        "binary_data",
        "binary_data_output",
        "instances",
        "b64",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["FP32", "BYTES"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("parse", [parse_infer, parse_answer])
@settings(deadline=None)
@given(header=DOCUMENTS | st.binary(max_size=30), rest=st.binary(max_size=40), cut=st.booleans())
def test_whatever_the_bytes_there_is_a_value_or_the_one_error(parse, header, rest, cut):
    """Nothing that a caller sends raises anything else."""
    with contextlib.suppress(WireError):
        parse(header + rest, len(header) if cut else None)


@settings(deadline=None)
@given(DOCUMENTS | st.binary(max_size=30))
def test_whatever_is_sent_to_predict_there_is_a_value_or_the_one_error(body):
    """The same for TensorFlow Serving's form."""
    with contextlib.suppress(WireError):
        parse_predict(body)


def test_binary_data_is_not_copied():
    """A tensor is a view of the body that came."""
    tensor = WireTensor("x", "FP32", (2,), memoryview(b"12345678"))
    parts, header_bytes = render_infer(InferRequest(None, (tensor,)))
    body = joined(parts)
    (found,) = parse_infer(body, header_bytes).tensors
    assert found.data.obj is body


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", []), (b"\0\0\0\0", [b""]), (b"\1\0\0\0a\2\0\0\0bc", [b"a", b"bc"])],
)
def test_byte_strings_stand_behind_their_length(data, expected):
    """Four bytes, little-endian, then the value."""
    assert expected == [bytes(value) for value in byte_strings(memoryview(data), what="x")]


@pytest.mark.parametrize("data", [b"\1", b"\1\0\0\0", b"\0\0\0\0\2\0\0\0a", b"\xff\xff\xff\xffa"])
def test_byte_strings_that_are_cut_off_are_refused(data):
    """A length is never believed beyond the bytes that there are."""
    with pytest.raises(WireError, match="its last value is cut off"):
        list(byte_strings(memoryview(data), what="x"))


def test_a_header_that_repeats_has_the_data_of_its_own_request():
    """It is parsed once; what follows it is another's every time, and so are its errors."""
    tensor = {"name": "x", "datatype": "UINT8", "shape": [2]}
    header = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 2}}]}).encode()
    found = [parse_infer(header + data, len(header)) for data in (b"ab", b"cd", b"ab")]
    assert [b"ab", b"cd", b"ab"] == [bytes(one.tensors[0].data) for one in found]
    for _ in range(2):
        with pytest.raises(WireError, match="must have 2 bytes of binary data, got 1"):
            parse_infer(header + b"a", len(header))
        with pytest.raises(WireError, match="not valid JSON"):
            parse_infer(header[:-1] + b"ab", len(header) - 1)


def test_an_answer_that_repeats_is_written_as_the_first():
    """With its own data, and as one that has an id, which is never remembered."""
    answers = [
        InferAnswer("m", "1.0.0", identity, (WireTensor("y", "UINT8", (2,), memoryview(data)),))
        for identity, data in ((None, b"ab"), (None, b"cd"), ("r", b"ef"))
    ]
    (one, size), (two, _), (three, _) = map(render_answer, answers)
    assert [b"ab", b"cd", b"ef"] == [bytes(parts[1]) for parts in (one, two, three)]
    assert one[0] == two[0]
    assert size == len(one[0])
    assert json.loads(one[0]) | {"id": "r"} == json.loads(three[0])
