"""A ready ONNX file behind the `LoadedModel` Protocol: onnxruntime gives the original's answers."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, ValueInfoProto

from edgepack.bundle.contract import Datatype, Task, TensorBinding, TensorSpec
from edgepack.converter.batches import answer_in_batches
from edgepack.converter.errors import (
    ModelFileError,
    UnfitDataError,
    UnsupportedModelError,
    one_line,
)
from edgepack.converter.onnx_graph import (
    add_argmax_label,
    clean,
    datatype_of_element,
    ends_in_softmax,
    output_datatype,
    summarise,
    without_zipmap,
)
from edgepack.converter.onnx_model.traits import class_names, precision
from edgepack.converter.sources.source import Exported, ExportFacts, ExportWish, ModelFacts
from edgepack.runtime.dataset_inputs import made_up_names
from edgepack.runtime.tensors import Array

_LABELS = (Datatype.INT64, Datatype.INT32, Datatype.BYTES, Datatype.BOOL)
_FLOATS = (Datatype.FP32, Datatype.FP64, Datatype.FP16)
_MAX_MADE_UP_NAMES = 1024
_PACKAGES = ("onnx", "onnxruntime", "numpy")
_ERROR_SEVERITY = 3


class OnnxModel:
    """A ready ONNX model.

    A classifier's label and scores are found by their types; one that gives only scores gets
    `label = argmax(scores)` appended. Everything else keeps its outputs' names.
    """

    def __init__(self, model: ModelProto) -> None:
        self._messages: list[str] = []
        self._class_names = class_names(model)  # ZipMap tells, and is left out below
        if any(node.op_type == "ZipMap" for node in model.graph.node):
            self._messages.append(
                "ZipMap is left out: probabilities are a matrix, not dictionaries"
            )
        if precision(model).startswith("int8"):
            self._messages.append("the file is quantized already, and is packed as it is")
        self._outputs = {item.name: _spec(item) for item in without_zipmap(model).graph.output}
        self._model = clean(model)
        stored = {item.name for item in model.graph.initializer}
        self._inputs = [_spec(item) for item in model.graph.input if item.name not in stored]
        for what, found in (("input", self._inputs), ("output", self._outputs)):
            if not found:
                raise ModelFileError(f"the ONNX model has no {what}")
        self._sessions: dict[bytes, Any] = {}
        self.facts = self._facts()

    @property
    def batch(self) -> int | None:
        """The number of rows that the file takes at once, None if any."""
        return next((spec.shape[0] for spec in self._inputs if spec.shape[0] > 0), None)

    def tensors_for(self, task: Task) -> dict[str, str]:
        """Contract name → tensor of the exported file; a label that is appended has no output."""
        return self._with_label(task)[1]

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer as the original does: see `LoadedModel`."""
        model, names = self._with_label(task)
        rows = next(iter(inputs.values())).shape[0]
        found = answer_in_batches(
            lambda feeds: self._answer(model, feeds, list(names.values())),
            inputs,
            names=list(names.values()),
            size=self.batch or rows,
            fixed=self.batch is not None,
        )
        return {
            name: shaped_answer(name, array, rows) for name, array in zip(names, found, strict=True)
        }

    def export(self, wish: ExportWish) -> Exported:
        """The file itself, which has its own inputs and precision: see `LoadedModel`."""
        model, names = self._with_label(wish.task)
        return Exported(
            data=model.SerializeToString(deterministic=True),
            facts=ExportFacts(
                inputs=tuple(
                    TensorBinding(
                        name=spec.name,
                        tensor=spec.name,
                        dtype=spec.datatype,
                        batch=spec.shape[0] if spec.shape[0] > 0 else None,
                    )
                    for spec in self._inputs
                ),
                outputs=tuple(
                    TensorBinding(
                        name=name,
                        tensor=names[name],
                        dtype=output_datatype(model, names[name]),
                    )
                    for name in wish.outputs
                ),
                summary=summarise(model),
            ),
        )

    def _facts(self) -> ModelFacts:
        producer = self._model.producer_name
        operators = len(self._model.graph.node)
        task = self._task()
        return ModelFacts(
            framework="ONNX",
            description=f"graph of {operators} operators"
            + (f", written by {producer}" if producer else ""),
            task=task,
            packages={name: version(name) for name in _PACKAGES},
            messages=tuple(self._messages),
            class_names=self._class_names if task is Task.CLASSIFICATION else (),
            precision=precision(self._model),
            inputs=tuple(
                TensorSpec(
                    name=spec.name,
                    datatype=spec.datatype,
                    shape=(-1, *spec.shape[1:]),
                    feature_names=_feature_names(spec),
                )
                for spec in self._inputs
            ),
            outputs=tuple(self._outputs.values()),
        )

    def _task(self) -> Task | None:
        """What the outputs alone tell; a lone matrix of floats may be logits or targets."""
        specs = list(self._outputs.values())
        labels = [spec for spec in specs if _may_be_label(spec)]
        if labels and len(specs) <= 2:
            return Task.CLASSIFICATION
        if len(specs) != 1 or specs[0].datatype not in _FLOATS:
            return Task.GENERIC
        if len(specs[0].shape) == 2 and ends_in_softmax(self._model, specs[0].name):
            return Task.CLASSIFICATION
        if len(specs[0].shape) == 1 or (len(specs[0].shape) == 2 and specs[0].shape[1] == 1):
            return Task.REGRESSION
        return None if len(specs[0].shape) == 2 else Task.GENERIC

    def _with_label(self, task: Task) -> tuple[ModelProto, dict[str, str]]:
        """The model whose outputs the task needs, and contract name → its tensor."""
        names = list(self._outputs)
        if task is Task.REGRESSION and len(names) == 1:
            return self._model, {"value": names[0]}
        if task is not Task.CLASSIFICATION:
            return self._model, {name: name for name in names}
        label = next((n for n in names if _may_be_label(self._outputs[n])), None)
        scores = next((n for n in names if self._outputs[n].datatype in _FLOATS), None)
        model = self._model
        if label is None and scores is None:
            raise UnsupportedModelError(
                "a classifier must give one label a row, or scores as floats, got "
                + ", ".join(f"{n!r} {self._outputs[n].datatype}" for n in names)
            )
        if label is None and scores is not None:
            model = ModelProto()
            model.CopyFrom(self._model)
            label = add_argmax_label(model, scores)
        found = {"label": label} if label else {}
        if scores is not None:
            found[self._kind_of_scores(scores)] = scores
        return model, found

    def _kind_of_scores(self, tensor: str) -> str:
        classifiers = any("Classifier" in node.op_type for node in self._model.graph.node)
        if ends_in_softmax(self._model, tensor) or "prob" in tensor.lower() or classifiers:
            return "probabilities"
        return "scores"

    def _answer(self, model: ModelProto, feeds: dict[str, Array], names: list[str]) -> list[Array]:
        data = model.SerializeToString(deterministic=True)
        try:
            if data not in self._sessions:
                options = onnxruntime.SessionOptions()
                options.log_severity_level = _ERROR_SEVERITY
                self._sessions[data] = onnxruntime.InferenceSession(
                    data, options, providers=["CPUExecutionProvider"]
                )
        except Exception as exc:
            raise ModelFileError(f"onnxruntime cannot load the model: {one_line(exc)}") from exc
        try:
            found: list[Array] = self._sessions[data].run(names, feeds)
        except Exception as exc:
            raise UnfitDataError(f"the model refuses the data: {one_line(exc)}") from exc
        return found


def _spec(item: ValueInfoProto) -> TensorSpec:
    datatype = datatype_of_element(item.type.tensor_type.elem_type)
    shape = [
        dimension.dim_value if dimension.dim_value > 0 else -1
        for dimension in item.type.tensor_type.shape.dim
    ]
    return TensorSpec(name=item.name, datatype=datatype, shape=tuple(shape) or (-1,))


def _may_be_label(spec: TensorSpec) -> bool:
    """Tell whether an output may be one class a row."""
    return spec.datatype in _LABELS and all(size in (-1, 1) for size in spec.shape[1:])


def _feature_names(spec: TensorSpec) -> tuple[str, ...]:
    if len(spec.shape) != 2 or not 1 <= spec.shape[1] <= _MAX_MADE_UP_NAMES:
        return ()
    return (spec.name,) if spec.shape[1] == 1 else made_up_names(spec.name, spec.shape[1])


def shaped_answer(name: str, array: Array, rows: int) -> Array:
    """An output as a contract has it: labels int64 or text (N,), a single value (N,)."""
    if name == "label":
        flat = array.reshape(rows)
        return flat if flat.dtype == np.object_ else flat.astype(np.int64)
    if name == "value" and array.shape == (rows, 1):
        return array[:, 0]
    return array
