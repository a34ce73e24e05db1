"""Streaming statistics of a model at work: latency, quality, drift. Pure: no I/O, no clock."""

from edgepack.monitor.latency import LatencyHistogram

__all__ = ["LatencyHistogram"]
