"""The tool "lint-onnx": what onnxruntime makes of a file."""

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.onnx_quantizer.lint import lint
from edgepack.converter.tools.tool import ToolJob, ToolResult


def run(job: ToolJob) -> ToolResult:
    """Look at the graph that the engine would run.

    `fields["engine_version"]` ("1.17.3") names the engine that it must run on.
    """
    found = lint(job.exported.data, _engine(job.fields.get("engine_version")))
    return ToolResult(
        fields={
            "float_operators": dict(found.float_operators),
            "left_over_qdq": found.left_over_qdq,
            "missing_operators": list(found.missing_operators),
            "messages": list(found.messages),
        }
    )


def _engine(version: object) -> tuple[int, int] | None:
    if version is None:
        return None
    parts = str(version).split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        raise UnsupportedModelError(f"engine_version must be MAJOR.MINOR, got {version!r}")
    return int(parts[0]), int(parts[1])
