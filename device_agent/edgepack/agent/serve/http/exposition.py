"""Prometheus' text form: names, help, labels, numbers. Knows nothing of what is measured."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


class Exposition:
    """Collects samples, family by family."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def gauge(
        self, name: str, about: str, value: float | None, labels: Mapping[str, str] | None = None
    ) -> None:
        """Add a number that goes up and down; None adds nothing."""
        self._add(name, about, "gauge", value, labels)

    def counter(
        self, name: str, about: str, value: float | None, labels: Mapping[str, str] | None = None
    ) -> None:
        """Add a number that only rises; its name ends in `_total`."""
        if not name.endswith("_total"):
            raise ValueError(f"a counter's name must end in _total, got {name}")
        self._add(name, about, "counter", value, labels)

    def histogram(
        self,
        name: str,
        about: str,
        bounds: Sequence[float],
        counts: Sequence[int],
        *,
        count: int,
        total: float,
        labels: Mapping[str, str],
    ) -> None:
        """Add a histogram.

        Args:
            name: Without `_bucket`.
            about: One line.
            bounds: Upper bounds, rising.
            counts: How many values were at most each bound.
            count: Of all values.
            total: Their sum.
            labels: By name.
        """
        lines = self._family(name, about, "histogram")
        for bound, at_most in zip(bounds, counts, strict=True):
            shown = _labels({**labels, "le": f"{bound:g}"})
            lines.append(f"{name}_bucket{shown} {at_most}")
        lines.append(f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {count}")
        lines.append(f"{name}_sum{_labels(labels)} {_number(total)}")
        lines.append(f"{name}_count{_labels(labels)} {count}")

    def render(self) -> bytes:
        """The whole text."""
        lines = [line for family in self._families.values() for line in family]
        return ("\n".join(lines) + "\n").encode()

    def _add(
        self,
        name: str,
        about: str,
        kind: str,
        value: float | None,
        labels: Mapping[str, str] | None,
    ) -> None:
        if value is None:
            return
        self._family(name, about, kind).append(f"{name}{_labels(labels or {})} {_number(value)}")

    def _family(self, name: str, about: str, kind: str) -> list[str]:
        if not _NAME.fullmatch(name):
            raise ValueError(f"a metric's name must be {_NAME.pattern}, got {name!r}")
        heading = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        return self._families.setdefault(name, heading)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + shown + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value) if isinstance(value, float) else str(int(value))
