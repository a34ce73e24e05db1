"""Operators that sum, compare or normalize along dimensions."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Tensor
from edgepack.converter.tflite_writer.graph import Axes, Graph, Step
from edgepack.converter.tflite_writer.operators.elementwise import (
    binary,
    broadcast_operands,
    joined,
    scalar,
    unary,
)
from edgepack.converter.tflite_writer.write_operator import Operators, WriteOperator

_REDUCTIONS = {
    "ReduceMax": "REDUCE_MAX",
    "ReduceMean": "MEAN",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
    "ReduceSum": "SUM",
}


def reduced(graph: Graph, code: str, tensor: Tensor, axes: Sequence[int], name: str) -> Tensor:
    """Reduce dimensions of a tensor to size 1."""
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(tensor.shape))
    return graph.draft.add(
        code,
        [tensor, graph.draft.integers(sorted(axes), "axes")],
        shape,
        name=name,
        dtype=tensor.dtype,
        options=schema.ReducerOptionsT(keepDims=True),
    )


def _reduced_axes(graph: Graph, step: Step) -> list[int]:
    rank = len(graph.shape(step.inputs[0]))
    axes = step.attribute("axes")
    if step.has_input(1):
        axes = graph.static(step, 1).tolist()
    if not axes:
        if step.attribute("noop_with_empty_axes", 0):
            raise step.refuse("without axes")
        axes = range(rank)
    return sorted(int(axis) % rank for axis in axes)


def _source(graph: Graph, step: Step, needed: Sequence[int]) -> tuple[Tensor, Axes]:
    """The first input, in whatever order has all dimensions that are needed."""
    value = graph.value(step.inputs[0])
    if any(value.shape[axis] < 0 for axis in needed):
        raise step.refuse("over the rows")
    axes = value.axes
    if value.tensor is None or any(axis not in axes for axis in needed):
        axes = tuple(range(value.rank))
    return graph.arranged(value, axes), axes


def _put_reduced(graph: Graph, step: Step, made: Tensor, axes: Axes, gone: Sequence[int]) -> None:
    if not step.attribute("keepdims", 1):
        axes = tuple(
            -1 if axis in gone or axis < 0 else axis - sum(other < axis for other in gone)
            for axis in axes
        )
    graph.put(step.output, made, axes)


def _reduction_writer(code: str) -> WriteOperator:
    def write(graph: Graph, step: Step) -> None:
        gone = _reduced_axes(graph, step)
        tensor, axes = _source(graph, step, gone)
        made = reduced(graph, code, tensor, [axes.index(axis) for axis in gone], step.output)
        _put_reduced(graph, step, made, axes, gone)

    return write


def _norm_writer(kind: str) -> WriteOperator:
    def write(graph: Graph, step: Step) -> None:
        gone = _reduced_axes(graph, step)
        tensor, axes = _source(graph, step, gone)
        places = [axes.index(axis) for axis in gone]
        if kind == "l1":
            inside = unary(graph, "ABS", tensor, f"{step.output}_abs")
        else:
            inside = binary(
                graph, "MUL", [tensor, tensor], tensor.shape, name=f"{step.output}_square"
            )
        made = reduced(graph, "SUM", inside, places, step.output)
        if kind == "l2":
            made = unary(graph, "SQRT", made, step.output)
        _put_reduced(graph, step, made, axes, gone)

    return write


def _log_sum_exp(graph: Graph, step: Step) -> None:
    # The largest is taken out first, so that exp cannot overflow.
    gone = _reduced_axes(graph, step)
    tensor, axes = _source(graph, step, gone)
    places = [axes.index(axis) for axis in gone]
    most = reduced(graph, "REDUCE_MAX", tensor, places, f"{step.output}_max")
    rest = binary(graph, "SUB", [tensor, most], tensor.shape, name=f"{step.output}_rest")
    rest = unary(graph, "EXP", rest, f"{step.output}_exp")
    total = reduced(graph, "SUM", rest, places, f"{step.output}_sum")
    total = unary(graph, "LOG", total, f"{step.output}_log")
    made = binary(graph, "ADD", [most, total], most.shape, name=step.output)
    _put_reduced(graph, step, made, axes, gone)


def _arg_writer(code: str) -> WriteOperator:
    def write(graph: Graph, step: Step) -> None:
        if step.attribute("select_last_index", 0):
            raise step.refuse("that takes the last of equals")
        value = graph.value(step.inputs[0])
        axis = step.attribute("axis", 0) % value.rank
        tensor, axes = _source(graph, step, [axis])
        place = axes.index(axis)
        shape = tuple(size for i, size in enumerate(tensor.shape) if i != place)
        options = (
            schema.ArgMaxOptionsT(outputType=schema.TensorType.INT64)
            if code == "ARG_MAX"
            else schema.ArgMinOptionsT(outputType=schema.TensorType.INT64)
        )
        made = graph.draft.add(
            code,
            [tensor, graph.draft.integers([place], "axis")],
            shape,
            name=step.output,
            dtype="int64",
            options=options,
        )
        left = tuple(a for a in axes if a != axis)
        if not step.attribute("keepdims", 1):
            left = tuple(a - 1 if a > axis else a for a in left)
        graph.put(step.output, made, left)

    return write


def _softmax_writer(code: str) -> WriteOperator:
    def write(graph: Graph, step: Step) -> None:
        value = graph.value(step.inputs[0])
        axis = step.attribute("axis", -1) % value.rank
        order = (*(a for a in range(value.rank) if a != axis), axis)
        tensor = graph.arranged(value, order)
        graph.put(step.output, soft(graph, code, tensor, step.output), order)

    return write


def soft(graph: Graph, code: str, tensor: Tensor, name: str) -> Tensor:
    """SOFTMAX or LOG_SOFTMAX along the last dimension."""
    options = schema.SoftmaxOptionsT(beta=1.0) if code == "SOFTMAX" else schema.LogSoftmaxOptionsT()
    return graph.draft.add(code, [tensor], tensor.shape, name=name, options=options)


def _layer_normalization(graph: Graph, step: Step) -> None:
    rank = len(graph.shape(step.inputs[0]))
    first = step.attribute("axis", -1) % rank
    gone = list(range(first, rank))
    plain = graph.plain(step.inputs[0])
    name = step.output
    mean = reduced(graph, "MEAN", plain, gone, f"{name}_mean")
    rest = binary(graph, "SUB", [plain, mean], plain.shape, name=f"{name}_rest")
    square = binary(graph, "MUL", [rest, rest], plain.shape, name=f"{name}_square")
    spread = reduced(graph, "MEAN", square, gone, f"{name}_variance")
    epsilon = scalar(graph, step.attribute("epsilon", 1e-5))
    spread = binary(graph, "ADD", [spread, epsilon], spread.shape, name=f"{name}_epsilon")
    spread = unary(graph, "SQRT", spread, f"{name}_deviation")
    made = binary(graph, "DIV", [rest, spread], plain.shape, name=name)
    for code, index in (("MUL", 1), ("ADD", 2)):
        if step.has_input(index):
            constant = graph.draft.constant(graph.static(step, index), step.inputs[index])
            made = binary(graph, code, [made, constant], plain.shape, name=name)
    graph.put(step.output, made)


def _cumulative_sum(graph: Graph, step: Step) -> None:
    tensor = graph.plain(step.inputs[0])
    axis = int(graph.static(step, 1).reshape(())) % len(tensor.shape)
    if tensor.shape[axis] < 0:
        raise step.refuse("over the rows")
    made = graph.draft.add(
        "CUMSUM",
        [tensor, graph.draft.integers([axis], "axis")],
        tensor.shape,
        name=step.output,
        dtype=tensor.dtype,
        options=schema.CumsumOptionsT(
            exclusive=bool(step.attribute("exclusive", 0)),
            reverse=bool(step.attribute("reverse", 0)),
        ),
    )
    graph.put(step.output, made)


def _batch_normalization(graph: Graph, step: Step) -> None:
    # x * factor + offset; a convolution or a matrix product before it swallows both.
    scale, offset, mean, variance = (
        graph.static(step, index).astype(np.float64) for index in range(1, 5)
    )
    factor = scale / np.sqrt(variance + step.attribute("epsilon", 1e-5))
    shape = graph.shape(step.output)
    value = graph.value(step.inputs[0])
    axes = value.axes if 1 in value.axes else tuple(range(value.rank))
    tensor, held = graph.arranged(value, axes), joined(shape, axes)
    for code, number in (("MUL", factor), ("ADD", offset - mean * factor)):
        sizes = [-1 if axis == 1 else 1 for axis in axes[axes.index(1) :]]
        constant = graph.draft.constant(
            number.astype(np.float32).reshape(sizes), f"{step.output}_{code.lower()}"
        )
        tensor = binary(graph, code, [tensor, constant], held, name=step.output)
    graph.put(step.output, tensor, axes)


def _instance_normalization(graph: Graph, step: Step) -> None:
    rank = len(graph.shape(step.inputs[0]))
    tensor, axes = _source(graph, step, list(range(1, rank)))
    gone = [place for place, axis in enumerate(axes) if axis > 1]
    name = step.output
    mean = reduced(graph, "MEAN", tensor, gone, f"{name}_mean")
    rest = binary(graph, "SUB", [tensor, mean], tensor.shape, name=f"{name}_rest")
    square = binary(graph, "MUL", [rest, rest], tensor.shape, name=f"{name}_square")
    spread = reduced(graph, "MEAN", square, gone, f"{name}_variance")
    epsilon = scalar(graph, step.attribute("epsilon", 1e-5))
    spread = binary(graph, "ADD", [spread, epsilon], spread.shape, name=f"{name}_epsilon")
    made = binary(
        graph,
        "DIV",
        [rest, unary(graph, "SQRT", spread, f"{name}_deviation")],
        tensor.shape,
        name=name,
    )
    for code, index in (("MUL", 1), ("ADD", 2)):
        sizes = [-1 if axis == 1 else 1 for axis in axes[axes.index(1) :]]
        constant = graph.draft.constant(
            graph.static(step, index).reshape(sizes), step.inputs[index]
        )
        made = binary(graph, code, [made, constant], tensor.shape, name=name)
    graph.put(name, made, axes)


def _normalizer(graph: Graph, step: Step) -> None:
    norm = step.attribute("norm", "MAX")
    (tensor,), axes = broadcast_operands(graph, step.inputs, graph.shape(step.output))
    if axes != (0, 1):
        raise step.refuse("of anything but a matrix")
    name = step.output
    maker = graph.draft.makers.get(tensor)
    if norm == "L1" and maker is not None and maker.code == "SOFTMAX":
        graph.alias(name, graph.value(step.inputs[0]))  # its rows add up to 1 already
        return
    if norm == "L1":
        inside = unary(graph, "ABS", tensor, f"{name}_abs")
    elif norm == "L2":
        inside = binary(graph, "MUL", [tensor, tensor], tensor.shape, name=f"{name}_square")
    else:
        inside = tensor
    below = reduced(graph, "REDUCE_MAX" if norm == "MAX" else "SUM", inside, [1], f"{name}_sum")
    if norm == "L2":
        below = unary(graph, "SQRT", below, f"{name}_length")
    # A row of zeros stays as it is: it is divided by 1.
    zero = binary(
        graph, "EQUAL", [below, scalar(graph, 0.0)], below.shape, name=f"{name}_zero", dtype="bool"
    )
    one = graph.draft.add(
        "CAST",
        [zero],
        below.shape,
        name=f"{name}_one",
        options=schema.CastOptionsT(),
    )
    below = binary(graph, "ADD", [below, one], below.shape, name=f"{name}_divisor")
    graph.put(name, binary(graph, "DIV", [tensor, below], tensor.shape, name=name))


OPERATORS: Operators = {
    **{name: _reduction_writer(code) for name, code in _REDUCTIONS.items()},
    "ArgMax": _arg_writer("ARG_MAX"),
    "ArgMin": _arg_writer("ARG_MIN"),
    "BatchNormalization": _batch_normalization,
    "CumSum": _cumulative_sum,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _softmax_writer("LOG_SOFTMAX"),
    "ReduceL1": _norm_writer("l1"),
    "ReduceL2": _norm_writer("l2"),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": _norm_writer("square"),
    "Softmax": _softmax_writer("SOFTMAX"),
    "ai.onnx.ml.Normalizer": _normalizer,
}
