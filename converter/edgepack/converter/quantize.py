"""Decides whether int8 can gain anything, and asks a child process for it."""

from collections.abc import Mapping

from edgepack.converter.draft import Candidate
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sources.source import Exported, FileSummary
from edgepack.converter.tools.ask import ask_tool
from edgepack.converter.tools.tool import Quantization, ToolJob
from edgepack.converter.worker_process import WorkerProcess
from edgepack.runtime.tensors import Array

NAME = "onnx-int8"
METHODS = ("static", "dynamic")  # tried in this order; the first that is good enough is kept
WORKER_SOURCE = "onnx_file"
WORKER_FILE_BYTES = 8 << 30  # the quantizer works on files
LEAST_WEIGHTS = 2048
_LARGEST_PART = 0.95
_KINDS = (
    ("TreeEnsemble", "a tree ensemble compares numbers and multiplies none"),
    ("SVM", "a support vector machine is one operator that has no 8-bit form"),
    ("Linear", "a linear model is one small operator that has no 8-bit form"),
)


def nothing_to_quantize(summary: FileSummary) -> str | None:
    """Why int8 would gain nothing, or None if it may."""
    if summary.weights >= LEAST_WEIGHTS:
        return None
    if summary.weights == 0:
        for mark, reason in _KINDS:
            if any(mark in operator for operator in summary.operators):
                return f"nothing to quantize: {reason}"
        return "nothing to quantize: the model has no MatMul, Gemm or Conv with constant weights"
    return (
        f"nothing to gain: the model has {summary.weights} weights that could be 8-bit, "
        f"and below {LEAST_WEIGHTS} the scales cost more than is saved"
    )


def not_smaller(int8: Candidate, fp32: Candidate) -> str | None:
    """Why a quantized file is not worth packing, or None."""
    if len(int8.data) <= _LARGEST_PART * len(fp32.data):
        return None
    return f"not smaller: {len(int8.data)} bytes against {len(fp32.data)} in fp32"


def quantize(
    worker: WorkerProcess, fp32: Candidate, calibration: Mapping[str, Array], method: str
) -> Candidate:
    """The model with 8-bit weights.

    Raises:
        UnsupportedModelError: The quantizer cannot take this model.
        ConvertError: The child failed.
    """
    job = ToolJob(
        exported=Exported(data=fp32.data, facts=fp32.facts),
        feeds=calibration,
        wish=Quantization(scheme=method),
    )
    result = ask_tool(worker, "quantize-onnx", job)
    if result.exported is None:
        raise UnsupportedModelError("the quantizer made no file")
    return Candidate(
        name=NAME, precision="int8", data=result.exported.data, facts=result.exported.facts
    )
