"""Counts a window's rows in a reference's bins, many features at once."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from edgepack.monitor.reference import (
    Array,
    NumericFeature,
    Reference,
    TextFeature,
    flatten,
)

_BLOCK_ROWS: Final = 32  # rows binned at once: 512 features take 150 KB


class WindowCounter:
    """Counts of each feature's bins, and of values that the reference never saw.

    A row of `counts` is one feature: the bins of numbers and, in the last column, NaN; or the
    categories of text and, after them, all other text.

    Attributes:
        reference_counts: int64 (features, bins), the reference's own.
        counts: The same for what was added since `clear`.
        unseen: int64 (features,), values beyond the reference's range, new text, and NaN where
            it had none.
        rows: Rows added since `clear`.
    """

    def __init__(self, reference: Reference) -> None:
        bins = max(len(feature.counts) for feature in reference.features) + 1
        shape = (len(reference.features), bins)
        self.reference_counts = np.zeros(shape, np.int64)
        self.counts = np.zeros(shape, np.int64)
        self.unseen = np.zeros(shape[0], np.int64)
        self.rows = 0
        self._numbers: dict[str, list[tuple[int, NumericFeature]]] = {}
        self._texts: dict[str, list[tuple[int, TextFeature]]] = {}
        for index, feature in enumerate(reference.features):
            self.reference_counts[index, : len(feature.counts)] = feature.counts
            if isinstance(feature, NumericFeature):
                self.reference_counts[index, -1] = feature.missing
                self._numbers.setdefault(feature.source, []).append((index, feature))
            else:
                self.reference_counts[index, len(feature.counts)] = feature.other
                self._texts.setdefault(feature.source, []).append((index, feature))
        self._number_bins = {name: _NumberBins(f, bins) for name, f in self._numbers.items()}
        self._categories = {
            index: {text: position for position, text in enumerate(feature.categories)}
            for features in self._texts.values()
            for index, feature in features
        }

    def add(self, inputs: Mapping[str, Array]) -> None:
        """Count rows.

        Raises:
            ValueError: An input of the reference is missing, has other columns, is text where the
                reference has numbers, or has another number of rows than the others.
        """
        # Everything is checked before anything is counted.
        numbers = {
            name: self._columns(inputs, name, group.columns)
            for name, group in self._number_bins.items()
        }
        texts = {
            name: self._columns(inputs, name, [feature.column for _, feature in features])
            for name, features in self._texts.items()
        }
        for name, values in numbers.items():
            if values.dtype.kind != "f":
                raise ValueError(f"input {name!r} must be numbers, got {values.dtype}")
        rows = {values.shape[0] for values in (*numbers.values(), *texts.values())}
        if len(rows) != 1:
            raise ValueError(f"inputs must have the same number of rows, got {sorted(rows)}")
        for name, values in numbers.items():
            group = self._number_bins[name]
            for begin in range(0, values.shape[0], _BLOCK_ROWS):
                group.count(values[begin : begin + _BLOCK_ROWS], self.counts, self.unseen)
        for name, values in texts.items():
            for position, (index, feature) in enumerate(self._texts[name]):
                self._count_text(index, feature, values[:, position])
        self.rows += rows.pop()

    def clear(self) -> None:
        """Begin a new window."""
        self.counts[:] = 0
        self.unseen[:] = 0
        self.rows = 0

    def _columns(self, inputs: Mapping[str, Array], name: str, columns: list[int]) -> Array:
        if name not in inputs:
            raise ValueError(f"input {name!r} of the drift reference is missing")
        flat = flatten(inputs[name])
        if flat.shape[1] <= max(columns):
            raise ValueError(
                f"input {name!r} must have at least {max(columns) + 1} columns, got {flat.shape[1]}"
            )
        return flat[:, columns]

    def _count_text(self, index: int, feature: TextFeature, values: Array) -> None:
        known = self._categories[index]
        other = len(known)
        for value in values.tolist():
            position = known.get(str(value), other)
            self.counts[index, position] += 1
            if position == other and not feature.other:
                self.unseen[index] += 1


class _NumberBins:
    """The numeric features of one input, laid out for comparing a block of rows at once."""

    def __init__(self, features: list[tuple[int, NumericFeature]], bins: int) -> None:
        self.columns = [feature.column for _, feature in features]
        self._indices = np.array([index for index, _ in features])
        self._bins = bins
        edges = max(len(feature.edges) for _, feature in features)
        self._edges = np.full((len(features), edges), np.inf, np.float32)
        for position, (_, feature) in enumerate(features):
            self._edges[position, : len(feature.edges)] = feature.edges
        self._low = np.array([feature.low for _, feature in features], np.float32)
        self._high = np.array([feature.high for _, feature in features], np.float32)
        self._never_missing = np.array([feature.missing == 0 for _, feature in features])

    def count(self, values: Array, counts: Array, unseen: Array) -> None:
        """Add a block, float32 (rows, columns), to the counts of its features."""
        missing = np.isnan(values)
        bins = (values[:, :, None] > self._edges).sum(axis=2)
        bins[missing] = self._bins - 1
        np.add.at(counts, (np.broadcast_to(self._indices, bins.shape), bins), 1)
        outside = (values < self._low) | (values > self._high) | (missing & self._never_missing)
        unseen[self._indices] += outside.sum(axis=0)
