"""Runs the ONNX graph on two numbers of rows, to learn every tensor's shape and what is fixed.

ONNX's own shape inference does not know ai.onnx.ml, nor what torch's exports compute from
shapes while they run. Measuring knows both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.tflite_writer.draft import Shape
from edgepack.runtime.tensors import Array

_ROWS = (2, 3)
_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"}
)
_OF_SHAPE = frozenset({"Shape", "Size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What is known of one tensor of the ONNX graph.

    Attributes:
        shape: Its sizes; negative where they follow the number of rows.
        dtype: As numpy calls it.
        values: What it holds for each number of rows that was tried, if that does not depend on
            the values of the inputs.
    """

    shape: Shape
    dtype: str
    values: tuple[Array, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What is known of the graph.

    Attributes:
        tensors: By name.
        nodes: Those that depend on the values of the inputs, in their order.
        batch: The number of rows that the file fixes, or None.
    """

    tensors: Mapping[str, Traced]
    nodes: Sequence[NodeProto]
    batch: int | None


def trace(model: ModelProto, feeds: Mapping[str, Array], wanted: Sequence[str]) -> Trace:
    """Measure what is between the inputs and some tensors.

    Args:
        model: Without functions of its own.
        feeds: By input, at least as many rows as the file fixes, and 3.
        wanted: Tensors to compute.

    Raises:
        UnsupportedModelError: A size follows the number of rows in another way than a multiple,
            or onnxruntime refuses the graph.
    """
    graph = model.graph
    nodes = _needed(graph, wanted)
    fixed = {item.name: _array(item) for item in graph.initializer}
    static = _static(nodes, set(fixed))
    asked = list(dict.fromkeys(n for node in nodes for n in node.output if n))
    batch = declared_batch(graph)
    counts = [batch] if batch else list(_ROWS)
    runs = [_run(model, nodes, feeds, asked, rows) for rows in counts]
    tensors = {}
    for name in [*feeds, *asked, *fixed]:
        found = [fixed[name]] * len(runs) if name in fixed else [run[name] for run in runs]
        tensors[name] = Traced(
            shape=_shape(name, [item.shape for item in found], counts),
            dtype=found[0].dtype.name if found[0].dtype.kind not in "OUS" else "text",
            values=tuple(found) if name in static else (),
        )
    live = [node for node in nodes if any(name not in static for name in node.output)]
    return Trace(tensors=tensors, nodes=live, batch=batch)


def _needed(graph: GraphProto, wanted: Sequence[str]) -> list[NodeProto]:
    names, kept = set(wanted), []
    for node in reversed(graph.node):
        if names.intersection(node.output):
            names.update(node.input)
            kept.append(node)
    return kept[::-1]


def _static(nodes: Sequence[NodeProto], fixed: set[str]) -> set[str]:
    static = {"", *fixed}
    for node in nodes:
        if node.op_type in _OF_SHAPE or (
            node.op_type not in _RANDOM and all(name in static for name in node.input)
        ):
            static.update(node.output)
    return static


def declared_batch(graph: GraphProto) -> int | None:
    """The number of rows that an ONNX file fixes, or None.

    Raises:
        UnsupportedModelError: Its inputs contradict each other.
    """
    fixed = {item.name for item in graph.initializer}
    sizes = set()
    for item in graph.input:
        dims = item.type.tensor_type.shape.dim
        if item.name not in fixed and len(dims):
            sizes.add(dims[0].dim_value if dims[0].HasField("dim_value") else None)
    if len(sizes) > 1:
        raise UnsupportedModelError("inputs must agree on the number of rows")
    return sizes.pop() if sizes else None


def _run(
    model: ModelProto,
    nodes: Sequence[NodeProto],
    feeds: Mapping[str, Array],
    asked: Sequence[str],
    rows: int,
) -> dict[str, Array]:
    short = ModelProto()
    short.CopyFrom(model)
    del short.graph.node[:]
    short.graph.node.extend(nodes)
    del short.graph.output[:]
    short.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked)
    del short.graph.value_info[:]
    given = {name: values[:rows] for name, values in feeds.items()}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            short.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = session.run(list(asked), given)
    except Exception as exc:
        raise UnsupportedModelError(
            f"the TFLite writer cannot run the ONNX graph on {rows} rows: {one_line(exc)}"
        ) from exc
    return {**given, **dict(zip(asked, map(np.asarray, found), strict=True))}


def _array(tensor: onnx.TensorProto) -> Array:
    return numpy_helper.to_array(tensor)


def _shape(name: str, shapes: Sequence[Shape], rows: Sequence[int]) -> Shape:
    if len({len(shape) for shape in shapes}) != 1:
        raise UnsupportedModelError(f"the rank of {name[:80]!r} depends on the number of rows")
    sizes = []
    for found in zip(*shapes, strict=True):
        if len(set(found)) == 1:
            sizes.append(int(found[0]))
        elif all(
            size * rows[0] == found[0] * count for size, count in zip(found, rows, strict=True)
        ) and (found[0] % rows[0] == 0):
            sizes.append(-int(found[0] // rows[0]))
        else:
            raise UnsupportedModelError(
                f"a size of {name[:80]!r} is no multiple of the number of rows: {list(found)}"
            )
    return tuple(sizes)
