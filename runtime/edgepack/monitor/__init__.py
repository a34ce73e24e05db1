"""Streaming statistics of a model at work: latency, quality, drift. Pure: no I/O, no clock.

The names are imported when they are asked for: docs/adr/0004.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepack.monitor.drift import DriftDetector, DriftResult
    from edgepack.monitor.latency import LatencyHistogram
    from edgepack.monitor.quality import (
        ClassificationQuality,
        RegressionQuality,
        TruthJoiner,
        wilson_interval,
    )
    from edgepack.monitor.reference import build_reference
else:
    _HOMES = {
        "DriftDetector": "drift",
        "DriftResult": "drift",
        "LatencyHistogram": "latency",
        "ClassificationQuality": "quality",
        "RegressionQuality": "quality",
        "TruthJoiner": "quality",
        "wilson_interval": "quality",
        "build_reference": "reference",
    }

    def __getattr__(name: str) -> object:
        import importlib

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "ClassificationQuality",
    "DriftDetector",
    "DriftResult",
    "LatencyHistogram",
    "RegressionQuality",
    "TruthJoiner",
    "build_reference",
    "wilson_interval",
]
