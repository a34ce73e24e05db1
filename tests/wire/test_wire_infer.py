"""Requests and truths: the forms that callers use, and whatever else they send."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.wire import (
    InferRequest,
    Truth,
    WireError,
    WireTensor,
    parse_request,
    parse_truth,
)
from edgepack.wire.infer import object_size
from edgepack.wire.open_inference import InferAnswer, render_answer, render_infer
from edgepack.wire.topics import MAX_REQUEST_BYTES

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["request_id", "id", "inputs", "label", "value", "name", "shape", "data", "datatype", "t"]
)
OBJECTS = st.dictionaries(KEYS, VALUES | st.lists(st.dictionaries(KEYS, VALUES), max_size=2))
PAYLOADS = st.binary(max_size=100) | OBJECTS.map(lambda value: json.dumps(value).encode())


def as_json(value):
    return json.dumps(value).encode()


def test_a_flat_request_names_features():
    """A sensor's message is a request; its request id is not a feature."""
    expected = InferRequest("a7", None, {"air_temp": 298.1, "kind": "M"})
    assert expected == parse_request(as_json({"air_temp": 298.1, "kind": "M", "request_id": "a7"}))
    assert InferRequest(None, None, {"x": 1}) == parse_request(as_json({"x": 1}))


def test_an_open_inference_request_has_tensors():
    """An object with inputs is Open Inference Protocol, whose id may be a number."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]}
    expected = InferRequest("7", (WireTensor("x", "FP32", (1, 2), [[1, 2]]),), {})
    assert expected == parse_request(as_json({"id": 7, "inputs": [tensor]}))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "at least one feature"),
        ({"request_id": "a"}, "at least one feature"),
        ([1], "must be a JSON object"),
        ({"x": 1, "request_id": "a b"}, "1 to 128 printable ASCII"),
        ({"x": 1, "request_id": True}, "1 to 128 printable ASCII"),
        ({"x": 1, "request_id": "x" * 129}, "1 to 128 printable ASCII"),
        ({"inputs": [1]}, "must be an object, got int"),
        ({"inputs": [{"name": "x"}]}, "a name and a datatype"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1] * 9}]}, "at most 8 sizes"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}, "sizes >= 0"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [True]}]}, "sizes >= 0"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}, "data as a list"),
    ],
)
def test_a_malformed_request_says_what_is_wrong(document, expected):
    """The error tells a caller what was expected."""
    with pytest.raises(WireError, match=expected):
        parse_request(as_json(document))


def test_a_request_that_is_too_large_is_refused():
    """A request is at most 128 KB."""
    with pytest.raises(WireError, match=f"at most {MAX_REQUEST_BYTES} bytes"):
        parse_request(as_json({"x": "y" * MAX_REQUEST_BYTES}))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"request_id": "a", "label": "cat"}, Truth("a", "cat", None)),
        ({"request_id": 5, "label": 3}, Truth("5", "3", None)),
        ({"request_id": "a", "value": 3}, Truth("a", None, 3.0)),
        ({"request_id": "a", "value": -1.5, "more": 1}, Truth("a", None, -1.5)),
    ],
)
def test_a_truth_is_a_class_or_a_number(document, expected):
    """A class may be written as a number; it is a name all the same."""
    assert expected == parse_truth(as_json(document))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"label": "cat"}, "must have a request_id"),
        ({"request_id": "a"}, "either label or value"),
        ({"request_id": "a", "label": "x", "value": 1}, "either label or value"),
        ({"request_id": "a", "value": "1"}, "value must be a number, got str"),
        ({"request_id": "a", "value": True}, "value must be a number, got bool"),
        ({"request_id": "a", "value": 10**400}, "value must fit a float"),
        ({"request_id": "a", "label": 1.5}, "label must be a string, got float"),
        ({"request_id": "a", "label": False}, "label must be a string, got bool"),
    ],
)
def test_a_malformed_truth_says_what_is_wrong(document, expected):
    """The error tells a caller what was expected."""
    with pytest.raises(WireError, match=expected):
        parse_truth(as_json(document))


@pytest.mark.parametrize("parse", [parse_request, parse_truth])
@given(payload=PAYLOADS)
def test_whatever_the_bytes_there_is_a_value_or_the_one_error(parse, payload):
    """No message of a caller raises anything else."""
    with contextlib.suppress(WireError):
        parse(payload)


def test_a_response_has_the_form_of_the_protocol():
    """The answer names model, version, id and outputs."""
    outputs = (WireTensor("label", "BYTES", (1,), ["3"]),)
    (body,), header_bytes = render_answer(InferAnswer("digits", "1.0.0", "a7", outputs))
    assert header_bytes is None
    assert {
        "model_name": "digits",
        "model_version": "1.0.0",
        "id": "a7",
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["3"]}],
    } == json.loads(body)
    (body,), _ = render_answer(InferAnswer("digits", "1.0.0", None, outputs))
    assert "id" not in json.loads(body)


@pytest.mark.parametrize("data", [b"\0\0\x80?}{", b"}}}}}}}}", b' "\\{{{"', b"12345678"])
def test_binary_tensors_follow_the_object(data):
    """MQTT has no header that says where the JSON ends: it ends where its object does."""
    size = len(data) // 2 * 2
    tensor = WireTensor("}x{", "INT16", (size // 2,), memoryview(data[:size]))
    parts, header_bytes = render_infer(InferRequest('a"}', (tensor,), binary=True))
    payload = b"".join(parts)
    assert header_bytes == object_size(payload)
    found = parse_request(payload)
    assert (('a"}', True), (tensor,)) == ((found.request_id, found.binary), found.tensors)


def test_what_follows_an_object_must_belong_to_it():
    """A flat request has no binary data, and a newline behind it is none."""
    assert InferRequest(None, None, {"x": 1}) == parse_request(b'{"x": 1}\n')
    with pytest.raises(WireError, match="a list of inputs"):
        parse_request(b'{"x": 1}more')
    with pytest.raises(WireError, match=f"at most {MAX_REQUEST_BYTES} bytes"):
        parse_request(b"{}" + bytes(MAX_REQUEST_BYTES))
