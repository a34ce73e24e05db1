"""A small strict reader and writer of safetensors files.

The device has no safetensors wheel on 32-bit ARM, and the format is 8 bytes of header length, a
JSON header and the tensors' bytes. What the reader takes is bounded and unambiguous: tensors
follow one another without gap or overlap and fill the file. The writer lays tensors out as the
reference implementation does, so that both give the same bytes. bfloat16 and 8-bit floats have
no numpy dtype and are refused by name.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from edgepack.runtime.errors import TensorFileError
from edgepack.runtime.tensors import Array
from edgepack.trust import strict_json
from edgepack.trust.errors import DocumentError
from edgepack.trust.strict_json import JsonValue

MAX_HEADER_BYTES: Final = 1 << 20
MAX_TENSORS: Final = 4096
MAX_RANK: Final = 32  # numpy 1 has no more
_ALIGNMENT = 8
_LARGEST_NUMBER = 1 << 62
_METADATA = "__metadata__"
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
# The reference writer sorts by descending rank in this list, then by name.
_RANKS = {name: rank for rank, name in enumerate(_DTYPES)}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def parse(
    data: bytes, *, what: str = "safetensors file"
) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file.

    Args:
        data: The whole file.
        what: What the file is, for the error.

    Returns:
        The arrays by name, in the file's order, as read-only views of `data`; and the metadata.

    Raises:
        TensorFileError: The file is not exactly such a file.
    """
    header, start = _header(data, what)
    metadata = _metadata(header.pop(_METADATA, {}), what)
    if len(header) > MAX_TENSORS:
        raise TensorFileError(f"{what} must hold at most {MAX_TENSORS} tensors, got {len(header)}")
    entries = [_entry(name, entry, what) for name, entry in header.items()]
    entries.sort(key=lambda entry: (entry[3], entry[4]))
    arrays = {}
    end_of_last = 0
    for name, dtype, shape, begin, end in entries:
        if begin != end_of_last:
            raise TensorFileError(
                f"{what}: tensor {name[:80]!r} must begin at byte {end_of_last}, got {begin}"
            )
        end_of_last = end
        if start + end > len(data):
            raise TensorFileError(f"{what}: tensor {name[:80]!r} ends beyond the file")
        count = math.prod(shape)
        array = np.frombuffer(data, dtype, count, start + begin) if count else np.empty(0, dtype)
        if dtype.kind == "b" and count and int(array.view(np.uint8).max()) > 1:
            raise TensorFileError(f"{what}: tensor {name[:80]!r} holds a byte that is not a bool")
        arrays[name] = array.reshape(shape)
    if start + end_of_last != len(data):
        raise TensorFileError(
            f"{what}: tensors must fill {len(data) - start} bytes, got {end_of_last}"
        )
    return arrays, metadata


def render(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """Write a safetensors file; the same arrays always give the same bytes.

    Raises:
        ValueError: An array's dtype has no safetensors name (text, object, complex).
    """
    ordered = sorted(
        ((name, np.asarray(array)) for name, array in tensors.items()),
        key=lambda item: (-_RANKS[_dtype_name(*item)], item[0]),
    )
    header: dict[str, JsonValue] = {}
    if metadata:
        header[_METADATA] = dict(sorted(metadata.items()))
    blobs = []
    position = 0
    for name, array in ordered:
        if name == _METADATA:
            raise ValueError(f"a tensor cannot be called {_METADATA}")
        dtype_name = _dtype_name(name, array)
        blob = array.astype(_DTYPES[dtype_name], copy=False).tobytes()
        header[name] = {
            "dtype": dtype_name,
            "shape": [int(size) for size in array.shape],
            "data_offsets": [position, position + len(blob)],
        }
        position += len(blob)
        blobs.append(blob)
    text = _dump(header)
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"the header must be at most {MAX_HEADER_BYTES} bytes, got {len(text)}")
    return b"".join([len(text).to_bytes(8, "little"), text, *blobs])


def _dump(header: dict[str, JsonValue]) -> bytes:
    """Write the header with its keys in the order of the tensors, as the reference does."""
    parts = [
        strict_json.render(name)
        + b":"
        + (
            strict_json.render(entry)
            if name == _METADATA or not isinstance(entry, dict)
            else b'{"dtype":%b,"shape":%b,"data_offsets":%b}'
            % tuple(strict_json.render(entry[key]) for key in ("dtype", "shape", "data_offsets"))
        )
        for name, entry in header.items()
    ]
    return b"{" + b",".join(parts) + b"}"


def _dtype_name(name: str, array: Array) -> str:
    found = _NAMES.get(array.dtype.newbyteorder("<"))
    if found is None:
        raise ValueError(f"tensor {name!r} has dtype {array.dtype}, which safetensors cannot hold")
    return found


def _header(data: bytes, what: str) -> tuple[dict[str, JsonValue], int]:
    if len(data) < 8:
        raise TensorFileError(f"{what} must have at least 8 bytes, got {len(data)}")
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER_BYTES or 8 + size > len(data):
        raise TensorFileError(
            f"{what}: the header must be at most {min(MAX_HEADER_BYTES, len(data) - 8)} bytes, "
            f"got {size}"
        )
    text = data[8 : 8 + size]
    if not text.startswith(b"{"):
        raise TensorFileError(f"{what}: the header must begin with '{{'")
    try:
        header = strict_json.parse(
            text.rstrip(b" "), what=f"{what}: header", max_bytes=MAX_HEADER_BYTES, max_depth=4
        )
    except DocumentError as exc:
        raise TensorFileError(str(exc)) from exc
    if not isinstance(header, dict):
        raise TensorFileError(f"{what}: the header must be an object")
    return header, 8 + size


def _metadata(value: JsonValue, what: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TensorFileError(f"{what}: {_METADATA} must be an object of strings")
    found = {key: text for key, text in value.items() if isinstance(text, str)}
    if len(found) != len(value):
        raise TensorFileError(f"{what}: {_METADATA} must be an object of strings")
    return found


def _entry(
    name: str, value: JsonValue, what: str
) -> tuple[str, np.dtype[Any], tuple[int, ...], int, int]:
    where = f"{what}: tensor {name[:80]!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise TensorFileError(f"{where} must have exactly dtype, shape and data_offsets")
    dtype = _DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise TensorFileError(
            f"{where}: dtype must be one of {', '.join(sorted(_DTYPES))}, "
            f"got {str(value['dtype'])[:40]}"
        )
    shape = _naturals(value["shape"], f"{where}: shape", at_most=MAX_RANK)
    offsets = _naturals(value["data_offsets"], f"{where}: data_offsets", at_most=2)
    expected_bytes = math.prod(shape) * dtype.itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != expected_bytes:
        raise TensorFileError(
            f"{where}: data_offsets must span {expected_bytes} bytes, got {list(offsets)}"
        )
    return name, dtype, shape, offsets[0], offsets[1]


def _naturals(value: JsonValue, where: str, *, at_most: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > at_most:
        raise TensorFileError(f"{where} must be a list of at most {at_most} numbers")
    found = tuple(
        number for number in value if type(number) is int and 0 <= number < _LARGEST_NUMBER
    )
    if len(found) != len(value):
        raise TensorFileError(f"{where} must hold whole numbers from 0 up")
    return found
