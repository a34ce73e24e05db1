"""From a fitted estimator to ONNX, with skl2onnx."""

import logging
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

from edgepack.bundle.contract import Datatype, Task, TensorBinding, TensorSpec
from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.onnx_graph import clean, summarise
from edgepack.converter.sklearn_model.columns import renumber
from edgepack.converter.sources.source import Exported, ExportFacts

# onnxruntime 1.17, the oldest that edgepack runs on, knows opset 20 and ai.onnx.ml 4; the
# converters use nothing of those, and older engines stay possible.
TARGET_OPSET = {"": 17, "ai.onnx.ml": 3}
_TYPES = {
    "fp32": (FloatTensorType, Datatype.FP32),
    "fp64": (DoubleTensorType, Datatype.FP64),
}


def export_onnx(
    model: Any,  # noqa: ANN401
    task: Task,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[str],
    precision: str,
    *,
    kept: list[int],
) -> Exported:
    """Export an estimator.

    Args:
        model: Fitted.
        task: What its answers are for.
        inputs: One matrix "x", or one input for each of `kept`.
        outputs: Contract names: "label", "probabilities", "scores", "value".
        precision: "fp32" or "fp64".
        kept: Positions of the columns that the inputs hold, among those the model was fitted on.

    Raises:
        UnsupportedModelError: skl2onnx has no converter for a part of it.
    """
    number_type, number = _TYPES[precision]
    tensors = ["x"] if len(inputs) == 1 else [f"x{index}" for index in range(len(inputs))]
    initial_types = [
        (
            tensor,
            (StringTensorType if spec.datatype is Datatype.BYTES else number_type)(
                [None, *spec.shape[1:]]
            ),
        )
        for tensor, spec in zip(tensors, inputs, strict=True)
    ]
    model = deepcopy(model)
    renumber(model, kept)
    onnx_model = clean(_convert(model, task, initial_types))
    found = [output.name for output in onnx_model.graph.output]
    wanted = {"label": 0, "value": 0, "probabilities": 1, "scores": 1}
    missing = [name for name in outputs if wanted[name] >= len(found)]
    if missing:
        raise UnsupportedModelError(f"skl2onnx gives no {missing[0]} for {type(model).__name__}")
    names = {name: found[wanted[name]] for name in outputs}
    return Exported(
        data=onnx_model.SerializeToString(deterministic=True),
        facts=ExportFacts(
            inputs=tuple(
                TensorBinding(
                    name=spec.name,
                    tensor=tensor,
                    dtype=spec.datatype if spec.datatype is Datatype.BYTES else number,
                )
                for tensor, spec in zip(tensors, inputs, strict=True)
            ),
            outputs=tuple(
                TensorBinding(name=name, tensor=tensor, dtype=_datatype(onnx_model, tensor))
                for name, tensor in names.items()
            ),
            summary=summarise(onnx_model),
        ),
    )


def _convert(model: Any, task: Task, initial_types: Any) -> Any:  # noqa: ANN401
    arguments = {
        "name": "edgepack",
        "initial_types": initial_types,
        "target_opset": TARGET_OPSET,
    }
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if task is Task.CLASSIFICATION:
                try:
                    # Without it probabilities are a list of dictionaries, one a row.
                    return convert_sklearn(
                        model, options={id(model): {"zipmap": False}}, **arguments
                    )
                except NameError as exc:  # what skl2onnx says of an option that a model lacks
                    if "zipmap" not in str(exc):
                        raise
            return convert_sklearn(model, **arguments)
        except (
            RuntimeError,
            ValueError,
            TypeError,
            AttributeError,
            NameError,
            KeyError,
            IndexError,
        ) as exc:
            raise UnsupportedModelError(
                f"{type(model).__name__} cannot be exported to ONNX: {one_line(exc)}"
            ) from exc


def _datatype(onnx_model: Any, tensor: str) -> Datatype:  # noqa: ANN401
    from edgepack.converter.onnx_graph import datatype_of_element

    output = next(item for item in onnx_model.graph.output if item.name == tensor)
    return datatype_of_element(output.type.tensor_type.elem_type)
