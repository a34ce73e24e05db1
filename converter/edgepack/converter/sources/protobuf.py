"""Just enough of protobuf's wire format to tell an ONNX file from any other, without onnx."""

from pathlib import Path
from typing import BinaryIO

from edgepack.converter.errors import ModelFileError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_IR_VERSION, _GRAPH, _OPSET_IMPORT = 1, 7, 8
_LARGEST_FIELD = 30  # ModelProto has no field beyond 25
_MAX_FIELDS = 100_000


def is_onnx(path: Path, head: bytes) -> bool:
    """Tell whether a file is an ONNX model: its top-level fields are a ModelProto's.

    Raises:
        ModelFileError: It begins as an ONNX model and ends in the middle of a field.
    """
    if head[:1] != b"\x08" or not 1 <= head[1] <= 64:  # ir_version comes first in practice
        return False
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        fields = _top_level_fields(file, size_bytes)
    if fields is None:
        return False
    found, whole = fields
    if not whole and {_IR_VERSION, _GRAPH} & found:
        raise ModelFileError(f"{path.name} is a truncated ONNX model")
    return {_IR_VERSION, _GRAPH, _OPSET_IMPORT} <= found


def _top_level_fields(file: BinaryIO, size_bytes: int) -> tuple[set[int], bool] | None:
    """The numbers of the fields, and whether the last one is whole; None if it is no protobuf."""
    found: set[int] = set()
    for _ in range(_MAX_FIELDS):
        if file.tell() == size_bytes:
            return found, True
        tag = _varint(file)
        if tag is None:
            return found, False
        number, kind = tag >> 3, tag & 7
        if not 1 <= number <= _LARGEST_FIELD:
            return None
        if kind == _VARINT:
            whole = _varint(file) is not None
        elif kind == _BYTES:
            length = _varint(file)
            whole = length is not None and file.tell() + length <= size_bytes
            file.seek(length or 0, 1)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, 1)
            whole = file.tell() <= size_bytes
        else:
            return None
        found.add(number)
        if not whole:
            return found, False
    return None


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None
