"""What a model's inputs looked like when it was made: counts of each feature's values in bins.

The converter builds a reference from training rows; the bundle carries it as opaque bytes; a
device reads it and compares. Numbers are binned as float32, because that is what a device gets:
the float64 value 0.1 lies below an edge of 0.1, and its float32 form above.

A reference holds counts, edges and category names, never rows.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

MAX_FEATURES: Final = 512
MAX_CATEGORIES: Final = 64
MAX_BYTES: Final = 4 << 20
BINS: Final = 10
_FORMAT: Final = 1
_LONGEST_CATEGORY: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericFeature:
    """A column of numbers.

    Attributes:
        name: For people.
        source: Name of the model's input that it comes from, and the column in it.
        column: Column of that input, flattened to (rows, columns).
        edges: Upper edges, inclusive, of every bin but the last; ascending.
        counts: Reference rows in each bin; one more than edges.
        missing: Reference rows that were NaN.
        low, high: Smallest and largest value that was seen, infinities left out.
    """

    name: str
    source: str
    column: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeature:
    """A column of text.

    Attributes:
        name: For people.
        source: Name of the model's input that it comes from.
        column: Column of that input, flattened to (rows, columns).
        categories: The most frequent texts.
        counts: Reference rows of each category.
        other: Reference rows of all other texts.
    """

    name: str
    source: str
    column: int
    categories: tuple[str, ...]
    counts: tuple[int, ...]
    other: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Counts of every watched feature.

    Attributes:
        rows: Number of reference rows.
        features: What is watched.
    """

    rows: int
    features: tuple[NumericFeature | TextFeature, ...]


def build_reference(
    columns: Mapping[str, Array], *, feature_names: Mapping[str, Sequence[str]] | None = None
) -> bytes:
    """Count the values of a model's inputs.

    Args:
        columns: By input name: numbers or text, (N,) or (N, …); trailing dimensions are columns.
        feature_names: By input name: a name for each column. Unnamed columns are called after
            the input, with their number if there are several.

    Returns:
        JSON, the same for the same data. Of more than 512 columns it holds 512, evenly spaced.

    Raises:
        ValueError: There are no rows, or the inputs differ in their number.

    >>> reference = build_reference({"speed": np.arange(100.0)})
    >>> parse_reference(reference).features[0].counts
    (10, 10, 10, 10, 10, 10, 10, 10, 10, 10)
    """
    flat = {name: flatten(np.asarray(array)) for name, array in columns.items()}
    rows = {array.shape[0] for array in flat.values()}
    if len(rows) != 1 or rows == {0}:
        raise ValueError(f"inputs must have the same number of rows and at least 1, got {rows}")
    places = [(name, column) for name, array in flat.items() for column in range(array.shape[1])]
    if len(places) > MAX_FEATURES:
        places = [places[index * len(places) // MAX_FEATURES] for index in range(MAX_FEATURES)]
    features = []
    names: set[str] = set()
    for source, column in places:
        given = (feature_names or {}).get(source, ())
        several = flat[source].shape[1] > 1
        name = given[column] if column < len(given) else f"{source}_{column}" if several else source
        if name in names:  # two inputs may use the same names
            name = f"{source}.{column}.{name}"
        names.add(name)
        values = flat[source][:, column]
        entry = _text(values) if values.dtype.kind in "OUS" else _numbers(values)
        features.append({"name": name, "source": source, "column": column, **entry})
    document = {"format": _FORMAT, "rows": rows.pop(), "features": features}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_reference(data: bytes) -> Reference:
    """Read what `build_reference` wrote.

    Raises:
        ValueError: The bytes are not such a document.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"a drift reference must be at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        return _reference(json.loads(data))
    except (KeyError, TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"the drift reference is malformed: {str(exc)[:200]}") from exc


def flatten(array: Array) -> Array:
    """View an input as (rows, columns); numbers become float32, text stays.

    Raises:
        ValueError: The array has no dimension.
    """
    if array.ndim == 0:
        raise ValueError("an input must have rows, got a single value")
    columns = int(np.prod(array.shape[1:], dtype=np.int64))
    flat = array.reshape(array.shape[0], columns)
    return flat if flat.dtype.kind in "OUS" else flat.astype(np.float32, copy=False)


def _numbers(values: Array) -> dict[str, object]:
    present = values[~np.isnan(values)]
    finite = present[np.isfinite(present)]
    if not finite.size:
        finite = np.zeros(1, np.float32)
    # Edges are values of the data, so that a discrete feature's bins do not depend on rounding.
    steps = np.arange(1, BINS) / BINS
    edges = np.unique(np.quantile(finite, steps, method="inverted_cdf"))
    edges = edges[edges < finite.max()]
    return {
        "edges": [_short(edge) for edge in edges],
        "counts": np.bincount(bin_of(present, edges), minlength=len(edges) + 1).tolist(),
        "missing": int(values.size - present.size),
        "low": _short(finite.min()),
        "high": _short(finite.max()),
    }


def _text(values: Array) -> dict[str, object]:
    counts = Counter(str(value) for value in values.tolist())
    short = {text: count for text, count in counts.items() if len(text) <= _LONGEST_CATEGORY}
    kept = sorted(short.items(), key=lambda item: (-item[1], item[0]))[:MAX_CATEGORIES]
    return {
        "categories": [text for text, _ in kept],
        "counts": [count for _, count in kept],
        "other": int(values.size) - sum(count for _, count in kept),
    }


def bin_of(values: Array, edges: Array) -> Array:
    """Number of the bin of each value: how many edges lie below it."""
    return np.searchsorted(edges, values, side="left")


def _short(value: np.float32) -> float:
    """The shortest decimal that is the same float32."""
    return float(str(np.float32(value)))


def _reference(document: dict[str, Any]) -> Reference:
    if document["format"] != _FORMAT:
        raise ValueError(f"format must be {_FORMAT}, got {str(document['format'])[:20]}")
    rows = _natural(document["rows"])
    features = tuple(_feature(entry) for entry in document["features"])
    if rows < 1 or not 1 <= len(features) <= MAX_FEATURES:
        raise ValueError(
            f"it must have rows and 1 to {MAX_FEATURES} features, "
            f"got {rows} rows and {len(features)} features"
        )
    if len({feature.name for feature in features}) != len(features):
        raise ValueError("names of features must be unique")
    for feature in features:
        beside = feature.missing if isinstance(feature, NumericFeature) else feature.other
        if sum(feature.counts) + beside != rows:
            raise ValueError(f"feature {feature.name[:40]!r} must count {rows} rows")
    return Reference(rows=rows, features=features)


def _feature(entry: dict[str, Any]) -> NumericFeature | TextFeature:
    name, source = entry["name"], entry["source"]
    if not isinstance(name, str) or not isinstance(source, str):
        raise TypeError("a feature's name and source must be text")
    column = _natural(entry["column"])
    counts = tuple(_natural(count) for count in entry["counts"])
    if "categories" in entry:
        categories = tuple(entry["categories"])
        if not all(isinstance(text, str) for text in categories) or len(counts) != len(
            set(categories)
        ):
            raise ValueError(f"feature {name[:40]!r} must have a count for each category")
        return TextFeature(
            name=name,
            source=source,
            column=column,
            categories=categories,
            counts=counts,
            other=_natural(entry["other"]),
        )
    edges = tuple(_finite(edge) for edge in entry["edges"])
    if len(counts) != len(edges) + 1 or list(edges) != sorted(set(edges)) or len(edges) > 100:
        raise ValueError(f"feature {name[:40]!r} must have ascending edges and one count more")
    return NumericFeature(
        name=name,
        source=source,
        column=column,
        edges=edges,
        counts=counts,
        missing=_natural(entry["missing"]),
        low=_finite(entry["low"]),
        high=_finite(entry["high"]),
    )


def _finite(value: object) -> float:
    if type(value) in (int, float):
        number = float(str(value))  # a huge whole number becomes infinite, not an OverflowError
        with np.errstate(over="ignore"):
            if np.isfinite(np.float32(number)):
                return number
    raise ValueError(f"an edge must be a finite number, got {str(value)[:40]}")


def _natural(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError(f"a count must be a whole number from 0 up, got {str(value)[:40]}")
    return value
