"""The tool "quantize-onnx": fp16 and int8 of an ONNX file."""

from collections.abc import Iterable
from dataclasses import replace

from edgepack.bundle.contract import TensorBinding
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.quantize_onnx import DYNAMIC, quantize_onnx
from edgepack.converter.sources.source import Exported
from edgepack.converter.tools.tool import ToolJob, ToolResult


def run(job: ToolJob) -> ToolResult:
    """Quantize as `job.wish` says; inputs and outputs keep their names.

    A dynamic file is bound to one row at a time: it takes its ranges from all the rows that it
    gets at once, so that an answer would depend on the rows beside it.
    """
    if job.wish is None:
        raise UnsupportedModelError("quantize-onnx needs a wish")
    data, summary = quantize_onnx(job.exported.data, job.feeds, job.wish)
    facts = replace(job.exported.facts, summary=summary)
    if job.wish.scheme == DYNAMIC:
        facts = replace(facts, inputs=_by_row(facts.inputs), outputs=_by_row(facts.outputs))
    return ToolResult(exported=Exported(data=data, facts=facts))


def _by_row(bindings: Iterable[TensorBinding]) -> tuple[TensorBinding, ...]:
    return tuple(item if item.batch is not None else replace(item, batch=1) for item in bindings)
