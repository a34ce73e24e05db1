"""Finds the scores that a classifier's label is the largest of.

TFLite has no text, and no need of it: a label that is the class of the largest score is not
written at all, and the reader of the file takes the largest. Found is only what the graph itself
says; `check.check_file` then compares labels row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from edgepack.converter.tflite_writer.graph import Step
from edgepack.runtime.tensors import Array

_PASSES_ON = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_TABLES = frozenset({"Gather", "ai.onnx.ml.ArrayFeatureExtractor"})
_MODELS = frozenset(
    {
        "ai.onnx.ml.LinearClassifier",
        "ai.onnx.ml.TreeEnsembleClassifier",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestOf:
    """A label that is the class of the largest score.

    Attributes:
        scores: The tensor of the ONNX graph, (N, classes).
        classes: The classes in its order: numbers or text; None where the label is the place.
    """

    scores: str
    classes: Array | None


def largest_of(graph: GraphProto, label: str) -> LargestOf | None:
    """Tell of which scores a label is the largest, or None if it is made otherwise.

    Of a table that is asked by a place found otherwise (`scores > 0`, votes) scores are made: one
    for each entry, and only the one at that place is large. Their nodes are added to the graph.
    """
    makers = {name: node for node in graph.node for name in node.output}
    tables = _constants(graph)
    classes: Array | None = None
    name = label
    while name in makers:
        node = makers[name]
        step = Step(node)
        if step.operator in _PASSES_ON:
            name = node.input[0]
        elif step.operator in _TABLES and classes is None and node.input[0] in tables:
            classes = tables[node.input[0]].reshape(-1)
            name = node.input[1]
        elif step.operator in _MODELS and name == node.output[0]:
            return _of_model(step, classes)
        elif step.operator == "ArgMax":
            if step.attribute("axis", 0) in (1, -1) and not step.attribute("select_last_index", 0):
                return LargestOf(scores=node.input[0], classes=classes)
            break
        elif classes is not None and step.operator == "Greater" and node.input[1] in tables:
            return LargestOf(scores=_add_sides(graph, node), classes=classes)
        else:
            break
    if classes is None or len(classes) < 2:
        return None
    return LargestOf(scores=_add_places(graph, name, len(classes)), classes=classes)


def _add_sides(graph: GraphProto, greater: NodeProto) -> str:
    """Of `score > bound` make (bound - score, score - bound): the second is larger or it is not."""
    score, bound = greater.input
    column = numpy_helper.from_array(np.array([-1, 1], dtype=np.int64), "edgepack_column")
    graph.initializer.append(column)
    for operator, inputs, output in (
        ("Sub", [score, bound], "edgepack_above"),
        ("Reshape", ["edgepack_above", column.name], "edgepack_above_column"),
        ("Neg", ["edgepack_above_column"], "edgepack_below_column"),
    ):
        graph.node.append(helper.make_node(operator, inputs, [output], name=output))
    both = ["edgepack_below_column", "edgepack_above_column"]
    graph.node.append(helper.make_node("Concat", both, ["edgepack_sides"], axis=1))
    return "edgepack_sides"


def _add_places(graph: GraphProto, place: str, count: int) -> str:
    """Of a place make a row that is 1 there and 0 elsewhere."""
    column = numpy_helper.from_array(np.array([-1, 1], dtype=np.int64), "edgepack_column")
    places = numpy_helper.from_array(np.arange(count, dtype=np.float32)[None], "edgepack_places")
    graph.initializer.extend([column, places])
    chain: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("Cast", [place], "edgepack_place", {"to": TensorProto.FLOAT}),
        ("Reshape", ["edgepack_place", column.name], "edgepack_place_column", {}),
        ("Equal", ["edgepack_place_column", places.name], "edgepack_there", {}),
        ("Cast", ["edgepack_there"], "edgepack_votes", {"to": TensorProto.FLOAT}),
    )
    for operator, inputs, output, more in chain:
        graph.node.append(helper.make_node(operator, inputs, [output], name=output, **more))
    return "edgepack_votes"


def label_of(classes: Array | None, scores: Array) -> Array:
    """The labels that the largest scores mean, as a reader of the file makes them."""
    places: Array = scores.argmax(axis=-1)
    return places if classes is None else np.asarray(classes[places])


def near_ties(scores: Array) -> Array:
    """Rows whose two largest scores are so close that float32 cannot tell them apart."""
    if scores.shape[-1] < 2:
        return np.zeros(scores.shape[0], dtype=bool)
    second, first = np.moveaxis(np.partition(scores, -2, axis=-1)[..., -2:], -1, 0)
    close: Array = first - second <= 1e-5 * np.maximum(1.0, np.abs(first))
    return close


def _of_model(step: Step, classes: Array | None) -> LargestOf | None:
    own = step.attribute("classlabels_strings") or step.attribute("classlabels_int64s")
    own = own or step.attribute("classlabels_ints")
    if own is None or classes is not None:
        return None
    values: Sequence[str | int] = [
        item.decode() if isinstance(item, bytes) else item for item in own
    ]
    return LargestOf(scores=step.outputs[1], classes=np.array(values))


def _constants(graph: GraphProto) -> dict[str, Array]:
    found = {item.name: _readable(numpy_helper.to_array(item)) for item in graph.initializer}
    for node in graph.node:
        value = _value(node)
        if value is not None:
            found[node.output[0]] = value
    return found


def _value(node: NodeProto) -> Array | None:
    if node.op_type != "Constant":
        return None
    item = node.attribute[0]
    return (
        _readable(numpy_helper.to_array(item.t))
        if item.name == "value"
        else np.asarray(helper.get_attribute_value(item))
    )


def _readable(values: Array) -> Array:
    if values.dtype.kind not in "OS":
        return values
    return np.array(
        [item.decode() if isinstance(item, bytes) else item for item in values.reshape(-1)]
    ).reshape(values.shape)
