"""Golden samples as a file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from runtime_models import bundle_of, tensor

from edgepack.bundle.contract import Datatype
from edgepack.runtime import Golden, TensorFileError, parse_golden, render_golden, safetensors
from edgepack.runtime.tensors import decode_strings, encode_strings, strings

CONTRACT = bundle_of(
    b"",
    [tensor("word", Datatype.BYTES, (-1, 1)), tensor("x", Datatype.FP32, (-1, 2))],
    [tensor("label", Datatype.BYTES, (-1,)), tensor("probabilities", Datatype.FP32, (-1, 2))],
).contract


def golden(rows=3, truth=None) -> Golden:
    return Golden(
        inputs={
            "word": strings(["a", "", "né\0"][:rows], (rows, 1)),
            "x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2),
        },
        outputs={
            "label": strings(["yes", "no", "yes"][:rows], (rows,)),
            "probabilities": np.full((rows, 2), [0.25, np.nan], np.float32),
        },
        truth=truth,
    )


def assert_same(expected: Golden, actual: Golden) -> None:
    for first, second in (
        (expected.inputs, actual.inputs),
        (expected.outputs, actual.outputs),
        ({"truth": expected.truth}, {"truth": actual.truth}),
    ):
        assert list(first) == list(second)
        for name, array in first.items():
            np.testing.assert_array_equal(array, second[name])
            assert getattr(array, "dtype", None) == getattr(second[name], "dtype", None)


@pytest.mark.parametrize(
    "truth",
    [
        None,
        strings(["yes", "no", "no"], (3,)),
        np.array([1, 2, 3]),
        np.array([[1.0, 2.0]] * 3),
        np.array([True, False, True]),
    ],
    ids=["none", "text", "int", "float", "bool"],
)
def test_what_is_written_is_read(truth):
    """Numbers, text, shapes, dtypes and the order of the contract survive."""
    assert_same(golden(truth=truth), parse_golden(render_golden(golden(truth=truth)), CONTRACT))


@given(st.lists(st.text(max_size=8), max_size=6))
def test_text_survives_its_length_prefixed_form(words):
    """Any text, empty or with NUL, comes back."""
    assert words == decode_strings(encode_strings(strings(words, (len(words),))), what="words")


@given(st.binary(max_size=40))
def test_any_bytes_are_text_or_the_documented_error(data):
    """The decoder returns or raises TensorFileError."""
    try:
        decode_strings(data, what="words")
    except TensorFileError as exc:
        assert "words" in str(exc)


@given(st.data())
def test_a_damaged_file_gives_samples_or_the_documented_error(data):
    """With any byte changed or cut, the reader returns or raises TensorFileError."""
    file = bytearray(render_golden(golden(truth=np.array([1, 2, 3]))))
    at = data.draw(st.integers(0, len(file) - 1))
    if data.draw(st.booleans()):
        file[at] ^= data.draw(st.integers(1, 255))
    else:
        del file[at:]
    try:
        parsed = parse_golden(bytes(file), CONTRACT)
    except TensorFileError as exc:
        assert "\n" not in str(exc)
    else:
        assert parsed.rows == 3


def file_of(*, metadata=None, drop=(), **changes) -> bytes:
    """Write the samples with some tensors changed."""
    tensors, shapes = safetensors.parse(render_golden(golden()))
    tensors = {name: array for name, array in tensors.items() if name not in drop}
    tensors |= {name.replace("__", "."): array for name, array in changes.items()}
    return safetensors.render(tensors, shapes | (metadata or {}))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (file_of(drop=["input.x"]), "tensor 'input.x' is missing"),
        (file_of(drop=["output.label"]), "tensor 'output.label' is missing"),
        (file_of(extra=np.ones(3)), "unknown tensor 'extra'"),
        (file_of(input__x=np.ones((3, 2))), r"'input.x' must be FP32 \[-1, 2\], got float64"),
        (file_of(input__x=np.ones((3, 3), "f4")), r"got float32 \[3, 3\]"),
        (file_of(input__x=np.ones((2, 2), "f4")), "'input.x' must have 3 rows"),
        (file_of(truth=np.ones(4)), "'truth' must have 3 rows"),
        (file_of(truth=np.array(1.0)), "'truth' must have 3 rows"),
        (file_of(truth=np.ones(3, "u2")), "truth must be bool, int64, float or text, got uint16"),
        (file_of(metadata={"input.word": "x"}), "shape must be numbers and commas"),
        (file_of(metadata={"input.word": "2,1"}), "expected 2 strings, got 3"),
        (file_of(metadata={"input.x": "3,2"}), "text must be a flat U8 tensor"),
        (file_of(output__label=np.array([9, 0, 0, 0, 65], "u1")), "a string of 9 bytes is cut"),
        (file_of(output__label=np.array([9, 0], "u1")), "length is cut off"),
        (file_of(output__label=np.array([1, 0, 0, 0, 255], "u1")), "is not UTF-8"),
        (render_golden(golden(rows=0)), "at least one row, got 0"),
    ],
)
def test_what_does_not_fit_the_contract_is_refused(file, message):
    """Each way of not fitting is one line of what, got and expected."""
    with pytest.raises(TensorFileError, match=message) as caught:
        parse_golden(file, CONTRACT)
    assert "\n" not in str(caught.value)


@given(hnp.arrays(np.float32, (4, 2), elements=st.floats(width=32)))
def test_the_same_samples_give_the_same_bytes(x):
    """Bundles are reproducible only if their parts are."""
    samples = Golden(inputs={"x": x}, outputs={"y": x[:, 0]})

    assert render_golden(samples) == render_golden(samples)
