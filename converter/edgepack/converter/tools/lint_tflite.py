"""The tool "lint-tflite": what LiteRT makes of a file."""

from edgepack.converter.tflite_quantizer.lint import lint
from edgepack.converter.tools.tool import ToolJob, ToolResult


def run(job: ToolJob) -> ToolResult:
    """Look at the file, and load it with and without a delegate."""
    found = lint(job.exported.data)
    return ToolResult(
        fields={
            "float_operators": dict(found.float_operators),
            "left_over_qdq": found.left_over_qdq,
            "missing_operators": list(found.missing_operators),
            "messages": list(found.messages),
        }
    )
