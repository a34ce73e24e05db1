"""The tool "quantize-tflite": fp16 and int8 of a float32 TFLite file."""

from dataclasses import replace

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sources.source import Exported
from edgepack.converter.tflite_graph import summarise
from edgepack.converter.tflite_quantizer.quantize import quantize_tflite
from edgepack.converter.tools.tool import ToolJob, ToolResult


def run(job: ToolJob) -> ToolResult:
    """Quantize as `job.wish` says; inputs and outputs keep their names and stay float32."""
    if job.wish is None:
        raise UnsupportedModelError("quantize-tflite needs a wish")
    data = quantize_tflite(job.exported.data, job.feeds, job.wish)
    facts = replace(job.exported.facts, summary=summarise(data))
    return ToolResult(exported=Exported(data=data, facts=facts))
