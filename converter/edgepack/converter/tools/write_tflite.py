"""The tool "write-tflite": a float32 TFLite file from an ONNX file, without TensorFlow or torch."""

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.tools.tool import ToolJob, ToolResult


def run(job: ToolJob) -> ToolResult:
    """Write the file; the field "class_names" may say what the contract calls the classes.

    Raises:
        UnsupportedModelError: The model is outside the writer's list; or a package is missing,
            which is a reason for no TFLite file and none for no ONNX file.
    """
    try:
        from edgepack.converter.tflite_writer.write import write_tflite
    except ImportError as exc:
        raise UnsupportedModelError(
            f"TFLite files need {exc.name}: pip install 'edgepack[tflite]'"
        ) from exc
    names = job.fields.get("class_names")
    class_names = [str(name) for name in names] if isinstance(names, list) else []
    return ToolResult(exported=write_tflite(job.exported, job.feeds, class_names))
