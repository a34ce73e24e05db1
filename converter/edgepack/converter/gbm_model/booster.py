"""A booster that came without scikit-learn, behind the `LoadedModel` Protocol."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from edgepack.bundle.contract import Datatype, Task, TensorBinding
from edgepack.converter.errors import UnfitDataError
from edgepack.converter.gbm_model.category_numbers import add_numbers
from edgepack.converter.gbm_model.ensemble import Ensemble
from edgepack.converter.gbm_model.graph import add_classes, add_value
from edgepack.converter.gbm_model.hashed_categories import shown, with_whole_numbers
from edgepack.converter.gbm_model.part import ML_DOMAIN, Part
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
        category_features: Columns of categories that the file keeps as hashes.
        named: Such columns' categories → the same trees with tables for them, and messages.
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
    category_features: tuple[int, ...] = ()
    named: Callable[[Mapping[int, Array]], tuple[Ensemble, tuple[str, ...]]] | None = None


class BoosterModel:
    """A booster."""

    def __init__(self, booster: Booster) -> None:
        self._booster = booster
        self.facts = _facts(booster)

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer as the original does: see `LoadedModel`."""
        hashed = self._booster.category_features
        self._check_texts([array.dtype == np.object_ for array in inputs.values()])
        parts = [a if a.dtype == np.object_ else a.astype(np.float64) for a in inputs.values()]
        if any(part.dtype == np.object_ for part in parts):
            parts = [part.astype(np.object_) for part in parts]
        rows = with_whole_numbers(np.concatenate(parts, axis=1), hashed)
        if rows.shape[1] != self._booster.ensemble.features:
            raise UnfitDataError(
                f"the model takes {self._booster.ensemble.features} columns, got {rows.shape[1]}"
            )
        return self._booster.answer(rows)

    def export(self, wish: ExportWish) -> Exported:
        """Export to ONNX: see `LoadedModel`."""
        self._check_texts([spec.datatype is Datatype.BYTES for spec in wish.inputs])
        ensemble = self._booster.ensemble
        messages: tuple[str, ...] = ()
        categories = shown(wish.categories)
        if self._booster.named is not None:
            ensemble, messages = self._booster.named(categories)
        element, dtype, datatype = _TYPES[wish.precision]
        tensors = ["x"] if len(wish.inputs) == 1 else [f"x{i}" for i in range(len(wish.inputs))]
        part = Part(prefix="trees")
        x = add_numbers(part, wish.inputs, tensors, categories, dtype)
        classes = self._booster.classes
        if self._booster.several_labels:
            outputs = _add_labels(part, ensemble, x, dtype, element)
        elif classes is None:
            add_value(part, ensemble, x, dtype, output="value")
            outputs = [helper.make_tensor_value_info("value", element, [None, None])]
        else:
            add_classes(
                part,
                ensemble,
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
            helper.make_tensor_value_info(
                tensor,
                TensorProto.STRING if spec.datatype is Datatype.BYTES else element,
                [None, *spec.shape[1:]],
            )
            for tensor, spec in zip(tensors, wish.inputs, strict=True)
        ]
        graph = helper.make_graph(part.nodes, "edgepack", inputs, outputs, part.initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
        model = clean(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION))
        return Exported(
            data=model.SerializeToString(deterministic=True),
            facts=ExportFacts(
                inputs=tuple(
                    TensorBinding(
                        name=spec.name,
                        tensor=tensor,
                        dtype=spec.datatype if spec.datatype is Datatype.BYTES else datatype,
                    )
                    for tensor, spec in zip(tensors, wish.inputs, strict=True)
                ),
                outputs=tuple(
                    TensorBinding(name=name, tensor=name, dtype=output_datatype(model, name))
                    for name in wish.outputs
                ),
                summary=summarise(model),
                messages=messages,
            ),
        )

    def _check_texts(self, is_text: Sequence[bool]) -> None:
        hashed = self._booster.category_features
        columns = range(self._booster.ensemble.features) if len(is_text) == 1 else hashed
        if any(is_text) and not hashed:
            raise UnfitDataError(f"{self._booster.framework} takes numbers, got text")
        texts = columns if is_text == [True] else [i for i, text in enumerate(is_text) if text]
        wrong = [place for place in texts if place not in hashed]
        if wrong:
            raise UnfitDataError(
                f"column {wrong[0]} of the model takes numbers, got text: its categories are "
                f"columns {', '.join(map(str, hashed))}"
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
        category_features=booster.category_features,
    )
