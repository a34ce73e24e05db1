"""ONNX of a TFLite file, by tf2onnx; quantized tensors become pairs of QDQ."""

import contextlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from edgepack.bundle.contract import TensorBinding
from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.onnx_constants import settle_constants
from edgepack.converter.onnx_graph import (
    add_argmax_label,
    clean,
    datatype_of_element,
    output_datatype,
    summarise,
)
from edgepack.converter.sources.source import Exported, ExportFacts

_OPSET = 17


def to_onnx(
    data: bytes,
    *,
    inputs: Sequence[TensorBinding],
    outputs: Sequence[TensorBinding],
    label_of: Mapping[str, str],
) -> Exported:
    """Convert a file.

    Args:
        data: The file.
        inputs: As they are bound to the file.
        outputs: As they are bound to the file.
        label_of: Contract name → output tensor whose largest value's class it is.

    Raises:
        UnsupportedModelError: tf2onnx cannot convert the file, or is not installed.
    """
    # tf2onnx names the ONNX outputs as the file does; what is only a label's source stays inside.
    tensors = [item.tensor for item in outputs]
    tensors += [tensor for tensor in label_of.values() if tensor not in tensors]
    model = clean(_convert(data, [item.tensor for item in inputs], tensors))
    labels = {name: add_argmax_label(model, tensor) for name, tensor in label_of.items()}
    sizes = {item.name: item.type.tensor_type for item in model.graph.input}
    missing = [item.tensor for item in inputs if item.tensor not in sizes]
    if missing:
        raise UnsupportedModelError(f"tf2onnx lost the input {missing[0][:80]!r}")
    bound = []
    for item in inputs:
        size = sizes[item.tensor]
        rows = size.shape.dim[0].dim_value if size.shape.dim else 0
        dtype = datatype_of_element(size.elem_type)
        bound.append(replace(item, dtype=dtype, batch=rows if rows > 0 else None))
    return Exported(
        data=model.SerializeToString(deterministic=True),
        facts=ExportFacts(
            inputs=tuple(bound),
            outputs=(
                *(
                    TensorBinding(name=name, tensor=tensor, dtype=output_datatype(model, tensor))
                    for name, tensor in labels.items()
                ),
                *(
                    replace(item, dtype=output_datatype(model, item.tensor), batch=None)
                    for item in outputs
                ),
            ),
            summary=summarise(model),
        ),
    )


def _convert(data: bytes, inputs: list[str], outputs: list[str]) -> ModelProto:
    try:
        import tensorflow as tf  # noqa: F401  (tf2onnx reads TFLite files with it)
        import tf2onnx
    except ImportError as exc:
        raise UnsupportedModelError(
            "ONNX of a TFLite file needs tf2onnx and TensorFlow: pip install 'edgepack[tensorflow]'"
        ) from exc
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        path = Path(folder, "model.tflite")
        path.write_bytes(data)
        try:
            model, _ = tf2onnx.convert.from_tflite(
                str(path), input_names=inputs, output_names=outputs, opset=_OPSET
            )
        except Exception as exc:  # it raises whatever its many parts do
            raise UnsupportedModelError(
                f"tf2onnx cannot convert this file: {one_line(exc)}"
            ) from exc
    found: ModelProto = model
    return settle_constants(found)
