"""The tool "quantize-onnx": fp16 and int8 of an ONNX file."""

from dataclasses import replace

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.quantize_onnx import quantize_onnx
from edgepack.converter.sources.source import Exported
from edgepack.converter.tools.tool import ToolJob, ToolResult


def run(job: ToolJob) -> ToolResult:
    """Quantize as `job.wish` says; inputs and outputs keep their names."""
    if job.wish is None:
        raise UnsupportedModelError("quantize-onnx needs a wish")
    data, summary = quantize_onnx(job.exported.data, job.feeds, job.wish)
    facts = replace(job.exported.facts, summary=summary)
    return ToolResult(exported=Exported(data=data, facts=facts))
