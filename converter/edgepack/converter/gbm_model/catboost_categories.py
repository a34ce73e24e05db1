"""What CatBoost makes of categories: one-hot columns, and statistics of the target (CTRs).

The file keeps hashes of categories, not their texts: the caller says which texts there are. A
statistic is of one column or of a combination of several, of one-hot columns and of answers to
`value > border`; its table is found by the hash of all of them. The field numbers are those of the
library's published schema (libs/model/flatbuffers).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.gbm_model.city_hash import category_hashes
from edgepack.converter.gbm_model.flat_table import FlatTable
from edgepack.converter.gbm_model.lookups import Bit, Lookups, Table
from edgepack.runtime.tensors import Array

MOST_TUPLES: Final = 1 << 22
MOST_BYTES: Final = 32 << 20
_MULTIPLIER: Final = np.uint64(0x4906BA494954CB65)
_NO_HASH: Final = np.uint64((1 << 64) - 1)
_BUCKET: Final = np.dtype([("hash", "<u8"), ("index", "<u4")])
_MEAN: Final = np.dtype([("sum", "<f4"), ("count", "<i4")])
_INDEX, _FLAT_INDEX, _VALUES = 0, 1, 1
_SPLIT: Final = np.dtype([("feature", "<i4"), ("border", "<f4")])
_ONE_HOT_SPLIT: Final = np.dtype([("feature", "<i4"), ("value", "<i4")])


class _Kind(IntEnum):
    """The library's kinds of statistics."""

    BORDERS = 0
    BUCKETS = 1
    BINARIZED_MEAN = 2
    FLOAT_MEAN = 3
    COUNTER = 4
    FREQUENCY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Projection:
    """Of what a statistic is, as the file has it: numbers of features, borders, values."""

    categories: tuple[int, ...]
    splits: tuple[tuple[int, float], ...]
    one_hots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What has a table of its own."""

    projection: _Projection
    kind: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Counts:
    """The table of a statistic: a row for every hash."""

    hashes: Array  # uint64 (M,), ascending
    rows: Array
    blob: bytes
    denominator: int
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFeature:
    """A column of numbers: its place, and the answer of NaN."""

    column: int
    nan_above: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CategoryColumns:
    """The columns that are made of categories, and their borders.

    Attributes:
        lookups: How they are made.
        borders: For each of them, float32.
        unseen: How many entries of the tables no text leads to, and how many there are.
    """

    lookups: Lookups
    borders: tuple[Array, ...]
    unseen: tuple[int, int]


class CategoryReader:
    """Makes the columns.

    Args:
        places: Category feature → column of the caller's matrix.
        floats: The features of numbers, in the file's order.
        texts: Column → categories in the order of their numbers; none are known of others.
    """

    def __init__(
        self,
        places: Mapping[int, int],
        floats: list[FloatFeature],
        texts: Mapping[int, tuple[str, ...]],
    ) -> None:
        self._places = places
        self._floats = floats
        self._hashes = {
            feature: category_hashes(texts.get(column, ())).view(np.int32)
            for feature, column in places.items()
        }
        self._bits: dict[Bit, int] = {}
        self._sizes = {column: len(self._hashes[f]) + 1 for f, column in places.items()}
        self._last: tuple[_Projection, Array] | None = None  # statistics of one stand together
        self._reached: dict[tuple[_Projection, int], tuple[int, int]] = {}

    def read(
        self, one_hots: list[FlatTable], ctrs: list[FlatTable], rest: bytes
    ) -> CategoryColumns:
        """Read them all; the one-hot columns come first.

        Args:
            one_hots: As the trees' table has them.
            ctrs: The statistics, likewise.
            rest: What the file has behind its trees.

        Raises:
            UnsupportedModelError: The tables are too large for a device.
        """
        tables, borders = [], []
        for item in one_hots:
            for table in self._one_hot(item):
                tables.append(table)
                borders.append(np.array([0.5], dtype=np.float32))
        stored = dict(_stored(rest)) if ctrs else {}
        for item in ctrs:
            tables.append(self._statistic(item, stored))
            borders.append(item.array(1, np.float32))
        lookups = Lookups(sizes=self._sizes, bits=tuple(self._bits), tables=tuple(tables))
        size_bytes = sum(map(lookups.size_bytes, tables))
        if size_bytes > MOST_BYTES:
            _refuse_size(f"take {size_bytes >> 20} MB", f"{MOST_BYTES >> 20} MB")
        reached = np.array(list(self._reached.values()), dtype=np.int64).reshape(-1, 2)
        unseen, known = reached.sum(axis=0).tolist()
        return CategoryColumns(lookups=lookups, borders=tuple(borders), unseen=(unseen, known))

    def _one_hot(self, item: FlatTable) -> Iterator[Table]:
        feature = item.int32(_INDEX, -1)
        values = item.array(_VALUES, np.int32)
        hashes = self._hashes[feature]
        for value in values.tolist():
            keys = np.flatnonzero(hashes == value) + 1
            yield Table(
                digits=(self._places[feature],),
                bits=(),
                keys=keys.astype(np.int64),
                values=np.ones(len(keys), dtype=np.float32),
                default=0.0,
            )
        seen = int(np.isin(values, hashes).sum())
        alone = _Projection(categories=(feature,), splits=(), one_hots=())
        self._reached[alone, -1] = (len(values) - seen, len(values))

    def _statistic(self, item: FlatTable, stored: Mapping[_Base, _Counts]) -> Table:
        ctr = item.table(0)
        base = None if ctr is None else ctr.table(0)
        if ctr is None or base is None:
            raise ModelFileError("the CatBoost model is damaged: a statistic is of nothing")
        key = _base_of(base)
        if key not in stored:
            raise ModelFileError("the CatBoost model has no table for one of its statistics")
        counts = stored[key]
        hashes = self._grid(key.projection)
        order = np.searchsorted(counts.hashes, hashes)
        order = np.minimum(order, max(len(counts.hashes) - 1, 0))
        found = np.zeros(len(hashes), dtype=bool)
        if len(counts.hashes):
            found = (counts.hashes[order] == hashes) & self._is_known(key.projection)
        keys = np.flatnonzero(found)
        seen = len(np.unique(order[keys]))
        self._reached[key.projection, 0] = (len(counts.hashes) - seen, len(counts.hashes))
        good, total = _counted(key.kind, counts, ctr.int32(1, 0))
        rows = counts.rows[order[keys]]
        if len(rows) and int(rows.max()) >= len(good):
            raise ModelFileError("the CatBoost model's tables of categories are damaged")
        empty = counts.denominator if key.kind in (_Kind.COUNTER, _Kind.FREQUENCY) else 0
        prior = _Prior(ctr)
        return Table(
            digits=self._digits(key.projection),
            bits=tuple(self._bits[bit] for bit in self._asked(key.projection)),
            keys=keys,
            values=prior.of(good[rows], total[rows]),
            default=float(prior.of(np.zeros(1, np.float32), np.array([empty], np.float32))[0]),
        )

    def _digits(self, projection: _Projection) -> tuple[int, ...]:
        features = [*projection.categories, *(feature for feature, _ in projection.one_hots)]
        return tuple(dict.fromkeys(self._places[feature] for feature in features))

    def _asked(self, projection: _Projection) -> list[Bit]:
        found = []
        for feature, border in projection.splits:
            item = self._floats[feature]
            bit = Bit(column=item.column, border=border, nan_above=item.nan_above)
            self._bits.setdefault(bit, len(self._bits))
            found.append(bit)
        return found

    def _shape(self, projection: _Projection) -> list[int]:
        sizes = [self._sizes[column] for column in self._digits(projection)]
        return sizes + [2] * len(projection.splits)

    def _is_known(self, projection: _Projection) -> Array:
        """Of every index, whether no digit of a category whose hash matters is unknown."""
        shape = self._shape(projection)
        known = np.ones(shape, dtype=bool)
        digits = self._digits(projection)
        for feature in projection.categories:
            known &= _along(
                np.arange(shape[digits.index(self._places[feature])]) > 0,
                digits.index(self._places[feature]),
                len(shape),
            )
        return known.ravel()

    def _grid(self, projection: _Projection) -> Array:
        """The hash of every index, uint64."""
        if self._last is not None and self._last[0] == projection:
            return self._last[1]
        shape = self._shape(projection)
        count = int(np.prod([float(size) for size in shape]))
        if count > MOST_TUPLES:
            _refuse_size(f"have {count} combinations", str(MOST_TUPLES))
        digits = self._digits(projection)
        self._asked(projection)
        mixed = np.zeros(shape, dtype=np.uint64)
        for feature in projection.categories:
            own = np.concatenate([[0], self._hashes[feature].astype(np.int64)]).astype(np.uint64)
            mixed = _mixed(mixed, _along(own, digits.index(self._places[feature]), len(shape)))
        for place in range(len(projection.splits)):
            own = np.arange(2, dtype=np.uint64)
            mixed = _mixed(mixed, _along(own, len(digits) + place, len(shape)))
        for feature, value in projection.one_hots:
            own = np.concatenate([[False], self._hashes[feature] == value]).astype(np.uint64)
            mixed = _mixed(mixed, _along(own, digits.index(self._places[feature]), len(shape)))
        self._last = (projection, mixed.ravel())
        return self._last[1]


class _Prior:
    """From counts to the statistic, in float32 as the library does it."""

    def __init__(self, ctr: FlatTable) -> None:
        self._numerator = np.float32(ctr.float32(2, 0.0))
        self._denominator = np.float32(ctr.float32(3, 1.0))
        self._shift = np.float32(ctr.float32(4, 0.0))
        self._scale = np.float32(ctr.float32(5, 1.0))

    def of(self, good: Array, total: Array) -> Array:
        """The statistic, float32 (M,)."""
        share = (good + self._numerator) / (total + self._denominator)
        found: Array = (share + self._shift) * self._scale
        return found.astype(np.float32)


def _along(values: Array, axis: int, axes: int) -> Array:
    return values.reshape([-1 if place == axis else 1 for place in range(axes)])


def _mixed(before: Array, part: Array) -> Array:
    with np.errstate(over="ignore"):
        found: Array = _MULTIPLIER * (before + _MULTIPLIER * part)
    return found


def _counted(kind: int, counts: _Counts, target: int) -> tuple[Array, Array]:
    """Of every row of a table, what is counted and of how many, float32 (M,)."""
    if kind in (_Kind.BINARIZED_MEAN, _Kind.FLOAT_MEAN):
        history = np.frombuffer(counts.blob, dtype=_MEAN)
        return history["sum"].astype(np.float32), history["count"].astype(np.float32)
    if kind in (_Kind.COUNTER, _Kind.FREQUENCY):
        good = np.frombuffer(counts.blob, dtype="<i4").astype(np.float32)
        return good, np.full(len(good), counts.denominator, dtype=np.float32)
    if counts.classes < 1:
        raise ModelFileError("the CatBoost model's tables of categories are damaged")
    history = np.frombuffer(counts.blob, dtype="<i4").reshape(-1, counts.classes)
    if kind == _Kind.BUCKETS:
        chosen = history[:, target]
    elif kind == _Kind.BORDERS:
        chosen = history[:, (target if counts.classes > 2 else 0) + 1 :].sum(axis=1)
    else:
        raise UnsupportedModelError(f"CatBoost's statistic of kind {kind} has no ONNX form here")
    return chosen.astype(np.float32), history.sum(axis=1).astype(np.float32)


def _base_of(base: FlatTable) -> _Base:
    part = base.table(0)
    if part is None:
        raise ModelFileError("the CatBoost model is damaged: a statistic is of nothing")
    splits = part.array(1, _SPLIT)
    one_hots = part.array(2, _ONE_HOT_SPLIT)
    return _Base(
        projection=_Projection(
            categories=tuple(part.array(0, np.int32).tolist()),
            splits=tuple((int(item["feature"]), float(item["border"])) for item in splits),
            one_hots=tuple((int(item["feature"]), int(item["value"])) for item in one_hots),
        ),
        kind=base.int8(1),
        target=base.int32(2, 0),
    )


def _stored(rest: bytes) -> Iterator[tuple[_Base, _Counts]]:
    """The tables behind the trees, each with its size before it."""
    (count,) = struct.unpack_from("<I", rest, 0)
    place = 4
    for _ in range(count):
        (size,) = struct.unpack_from("<I", rest, place)
        place += 4
        table = FlatTable.root(rest[place : place + size])
        place += size
        base = table.table(0)
        if base is None:
            raise ModelFileError("the CatBoost model is damaged: a table is of nothing")
        buckets = np.frombuffer(table.array(1, np.uint8).tobytes(), dtype=_BUCKET)
        buckets = buckets[buckets["hash"] != _NO_HASH]
        order = np.argsort(buckets["hash"], kind="stable")
        yield (
            _base_of(base),
            _Counts(
                hashes=buckets["hash"][order],
                rows=buckets["index"][order].astype(np.int64),
                blob=table.array(2, np.uint8).tobytes(),
                denominator=table.int32(3, 0),
                classes=table.int32(4, 0),
            ),
        )


def _refuse_size(what: str, most: str) -> None:
    raise UnsupportedModelError(
        f"CatBoost's tables of categories would {what}, more than {most}: train with a smaller "
        "max_ctr_complexity, or a larger one_hot_max_size"
    )
