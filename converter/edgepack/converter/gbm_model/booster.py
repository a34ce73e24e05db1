"""A booster that came without scikit-learn, behind the `LoadedModel` Protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from edgepack.bundle.contract import Datatype, Task, TensorBinding
from edgepack.converter.errors import UnfitDataError, UnsupportedModelError
from edgepack.converter.gbm_model.ensemble import Ensemble
from edgepack.converter.gbm_model.graph import ML_DOMAIN, Part, add_classes, add_value
from edgepack.converter.onnx_graph import clean, output_datatype, summarise
from edgepack.converter.sources.source import Exported, ExportFacts, ExportWish, ModelFacts
from edgepack.runtime.tensors import Array

_OPSETS = {"": 17, ML_DOMAIN: 3}
_IR_VERSION = 8
_TYPES = {
    "fp32": (TensorProto.FLOAT, np.float32, Datatype.FP32),
    "fp64": (TensorProto.DOUBLE, np.float64, Datatype.FP64),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Booster:
    """What a library gives of a booster.

    Attributes:
        framework: "XGBoost".
        version: Of the library.
        objective: "binary:logistic".
        ensemble: Its trees.
        answer: float64 (N, F) → label and probabilities, or value, as the library computes them.
        classes: (C,), or None for a regressor.
        several_labels: Whether each output is how likely a label of its own is there.
        feature_names: In the model's order, or empty.
        messages: What a person should know.
    """

    framework: str
    version: str
    objective: str
    ensemble: Ensemble
    answer: Callable[[Array], dict[str, Array]]
    classes: Array | None = None
    several_labels: bool = False
    feature_names: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


class BoosterModel:
    """A booster."""

    def __init__(self, booster: Booster) -> None:
        self._booster = booster
        self.facts = _facts(booster)

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer as the original does: see `LoadedModel`."""
        if any(array.dtype.kind not in "biuf" for array in inputs.values()):
            raise UnfitDataError(f"{self._booster.framework} takes numbers, got text")
        rows = np.concatenate([array.astype(np.float64) for array in inputs.values()], axis=1)
        if rows.shape[1] != self._booster.ensemble.features:
            raise UnfitDataError(
                f"the model takes {self._booster.ensemble.features} columns, got {rows.shape[1]}"
            )
        return self._booster.answer(rows)

    def export(self, wish: ExportWish) -> Exported:
        """Export to ONNX: see `LoadedModel`."""
        if any(spec.datatype is Datatype.BYTES for spec in wish.inputs):
            raise UnsupportedModelError(f"{self._booster.framework} takes numbers, got text")
        element, dtype, datatype = _TYPES[wish.precision]
        tensors = ["x"] if len(wish.inputs) == 1 else [f"x{i}" for i in range(len(wish.inputs))]
        part = Part(prefix="trees")
        x = tensors[0] if len(tensors) == 1 else part.add("Concat", *tensors, axis=1)
        classes = self._booster.classes
        if self._booster.several_labels:
            outputs = _add_labels(part, self._booster.ensemble, x, dtype, element)
        elif classes is None:
            add_value(part, self._booster.ensemble, x, dtype, output="value")
            outputs = [helper.make_tensor_value_info("value", element, [None, None])]
        else:
            add_classes(
                part,
                self._booster.ensemble,
                x,
                dtype,
                classes=classes,
                label="label",
                probabilities="probabilities",
            )
            kind = TensorProto.STRING if classes.dtype.kind in "OU" else TensorProto.INT64
            outputs = [
                helper.make_tensor_value_info("label", kind, [None]),
                helper.make_tensor_value_info("probabilities", element, [None, None]),
            ]
        inputs = [
            helper.make_tensor_value_info(tensor, element, [None, *spec.shape[1:]])
            for tensor, spec in zip(tensors, wish.inputs, strict=True)
        ]
        graph = helper.make_graph(part.nodes, "edgepack", inputs, outputs, part.initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
        model = clean(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION))
        return Exported(
            data=model.SerializeToString(deterministic=True),
            facts=ExportFacts(
                inputs=tuple(
                    TensorBinding(name=spec.name, tensor=tensor, dtype=datatype)
                    for tensor, spec in zip(tensors, wish.inputs, strict=True)
                ),
                outputs=tuple(
                    TensorBinding(name=name, tensor=name, dtype=output_datatype(model, name))
                    for name in wish.outputs
                ),
                summary=summarise(model),
            ),
        )


def _add_labels(
    part: Part,
    ensemble: Ensemble,
    x: str,
    dtype: Any,  # noqa: ANN401  (as numpy takes it)
    element: int,
) -> list[ValueInfoProto]:
    """Labels (N, T), 1 where the label's probability is above a half."""
    add_value(part, ensemble, x, dtype, output="probabilities")
    half = part.constant(np.array(0.5, dtype=dtype))
    there = part.add("Greater", "probabilities", half)
    part.add("Cast", there, output="label", to=TensorProto.INT64)
    return [
        helper.make_tensor_value_info("label", TensorProto.INT64, [None, ensemble.targets]),
        helper.make_tensor_value_info("probabilities", element, [None, ensemble.targets]),
    ]


def _task(booster: Booster) -> Task:
    if booster.several_labels:
        return Task.GENERIC
    return Task.REGRESSION if booster.classes is None else Task.CLASSIFICATION


def _facts(booster: Booster) -> ModelFacts:
    classes = booster.classes
    trees = len(booster.ensemble.trees)
    return ModelFacts(
        framework=booster.framework,
        description=f"{trees} trees, {booster.objective}",
        task=_task(booster),
        packages={booster.framework.lower(): booster.version, "numpy": np.__version__},
        messages=booster.messages,
        class_names=() if classes is None else tuple(str(item) for item in classes.tolist()),
        features=booster.ensemble.features,
        feature_names=booster.feature_names,
    )
