"""Datatypes of the Open Inference Protocol as numpy dtypes, and strings as bytes.

Strings live in numpy arrays of dtype object that hold `str`; in files they are a flat run of
bytes, each string a 4-byte little-endian length and its UTF-8 (the protocol's BYTES form).
"""

import struct
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from edgepack.bundle.contract import Datatype
from edgepack.runtime.errors import TensorFileError

Array: TypeAlias = npt.NDArray[Any]

DTYPES: Final[dict[Datatype, np.dtype[Any]]] = {
    Datatype.BOOL: np.dtype(np.bool_),
    Datatype.UINT8: np.dtype(np.uint8),
    Datatype.UINT16: np.dtype(np.uint16),
    Datatype.UINT32: np.dtype(np.uint32),
    Datatype.UINT64: np.dtype(np.uint64),
    Datatype.INT8: np.dtype(np.int8),
    Datatype.INT16: np.dtype(np.int16),
    Datatype.INT32: np.dtype(np.int32),
    Datatype.INT64: np.dtype(np.int64),
    Datatype.FP16: np.dtype(np.float16),
    Datatype.FP32: np.dtype(np.float32),
    Datatype.FP64: np.dtype(np.float64),
    Datatype.BYTES: np.dtype(np.object_),
}
_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}


def datatype_of(array: Array) -> Datatype | None:
    """Name the datatype of an array, or None if it has none (complex, date); text is BYTES."""
    if array.dtype.kind in "US":
        return Datatype.BYTES
    return _DATATYPES.get(array.dtype.newbyteorder("="))


def fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Tell whether a shape is what a contract expects, where -1 is free."""
    return len(shape) == len(expected) and all(
        size in (got, -1) for got, size in zip(shape, expected, strict=True)
    )


def strings(values: Iterable[str], shape: tuple[int, ...]) -> Array:
    """Make an array of dtype object that holds `str`, of the given shape."""
    flat = list(values)
    array = np.empty(len(flat), dtype=np.object_)
    array[:] = flat
    return array.reshape(shape)


def encode_strings(array: Array) -> bytes:
    r"""Write strings in C order, each as a 4-byte little-endian length and its UTF-8.

    >>> encode_strings(np.array(["a", "né"], dtype=object))
    b'\x01\x00\x00\x00a\x03\x00\x00\x00n\xc3\xa9'
    """
    parts = []
    for value in array.reshape(-1).tolist():
        text = str(value).encode()
        parts += [struct.pack("<I", len(text)), text]
    return b"".join(parts)


def decode_strings(data: bytes, *, what: str) -> list[str]:
    """Read what `encode_strings` wrote.

    Raises:
        TensorFileError: The bytes end early or are not UTF-8.
    """
    found = []
    position = 0
    while position < len(data):
        start = position + 4
        if start > len(data):
            raise TensorFileError(f"{what}: a string's length is cut off at byte {position}")
        position = start + int.from_bytes(data[position:start], "little")
        if position > len(data):
            raise TensorFileError(
                f"{what}: a string of {position - start} bytes is cut off at byte {start}"
            )
        try:
            found.append(data[start:position].decode())
        except UnicodeDecodeError as exc:
            raise TensorFileError(f"{what}: the string at byte {start} is not UTF-8") from exc
    return found
