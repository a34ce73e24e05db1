"""From an ONNX file to a model with its weights inside."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from edgepack.converter.errors import ModelFileError, one_line
from edgepack.converter.onnx_model.original import OnnxModel

_MAX_EXTERNAL_BYTES = 2**31 - 1  # what one protobuf message can hold


def load_model(path: Path) -> OnnxModel:
    """Load and check an ONNX file; weights in files beside it are taken in.

    Raises:
        ModelFileError: It is damaged, or its weights lie outside its folder.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        outside = [item for item in model.graph.initializer if uses_external_data(item)]
        for item in outside:
            _check_inside(path, {entry.key: entry.value for entry in item.external_data})
        if outside:
            load_external_data_for_model(model, str(path.parent))
        _complete(model)
        onnx.checker.check_model(model)
    except DecodeError as exc:
        raise ModelFileError(f"{path.name} is a damaged ONNX model: {one_line(exc)}") from exc
    except (onnx.checker.ValidationError, ValueError, OSError) as exc:
        raise ModelFileError(f"{path.name} is not a valid ONNX model: {one_line(exc)}") from exc
    return OnnxModel(model)


def _complete(model: onnx.ModelProto) -> None:
    """Give outputs without a shape the one that they have, in place.

    onnxruntime takes such files and onnx's checker does not. Where nothing tells the shape, the
    rows are all that is said of it.
    """
    bare = [item for item in model.graph.output if not item.type.tensor_type.HasField("shape")]
    bare = [item for item in bare if item.type.HasField("tensor_type")]
    if not bare:
        return
    inferred = {item.name: item for item in onnx.shape_inference.infer_shapes(model).graph.output}
    for item in bare:
        found = inferred[item.name].type.tensor_type
        if found.HasField("shape"):
            item.type.tensor_type.shape.CopyFrom(found.shape)
        else:
            item.type.tensor_type.shape.dim.add()


def _check_inside(path: Path, entry: dict[str, str]) -> None:
    folder = path.parent.resolve()
    weights = (folder / entry.get("location", "")).resolve()
    if not weights.is_relative_to(folder) or not weights.is_file():
        raise ModelFileError(
            f"{path.name} keeps weights in {entry.get('location', '')[:80]!r}, which is not a file "
            "beside it"
        )
    if weights.stat().st_size > _MAX_EXTERNAL_BYTES:
        raise ModelFileError(f"{weights.name} must be at most {_MAX_EXTERNAL_BYTES} bytes")
