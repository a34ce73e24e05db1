"""Measures bundles (`bench_bundle`) and edgepack itself (`python -m edgepack.bench.figures`)."""

from edgepack.bench.errors import BenchError, BenchTimeoutError
from edgepack.bench.machine import Machine, describe_machine
from edgepack.bench.report import Accuracy, BenchReport, Latency, VariantFailure, VariantReport
from edgepack.bench.run import bench_bundle
from edgepack.bench.table import render_text, rich_table

__all__ = [
    "Accuracy",
    "BenchError",
    "BenchReport",
    "BenchTimeoutError",
    "Latency",
    "Machine",
    "VariantFailure",
    "VariantReport",
    "bench_bundle",
    "describe_machine",
    "render_text",
    "rich_table",
]
