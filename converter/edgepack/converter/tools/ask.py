"""How a tool's job crosses to a child process and back."""

import numpy as np

from edgepack.converter.sources.source import Exported, ExportFacts
from edgepack.converter.tools.tool import ToolJob, ToolResult
from edgepack.converter.worker_messages import FILE, Message
from edgepack.converter.worker_process import WorkerProcess
from edgepack.converter.worker_values import from_fields, to_fields


def ask_tool(worker: WorkerProcess, tool: str, job: ToolJob) -> ToolResult:
    """Use a tool ("quantize-onnx") in a child process.

    Raises:
        UnsupportedModelError: The tool cannot take this model.
        ConvertError: The child failed.
    """
    return tool_result(worker.ask(tool_message(tool, job)))


def tool_message(tool: str, job: ToolJob) -> Message:
    """The question."""
    file = np.frombuffer(job.exported.data, dtype=np.uint8)
    return Message(
        kind="tool",
        fields={
            "tool": tool,
            "facts": to_fields(job.exported.facts),
            "wish": None if job.wish is None else to_fields(job.wish),
            "fields": dict(job.fields),
        },
        arrays={**job.feeds, FILE: file},
    )


def tool_result(answer: Message) -> ToolResult:
    """The answer."""
    fields = answer.fields["fields"]
    exported = None
    if FILE in answer.arrays:
        exported = Exported(
            data=answer.arrays[FILE].tobytes(),
            facts=from_fields(ExportFacts, answer.fields["facts"]),
        )
    return ToolResult(exported=exported, fields=fields if isinstance(fields, dict) else {})
