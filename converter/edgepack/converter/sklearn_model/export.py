"""From a fitted estimator to ONNX, with skl2onnx."""

import logging
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from onnx import ModelProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.pipeline import Pipeline

from edgepack.bundle.contract import Datatype, Task, TensorBinding
from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.gbm_model.hashed_categories import shown
from edgepack.converter.gbm_model.register import register_boosters
from edgepack.converter.gbm_model.sparse import zeros_are_missing
from edgepack.converter.onnx_graph import (
    add_column,
    add_settled_label,
    clean,
    datatype_of_element,
    output_datatype,
    summarise,
)
from edgepack.converter.sklearn_model.columns import renumber
from edgepack.converter.sklearn_model.converters.container import TARGET_OPSET
from edgepack.converter.sklearn_model.converters.register import register_converters
from edgepack.converter.sklearn_model.converters.transformers import as_transformers
from edgepack.converter.sklearn_model.hashed_models import hashed_models
from edgepack.converter.sklearn_model.held_encoders import number_held_texts
from edgepack.converter.sklearn_model.missing_text import missing_is_empty_text
from edgepack.converter.sklearn_model.name_categories import name_categories
from edgepack.converter.sklearn_model.number_hashed import number_hashed
from edgepack.converter.sklearn_model.own_categories import number_categories, own_categories
from edgepack.converter.sklearn_model.several_labels import (
    gives_several_labels,
    probability_names,
)
from edgepack.converter.sources.source import Exported, ExportFacts, ExportWish
from edgepack.runtime.tensors import DTYPES

_FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    NameError,
    KeyError,
    IndexError,
    AssertionError,
)
_TYPES = {
    "fp32": (FloatTensorType, Datatype.FP32),
    "fp64": (DoubleTensorType, Datatype.FP64),
}


def export_onnx(
    model: Any,  # noqa: ANN401
    wish: ExportWish,
    *,
    kept: list[int],
) -> Exported:
    """Export an estimator.

    Args:
        model: Fitted.
        wish: What is wanted; its inputs are one matrix "x", or one input for each of `kept`.
        kept: Positions of the columns that the inputs hold, among those the model was fitted on.

    Raises:
        UnsupportedModelError: skl2onnx has no converter for a part of it.
    """
    number_type, number = _TYPES[wish.precision]
    inputs = wish.inputs
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
    register_boosters()
    model = deepcopy(model)
    hashed = hashed_models(model)
    messages: tuple[str, ...] = ()
    own = {} if hashed else own_categories(model)
    texts = [place for place, spec in enumerate(inputs) if spec.datatype is Datatype.BYTES]
    if len(inputs) == 1:
        texts = list(range(inputs[0].shape[-1])) if texts else []
    if hashed:
        numbered, messages = number_hashed(model, hashed, shown(wish.categories), texts, kept)
        kept = kept if numbered is model else list(range(len(kept)))
        model = numbered
    elif own:
        model = number_categories(model, own, len(kept))
    else:
        model = number_held_texts(model, texts, len(kept))
    zeros_are_missing(model)
    missing_is_empty_text(model)
    renumber(model, kept)
    if type(_last(model)).__name__ == "VotingClassifier":
        _last(model).flatten_transform = False  # skl2onnx wants it so; only transform() reads it
    register_converters()
    model = as_transformers(model)
    onnx_model = clean(_convert(model, wish.task, initial_types))
    name_categories(onnx_model, tensors)
    _lower_anywhere(onnx_model)
    names = _output_names(onnx_model, model, wish.outputs)
    _adjust(onnx_model, model, names, wish)
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
                TensorBinding(name=name, tensor=tensor, dtype=output_datatype(onnx_model, tensor))
                for name, tensor in names.items()
            ),
            summary=summarise(onnx_model),
            messages=messages,
        ),
    )


def _lower_anywhere(onnx_model: ModelProto) -> None:
    """Lower letters without the locale en_US, which few devices have installed, in place.

    The locale "C" is everywhere and knows the letters of ASCII; if others occur, "C.UTF-8".
    """
    ascii_only = all(
        value.isascii()
        for node in onnx_model.graph.node
        for item in node.attribute
        for value in item.strings
    )
    for node in onnx_model.graph.node:
        named = any(item.name == "locale" for item in node.attribute)
        if node.op_type == "StringNormalizer" and not named:
            kept = [item for item in node.attribute if item.name != "locale"]
            del node.attribute[:]
            locale = helper.make_attribute("locale", "C" if ascii_only else "C.UTF-8")
            node.attribute.extend([*kept, locale])


def _output_names(
    onnx_model: ModelProto,
    model: Any,  # noqa: ANN401
    outputs: Sequence[str],
) -> dict[str, str]:
    """Contract name → tensor; skl2onnx gives a label first and scores second."""
    found = [output.name for output in onnx_model.graph.output]
    place = {"label": 0, "value": 0, "probabilities": 1, "scores": 1}
    if gives_several_labels(model):
        place |= {name: index for index, name in enumerate(probability_names(model), start=1)}
    missing = [name for name in outputs if place[name] >= len(found)]
    if missing:
        raise UnsupportedModelError(f"skl2onnx gives no {missing[0]} for {type(model).__name__}")
    return {name: found[place[name]] for name in outputs}


def _adjust(
    onnx_model: ModelProto,
    model: Any,  # noqa: ANN401
    names: dict[str, str],
    wish: ExportWish,
) -> None:
    """Change outputs, in place, where skl2onnx defines them otherwise than scikit-learn."""
    if wish.task is not Task.CLASSIFICATION:
        return
    classes = np.asarray(getattr(model, "classes_", ()))
    if wish.settle_ties and "probabilities" in names and len(classes):
        if classes.dtype.kind not in "OU":
            classes = classes.astype(np.int64)
        names["label"] = add_settled_label(onnx_model, names["probabilities"], classes)
    if "scores" in names and len(classes) == 2 and _columns(onnx_model, names["scores"]) == 2:
        # Of two classes scikit-learn gives the second one's score only.
        names["scores"] = add_column(onnx_model, names["scores"], 1)


def _columns(onnx_model: ModelProto, tensor: str) -> int | None:
    """How many columns a tensor really has: what skl2onnx declares is not always so."""
    import onnxruntime

    feeds = {}
    for item in onnx_model.graph.input:
        datatype = datatype_of_element(item.type.tensor_type.elem_type)
        if datatype is Datatype.BYTES:
            return None
        width = item.type.tensor_type.shape.dim[1].dim_value
        feeds[item.name] = np.zeros((2, width), DTYPES[datatype])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        onnx_model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    shape = session.run([tensor], feeds)[0].shape
    return int(shape[1]) if len(shape) == 2 else None


def _last(model: Any) -> Any:  # noqa: ANN401
    while isinstance(model, Pipeline):
        model = model.steps[-1][1]
    return model


def _convert(model: Any, task: Task, initial_types: Any) -> ModelProto:  # noqa: ANN401
    last = _last(model)
    # zipmap would make probabilities a list of dictionaries. Some classifiers (LinearSVC) refuse
    # the option; in a pipeline they must be named all the same, or it is set for them.
    choices: list[Any] = [None]
    if task is Task.CLASSIFICATION:
        choices = [{id(last): {"zipmap": False}}, {id(last): {}}, None]
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for options in choices:
            try:
                found: ModelProto = convert_sklearn(
                    model,
                    name="edgepack",
                    initial_types=initial_types,
                    target_opset=TARGET_OPSET,
                    options=options,
                )
            except UnsupportedModelError:
                raise
            except _FAILURES as exc:
                if isinstance(exc, NameError) and "zipmap" in str(exc) and options is not None:
                    continue
                raise UnsupportedModelError(
                    f"{type(model).__name__} cannot be exported to ONNX: {one_line(exc)}"
                ) from exc
            else:
                return found
    raise UnsupportedModelError(f"{type(model).__name__} cannot be exported to ONNX")
