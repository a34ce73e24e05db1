"""The tool "write-tflite": a float32 TFLite file from an ONNX file, without TensorFlow or torch."""

from edgepack.converter.tflite_writer.write import write_tflite
from edgepack.converter.tools.tool import ToolJob, ToolResult


def run(job: ToolJob) -> ToolResult:
    """Write the file; the field "class_names" may say what the contract calls the classes."""
    names = job.fields.get("class_names")
    class_names = [str(name) for name in names] if isinstance(names, list) else []
    return ToolResult(exported=write_tflite(job.exported, job.feeds, class_names))
