"""Reads flatbuffers without trusting them: every offset is checked before it is followed.

Only what TFLite files need: tables, vectors of scalars and of tables, strings. It neither knows a
schema nor verifies what is not asked for; whoever asks for everything has verified everything.
"""

import struct
from collections.abc import Iterator
from typing import Final

from edgepack.runtime.errors import EngineError

_MAX_TABLES: Final = 4_000_000  # of a file: a million operators and their tensors
_MAX_ITEMS: Final = 50_000_000  # of all vectors that are read; constants are not
_SCALARS: Final = {"b": 1, "B": 1, "?": 1, "h": 2, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}


class DamagedFileError(EngineError):
    """An offset leads out of the file, or something is not what it must be."""


class Reader:
    """A flatbuffer's bytes, and how much of it was read.

    A hostile file can name the same table or vector many times: the counts bound the work.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._tables = 0
        self._items = 0

    def root(self) -> "Table":
        """The table that the file begins with."""
        return self.table_at(self.scalar(0, "I"))

    def scalar(self, position: int, kind: str) -> int:
        """One whole number, by its letter in `struct`."""
        if position < 0 or position + _SCALARS[kind] > len(self.data):
            raise DamagedFileError(f"an offset leads to byte {position}, behind the end")
        found: int = struct.unpack_from(f"<{kind}", self.data, position)[0]
        return found

    def table_at(self, position: int) -> "Table":
        """The table at a position."""
        self._tables += 1
        if self._tables > _MAX_TABLES:
            raise DamagedFileError(f"there are more than {_MAX_TABLES} tables")
        vtable = position - self.scalar(position, "i")
        vtable_bytes = self.scalar(vtable, "H")
        table_bytes = self.scalar(vtable + 2, "H")
        if vtable_bytes < 4 or vtable_bytes % 2 or vtable + vtable_bytes > len(self.data):
            raise DamagedFileError(f"the table at byte {position} has no valid layout")
        if table_bytes < 4 or position + table_bytes > len(self.data):
            raise DamagedFileError(f"the table at byte {position} is cut off")
        fields = struct.unpack_from(f"<{vtable_bytes // 2 - 2}H", self.data, vtable + 4)
        if any(field >= table_bytes for field in fields):
            raise DamagedFileError(f"the table at byte {position} has fields outside of it")
        return Table(self, position, fields, table_bytes)

    def numbers_at(self, position: int, kind: str) -> tuple[float, ...]:
        """A vector of numbers, by their letter in `struct`."""
        begin, count = self.vector_at(position, _SCALARS[kind])
        self._items += count
        if self._items > _MAX_ITEMS:
            raise DamagedFileError(f"there are more than {_MAX_ITEMS} numbers")
        return struct.unpack_from(f"<{count}{kind}", self.data, begin)

    def vector_at(self, position: int, item_bytes: int) -> tuple[int, int]:
        """The place of a vector's first item, and how many there are."""
        count = self.scalar(position, "I")
        begin = position + 4
        if begin + count * item_bytes > len(self.data):
            raise DamagedFileError(f"the vector at byte {position} is cut off")
        return begin, count


class Table:
    """One table; its fields are numbered as in the schema."""

    def __init__(
        self, reader: Reader, position: int, fields: tuple[int, ...], size_bytes: int
    ) -> None:
        self._reader = reader
        self._position = position
        self._fields = fields
        self._size_bytes = size_bytes

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A whole number, by its letter in `struct`."""
        offset = self._offset(field)
        if offset is None:
            return default
        if offset + _SCALARS[kind] > self._size_bytes:
            raise DamagedFileError(f"a field of the table at byte {self._position} is cut off")
        return self._reader.scalar(self._position + offset, kind)

    def has(self, field: int) -> bool:
        """Whether the field is written."""
        return self._offset(field) is not None

    def table(self, field: int) -> "Table | None":
        """A table within."""
        place = self._target(field)
        return None if place is None else self._reader.table_at(place)

    def tables(self, field: int) -> Iterator["Table"]:
        """A vector of tables, one after the other."""
        place = self._target(field)
        if place is None:
            return
        begin, count = self._reader.vector_at(place, 4)
        for index in range(count):
            at = begin + 4 * index
            yield self._reader.table_at(at + self._reader.scalar(at, "I"))

    def numbers(self, field: int, kind: str) -> tuple[float, ...]:
        """A vector of numbers, by their letter in `struct`."""
        place = self._target(field)
        return () if place is None else self._reader.numbers_at(place, kind)

    def span(self, field: int) -> tuple[int, int]:
        """The place of a vector of bytes, and their number; (0, 0) if it is not written."""
        place = self._target(field)
        return (0, 0) if place is None else self._reader.vector_at(place, 1)

    def text(self, field: int) -> str:
        """A string."""
        begin, count = self.span(field)
        try:
            return self._reader.data[begin : begin + count].decode()
        except UnicodeDecodeError as exc:
            raise DamagedFileError(f"the text at byte {begin} is not UTF-8") from exc

    def _offset(self, field: int) -> int | None:
        if field >= len(self._fields) or self._fields[field] == 0:
            return None
        return self._fields[field]

    def _target(self, field: int) -> int | None:
        offset = self._offset(field)
        if offset is None:
            return None
        if offset + 4 > self._size_bytes:
            raise DamagedFileError(f"a field of the table at byte {self._position} is cut off")
        at = self._position + offset
        step = self._reader.scalar(at, "I")
        if step < 4:
            raise DamagedFileError(f"the offset at byte {at} leads nowhere")
        return at + step
