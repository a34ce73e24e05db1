"""Reads tables of a flatbuffer, every offset checked: the files come from anywhere.

A flatbuffer is a tree of tables. A table begins with the distance back to its list of fields,
which gives each field's place in the table, or 0 where it is absent.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.runtime.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatTable:
    """One table. Whatever does not lie inside the buffer is a `struct.error` or a ValueError.

    Attributes:
        data: The whole buffer.
        start: Where the table begins.
    """

    data: bytes = field(repr=False)
    start: int

    @classmethod
    def root(cls, data: bytes) -> "FlatTable":
        """The table that a buffer begins with."""
        return cls(data=data, start=_unpack("<I", data, 0))

    def table(self, slot: int) -> "FlatTable | None":
        """A field that is a table."""
        place = self._place(slot)
        return None if place is None else self._at(place)

    def tables(self, slot: int) -> list["FlatTable"]:
        """A field that is a list of tables."""
        begin, count = self._vector(slot, 4)
        return [self._at(begin + 4 * index) for index in range(count)]

    def length(self, slot: int) -> int:
        """How long a list is; 0 if it is absent."""
        return self._vector(slot, 1)[1]

    def array(self, slot: int, dtype: "type | np.dtype[Any]") -> Array:
        """A field that is a list of numbers or structs, little-endian; empty if it is absent."""
        kind: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
        begin, count = self._vector(slot, kind.itemsize)
        return np.frombuffer(self.data, dtype=kind, count=count, offset=begin)

    def text(self, slot: int) -> str:
        """A field that is text; empty if it is absent."""
        begin, count = self._vector(slot, 1)
        return self.data[begin : begin + count].decode(errors="replace")

    def int32(self, slot: int, default: int = 0) -> int:
        """A field that is a whole number of 32 bits."""
        return int(self._scalar("<i", slot, default))

    def int8(self, slot: int, default: int = 0) -> int:
        """A field that is a whole number of 8 bits."""
        return int(self._scalar("<b", slot, default))

    def float32(self, slot: int, default: float) -> float:
        """A field that is a float32."""
        return float(self._scalar("<f", slot, default))

    def float64(self, slot: int, default: float) -> float:
        """A field that is a float64."""
        return float(self._scalar("<d", slot, default))

    def _scalar(self, kind: str, slot: int, default: float) -> Any:  # noqa: ANN401  (int or float)
        place = self._place(slot)
        return default if place is None else _unpack(kind, self.data, place)

    def _place(self, slot: int) -> int | None:
        fields = self.start - _unpack("<i", self.data, self.start)
        if 4 + 2 * slot >= _unpack("<H", self.data, fields):
            return None
        offset = _unpack("<H", self.data, fields + 4 + 2 * slot)
        return self.start + offset if offset else None

    def _at(self, place: int) -> "FlatTable":
        return FlatTable(data=self.data, start=place + _unpack("<I", self.data, place))

    def _vector(self, slot: int, item_bytes: int) -> tuple[int, int]:
        place = self._place(slot)
        if place is None:
            return 0, 0
        begin = place + _unpack("<I", self.data, place)
        count = _unpack("<I", self.data, begin)
        if begin + 4 + count * item_bytes > len(self.data):
            raise ValueError("a list reaches beyond the end")
        return begin + 4, count


def _unpack(kind: str, data: bytes, place: int) -> Any:  # noqa: ANN401  (int or float)
    if place < 0:
        raise ValueError("an offset points before the beginning")
    return struct.unpack_from(kind, data, place)[0]
