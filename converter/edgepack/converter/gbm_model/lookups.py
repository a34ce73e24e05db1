"""Columns that are looked up in tables by the numbers of categories, ahead of an ensemble.

A category comes as its number, -1 for one that the model does not know; a bit says whether a
number is above a border. Digits and bits together are the index of a table, mixed radix. All
tables of a model are looked up at once: one product of matrices gives every index.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from onnx import TensorProto

from edgepack.converter.gbm_model.part import ML_DOMAIN, Part
from edgepack.runtime.tensors import Array

_LEAST_SPARSE: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Bit:
    """Whether a column is above a border.

    Attributes:
        column: Of the caller's matrix.
        border: A float32.
        nan_above: Whether NaN is.
    """

    column: int
    border: float
    nan_above: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """One column that is made.

    Attributes:
        digits: Category columns, the first one counting most.
        bits: Behind the digits, as places among the bits of all tables.
        keys: int64 (M,), ascending: the indices whose value is not the default.
        values: float32 (M,), theirs.
        default: Of every other index.
    """

    digits: tuple[int, ...]
    bits: tuple[int, ...]
    keys: Array
    values: Array
    default: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lookups:
    """All columns that are made of categories.

    Attributes:
        sizes: Category column → how many numbers it has, the unknown one among them.
        bits: What tables ask about numbers.
        tables: In the order of the columns that they make.
    """

    sizes: dict[int, int]
    bits: tuple[Bit, ...] = ()
    tables: tuple[Table, ...] = field(repr=False, default=())

    def strides(self, table: Table) -> tuple[Array, int]:
        """Of every digit and bit, int64 (D + B,), and the number of indices."""
        found = np.zeros(len(self.sizes) + len(self.bits), dtype=np.int64)
        places = {column: place for place, column in enumerate(self.sizes)}
        stride = 1
        for bit in reversed(table.bits):
            found[len(self.sizes) + bit] = stride
            stride *= 2
        for column in reversed(table.digits):
            found[places[column]] = stride
            stride *= self.sizes[column]
        return found, stride

    def is_dense(self, table: Table) -> bool:
        """Whether a table is stored with all its indices."""
        return self.strides(table)[1] <= max(_LEAST_SPARSE, 4 * len(table.keys))

    def size_bytes(self, table: Table) -> int:
        """How much a table takes in the file."""
        return 4 * self.strides(table)[1] if self.is_dense(table) else 12 * len(table.keys)


def add_lookups(part: Part, lookups: Lookups, x: str) -> str:
    """Add the columns behind those that there are.

    Args:
        part: Gets the nodes.
        lookups: What is looked up.
        x: Tensor of the inputs, float32 (N, F).

    Returns:
        Tensor of all columns, float32 (N, F + T).
    """
    digits = _digits(part, lookups, x)
    dense = [lookups.is_dense(table) for table in lookups.tables]
    found, order = [], []
    for wanted, add in ((True, _dense), (False, _sparse)):
        places = [place for place, is_dense in enumerate(dense) if is_dense is wanted]
        if places:
            found.append(add(part, lookups, [lookups.tables[p] for p in places], digits))
            order += places
    columns = found[0] if len(found) == 1 else part.add("Concat", *found, axis=1)
    if order != sorted(order):
        columns = part.add("Gather", columns, part.constant(np.argsort(order)), axis=1)
    return part.add("Concat", x, columns, axis=1)


def _digits(part: Part, lookups: Lookups, x: str) -> str:
    """Numbers of categories from 0 for the unknown one, and bits, int64 (N, D + B)."""
    codes = part.add("Gather", x, part.constant(np.array(list(lookups.sizes))), axis=1)
    codes = part.add("Cast", codes, to=TensorProto.INT64)
    codes = part.add("Add", codes, part.constant(np.ones(1, dtype=np.int64)))
    if not lookups.bits:
        return codes
    columns = np.array([bit.column for bit in lookups.bits])
    borders = np.array([bit.border for bit in lookups.bits], dtype=np.float32)
    numbers = part.add("Gather", x, part.constant(columns), axis=1)
    above = part.add("Greater", numbers, part.constant(borders))
    nan_above = np.array([bit.nan_above for bit in lookups.bits])
    if nan_above.any():
        missing = part.add("And", part.add("IsNaN", numbers), part.constant(nan_above))
        above = part.add("Or", above, missing)
    bits = part.add("Cast", above, to=TensorProto.INT64)
    return part.add("Concat", codes, bits, axis=1)


def _indices(
    part: Part, lookups: Lookups, tables: list[Table], digits: str
) -> tuple[str, list[int]]:
    """An index for every value of several tables, int64 (N, T), and where each table begins."""
    columns, begins, begin = [], [], 0
    for table in tables:
        strides, size = lookups.strides(table)
        columns.append(strides)
        begins.append(begin)
        begin += size
    index = part.add("MatMul", digits, part.constant(np.stack(columns, axis=1)))
    return part.add("Add", index, part.constant(np.array(begins, dtype=np.int64))), begins


def _dense(part: Part, lookups: Lookups, tables: list[Table], digits: str) -> str:
    index, _ = _indices(part, lookups, tables, digits)
    whole = []
    for table in tables:
        values = np.full(lookups.strides(table)[1], table.default, dtype=np.float32)
        values[table.keys] = table.values
        whole.append(values)
    return part.add("Gather", part.constant(np.concatenate(whole)), index, axis=0)


def _sparse(part: Part, lookups: Lookups, tables: list[Table], digits: str) -> str:
    index, begins = _indices(part, lookups, tables, digits)
    keys = [table.keys + begin for table, begin in zip(tables, begins, strict=True)]
    found = part.add(
        "LabelEncoder",
        index,
        domain=ML_DOMAIN,
        keys_int64s=np.concatenate(keys).tolist(),
        values_floats=np.concatenate([table.values for table in tables]).tolist(),
        default_float=float("nan"),
    )
    defaults = np.array([table.default for table in tables], dtype=np.float32)
    return part.add("Where", part.add("IsNaN", found), part.constant(defaults), found)
