"""The strict safetensors reader and writer, against itself and the reference implementation."""

import json

import numpy as np
import pytest
import safetensors.numpy as reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError

from edgepack.runtime import safetensors
from edgepack.runtime.errors import TensorFileError

DTYPES = ["?", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "f8", "i8", "u8"]
NAMES = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda n: n != "__metadata__")
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    )
)
TENSORS = st.dictionaries(NAMES, ARRAYS, max_size=5)


def make(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


@given(TENSORS, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_is_written_is_read(tensors, metadata):
    """Rendering and parsing give the same arrays and metadata."""
    found, found_metadata = safetensors.parse(safetensors.render(tensors, metadata))

    assert metadata == found_metadata
    assert sorted(tensors) == sorted(found)
    for name, array in tensors.items():
        assert array.dtype == found[name].dtype
        np.testing.assert_array_equal(array, found[name], strict=True)


@given(TENSORS)
def test_the_bytes_are_those_of_the_reference(tensors):
    """The writer gives byte for byte what the safetensors package writes."""
    tensors = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in tensors.items()}

    assert reference.save(tensors) == safetensors.render(tensors)


@given(st.binary(max_size=300))
def test_any_bytes_give_tensors_or_the_documented_error(data):
    """Whatever the bytes, the reader returns or raises TensorFileError."""
    try:
        safetensors.parse(data)
    except TensorFileError as exc:
        assert "\n" not in str(exc)


@given(TENSORS, st.data())
def test_a_damaged_file_is_never_read_where_the_reference_refuses_it(tensors, data):
    """With any byte changed or cut, the reader is at least as strict as the reference."""
    file = bytearray(safetensors.render(tensors))
    at = data.draw(st.integers(0, len(file) - 1))
    if data.draw(st.booleans()):
        file[at] ^= data.draw(st.integers(1, 255))
    else:
        del file[at:]
    try:
        safetensors.parse(bytes(file))
    except TensorFileError:
        return
    try:
        reference.load(bytes(file))
    except SafetensorError as exc:
        pytest.fail(f"the reference refuses what we read: {exc}")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "at least 8 bytes"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "header must be at most"),
        (make(b"[]"), "must begin with '{'"),
        (make(b"{nonsense"), "not valid JSON"),
        (make(b'{"a":{},"a":{}}'), "stands twice"),
        (make({"a": 1}), "exactly dtype, shape and data_offsets"),
        (make({"a": entry(more=1)}, bytes(4)), "exactly dtype, shape and data_offsets"),
        (make({"a": entry("BF16", offsets=(0, 2))}, bytes(2)), "got BF16"),
        (make({"a": entry(shape=(-1,))}, bytes(4)), "whole numbers from 0"),
        (make({"a": entry(shape=(1.0,))}, bytes(4)), "whole numbers from 0"),
        (make({"a": entry(shape=(True,))}, bytes(4)), "whole numbers from 0"),
        (make({"a": entry(shape=(2,))}, bytes(4)), "must span 8 bytes"),
        (make({"a": entry(offsets=(4, 8))}, bytes(8)), "must begin at byte 0"),
        (make({"a": entry(), "b": entry()}, bytes(4)), "must begin at byte 4"),
        (make({"a": entry()}, bytes(3)), "ends beyond the file"),
        (make({"a": entry()}, bytes(5)), "must fill 5 bytes, got 4"),
        (make({"a": entry("BOOL", (2,), (0, 2))}, b"\x01\x02"), "not a bool"),
        (make({"__metadata__": {"a": 1}}), "object of strings"),
        (make({"__metadata__": []}), "object of strings"),
        (make({"a": entry(shape=(1 << 61, 1 << 61), offsets=(0, 4))}, bytes(4)), "must span"),
        (make({"a": entry(shape=[1] * 33)}, bytes(4)), "at most 32"),
    ],
)
def test_each_malformation_has_its_message(file, message):
    """Each way of being wrong is refused in one line that says what is wrong."""
    with pytest.raises(TensorFileError, match=message) as caught:
        safetensors.parse(file)

    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_arrays_cannot_be_written_to():
    """Parsed arrays are views of the file's bytes and read-only."""
    found, _ = safetensors.parse(safetensors.render({"a": np.ones(3)}))

    with pytest.raises(ValueError, match="read-only"):
        found["a"][0] = 2


def test_what_has_no_name_in_the_format_is_not_written():
    """Text and complex numbers are refused by the writer."""
    for array in (np.array(["a"]), np.array(["a"], object), np.array([1j])):
        with pytest.raises(ValueError, match="which safetensors cannot hold"):
            safetensors.render({"a": array})


def test_a_header_or_a_number_of_tensors_beyond_the_limit_is_refused():
    """More than 4096 tensors, or more than 1 MiB of header, are not looked at."""
    many = {f"t{index}": np.empty(0) for index in range(safetensors.MAX_TENSORS + 1)}

    with pytest.raises(TensorFileError, match="at most 4096 tensors, got 4097"):
        safetensors.parse(safetensors.render(many))
    with pytest.raises(TensorFileError, match="header must be at most 1048576 bytes"):
        safetensors.parse(make(b"{" + b" " * safetensors.MAX_HEADER_BYTES + b"}"))
    with pytest.raises(ValueError, match="header must be at most 1048576"):
        safetensors.render({"x" * safetensors.MAX_HEADER_BYTES: np.empty(0)})
