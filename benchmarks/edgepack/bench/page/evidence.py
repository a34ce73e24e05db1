"""A bundle's evidence.json, read as what anybody may have written."""

import math
from dataclasses import dataclass, field
from typing import Final

from edgepack.bench.errors import BenchError
from edgepack.bundle import Bundle
from edgepack.bundle.errors import BundleError
from edgepack.trust import strict_json
from edgepack.trust.decode import decode
from edgepack.trust.errors import EdgepackError
from edgepack.trust.strict_json import JsonValue

PATH: Final = "evidence.json"
_MAX_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    interval: tuple[float, float]
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts between edges; empty where all values are one."""

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Rows of true classes, columns of answered ones."""

    truth: tuple[str, ...]
    answer: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDifference:
    """How one output differs from the original's."""

    agreement: Interval | None = None
    largest: float | None = None
    differences: Histogram | None = None
    sqnr_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One model's figures: the original's, or a variant's with its differences."""

    accuracy: Interval | None = None
    recall: dict[str, Interval] = field(default_factory=dict)
    confusion: Confusion | None = None
    mae: float | None = None
    rmse: float | None = None
    errors: Histogram | None = None
    outputs: dict[str, OutputDifference] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A candidate's parity."""

    metric: str
    value: float
    rows: int
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateLine:
    """One candidate and what became of it."""

    name: str
    precision: str
    kept: bool
    reason: str | None = None
    size_bytes: int | None = None
    parity: Measured | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """How often answers change under noise on the inputs, by level and model."""

    levels: tuple[float, ...] = ()
    rows: int = 0
    changes: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """What is lost when one column's values are dealt to other rows."""

    feature: str
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The rows that set ranges."""

    rows: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All of it."""

    rows: int
    calibration: Calibration
    candidates: tuple[CandidateLine, ...]
    original: Quality
    variants: dict[str, Quality]
    robustness: Robustness = field(default_factory=Robustness)
    importance: tuple[Importance, ...] = ()


def read_evidence(bundle: Bundle) -> Evidence:
    """Read a bundle's evidence.

    Raises:
        BenchError: It has none, or it is damaged.
    """
    try:
        data = bundle.read(PATH)
    except BundleError as exc:
        raise BenchError(
            "the bundle has no evidence.json: convert the model again with this edgepack"
        ) from exc
    try:
        document = strict_json.parse(data, what=PATH, max_bytes=_MAX_BYTES)
        return decode(Evidence, document, what=PATH, ignore_unknown=True)
    except EdgepackError as exc:
        raise BenchError(f"{PATH} cannot be read: {exc}") from exc


def read_object(bundle: Bundle, path: str) -> dict[str, JsonValue]:
    """Another JSON document of the bundle, empty if there is none."""
    try:
        found = strict_json.parse(bundle.read(path), what=path, max_bytes=_MAX_BYTES)
    except EdgepackError:
        return {}
    return found if isinstance(found, dict) else {}


def shown(value: float) -> str:
    """A figure for people."""
    return f"{value:.4g}" if math.isfinite(value) else "-"
