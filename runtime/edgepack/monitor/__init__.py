"""Streaming statistics of a model at work: latency, quality, drift. Pure: no I/O, no clock."""

from edgepack.monitor.drift import DriftDetector, DriftResult
from edgepack.monitor.latency import LatencyHistogram
from edgepack.monitor.quality import (
    ClassificationQuality,
    RegressionQuality,
    TruthJoiner,
    wilson_interval,
)
from edgepack.monitor.reference import build_reference

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
