"""Writes TFLite files of scikit-learn models and of ONNX graphs, and runs them, for tests."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from edgepack.bundle.contract import Datatype, Task, TensorBinding, TensorSpec
from edgepack.converter.onnx_graph import datatype_of_element, summarise
from edgepack.converter.sklearn_model.export import export_onnx
from edgepack.converter.sources.source import Exported, ExportFacts, ExportWish
from edgepack.converter.tflite_writer.check import tflite_answers
from edgepack.converter.tflite_writer.write import write_tflite


def exported(model: Any, columns: int, task: Task, outputs: Sequence[str], **more: Any) -> Exported:
    """The ONNX file of a fitted scikit-learn model, as the converter makes it."""
    x = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, columns))
    wish = ExportWish(task=task, inputs=(x,), outputs=tuple(outputs), precision="fp32", **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export_onnx(model, wish, kept=list(range(columns)))


def graph_file(model: onnx.ModelProto) -> Exported:
    """An ONNX model as an exported file whose contract names are its tensors'."""

    def bound(items: Any) -> tuple[TensorBinding, ...]:
        return tuple(
            TensorBinding(
                name=item.name,
                tensor=item.name,
                dtype=datatype_of_element(item.type.tensor_type.elem_type),
            )
            for item in items
        )

    fixed = {item.name for item in model.graph.initializer}
    return Exported(
        data=model.SerializeToString(),
        facts=ExportFacts(
            inputs=bound(item for item in model.graph.input if item.name not in fixed),
            outputs=bound(model.graph.output),
            summary=summarise(model),
        ),
    )


def written(
    source: Exported, feeds: Mapping[str, Any], class_names: Sequence[str] = ()
) -> Exported:
    """The TFLite file of an ONNX file."""
    return write_tflite(source, feeds, class_names)


def answers(file: Exported, rows: Mapping[str, Any], classes: Any = None) -> dict[str, Any]:
    """What a TFLite file answers by the contract's names; a derived label as a class."""
    batch = file.facts.inputs[0].batch
    found = tflite_answers(file.data, rows, batch)
    given = {}
    for binding in file.facts.outputs:
        values = found[binding.tensor]
        if binding.derive == "argmax":
            values = np.asarray(classes)[values.argmax(axis=-1)]
        given[binding.name] = values
    return given
