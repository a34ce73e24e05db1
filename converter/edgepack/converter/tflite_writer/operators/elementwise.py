"""Operators that work on each number by itself, with numpy's broadcasting."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Shape, Tensor
from edgepack.converter.tflite_writer.graph import Axes, Graph, Step, Value
from edgepack.converter.tflite_writer.write_operator import Operators, WriteOperator
from edgepack.runtime.tensors import Array

_UNARY: dict[str, tuple[str, Any]] = {
    "Abs": ("ABS", None),
    "Ceil": ("CEIL", None),
    "Cos": ("COS", None),
    "Exp": ("EXP", None),
    "Floor": ("FLOOR", None),
    "HardSwish": ("HARD_SWISH", None),
    "Log": ("LOG", None),
    "Neg": ("NEG", None),
    "Not": ("LOGICAL_NOT", None),
    "Relu": ("RELU", None),
    "Round": ("ROUND", None),
    "Sigmoid": ("LOGISTIC", None),
    "Sign": ("SIGN", None),
    "Sin": ("SIN", None),
    "Sqrt": ("SQRT", None),
    "Tanh": ("TANH", None),
}
_BINARY: dict[str, tuple[str, Any, bool]] = {
    "Add": ("ADD", schema.AddOptionsT, False),
    "And": ("LOGICAL_AND", schema.LogicalAndOptionsT, True),
    "Div": ("DIV", schema.DivOptionsT, False),
    "Equal": ("EQUAL", schema.EqualOptionsT, True),
    "Greater": ("GREATER", schema.GreaterOptionsT, True),
    "GreaterOrEqual": ("GREATER_EQUAL", schema.GreaterEqualOptionsT, True),
    "Less": ("LESS", schema.LessOptionsT, True),
    "LessOrEqual": ("LESS_EQUAL", schema.LessEqualOptionsT, True),
    "Mul": ("MUL", schema.MulOptionsT, False),
    "Or": ("LOGICAL_OR", schema.LogicalOrOptionsT, True),
    "Sub": ("SUB", schema.SubOptionsT, False),
}
_VARIADIC = {"Max": "MAXIMUM", "Min": "MINIMUM", "Sum": "ADD", "Mean": "ADD"}
_OPTIONS = {"MAXIMUM": schema.MaximumMinimumOptionsT, "MINIMUM": schema.MaximumMinimumOptionsT}
_OPTIONS |= {code: options for code, options, _ in _BINARY.values()}


def common_axes(values: Sequence[Value], shape: Shape) -> Axes:
    """The order in which most operands already are: the first that is not ONNX's own."""
    plain = tuple(range(len(shape)))
    large = {axis for axis in plain if shape[axis] != 1}
    held = [value.axes for value in values if value.tensor is not None]
    fit = [axes for axes in held if large <= set(axes)]
    return next((axes for axes in fit if axes != plain), plain)


def broadcast_operands(
    graph: Graph, names: Sequence[str], shape: Shape
) -> tuple[list[Tensor], Axes]:
    """Bring operands into one order, so that TFLite's broadcasting does what ONNX's does."""
    values = [graph.lifted(graph.value(name), len(shape)) for name in names]
    axes = common_axes(values, shape)
    return [operand(graph, value, axes) for value in values], axes


def operand(graph: Graph, value: Value, axes: Axes) -> Tensor:
    """One operand in an order; a constant without the sizes of 1 in front."""
    tensor = graph.arranged(value, axes)
    if tensor.data is None:
        return tensor
    data = tensor.data
    while data.ndim > 1 and data.shape[0] == 1:
        data = data[0]
    return graph.draft.constant(data, value.name)


def joined(shape: Shape, axes: Axes) -> Shape:
    """The shape of a tensor that holds a value of this shape in this order."""
    return tuple(1 if axis < 0 else shape[axis] for axis in axes)


def binary(
    graph: Graph,
    code: str,
    operands: Sequence[Tensor],
    shape: Shape,
    *,
    name: str,
    dtype: str = "float32",
) -> Tensor:
    """Add one operation of two operands, by its TFLite name."""
    options = _OPTIONS.get(code)
    return graph.draft.add(
        code, operands, shape, name=name, dtype=dtype, options=options() if options else None
    )


def unary(graph: Graph, code: str, tensor: Tensor, name: str, options: Any = None) -> Tensor:  # noqa: ANN401
    """Add one operation of one operand, by its TFLite name."""
    return graph.draft.add(
        code, [tensor], tensor.shape, name=name, dtype=tensor.dtype, options=options
    )


def scalar(graph: Graph, value: float, like: Tensor | None = None) -> Tensor:
    """A constant for broadcasting."""
    dtype = "float32" if like is None else like.dtype
    return graph.draft.constant(np.array([value], dtype=dtype), "number")


def held_tensor(graph: Graph, step: Step) -> tuple[Tensor, Axes]:
    """The first input in whatever order it is held."""
    value = graph.value(step.inputs[0])
    if value.tensor is None:
        axes = tuple(range(value.rank))
        return graph.arranged(value, axes), axes
    return value.tensor, value.axes


def _unary_writer(code: str, options: Any) -> WriteOperator:  # noqa: ANN401
    def write(graph: Graph, step: Step) -> None:
        tensor, axes = held_tensor(graph, step)
        made = unary(graph, code, tensor, step.output, options() if options else None)
        graph.put(step.output, made, axes)

    return write


def _binary_writer(code: str, truth: bool) -> WriteOperator:
    def write(graph: Graph, step: Step) -> None:
        shape = graph.shape(step.output)
        if code == "DIV" and graph.dtype(step.output) != "float32":
            raise step.refuse("of integers")
        operands, axes = broadcast_operands(graph, step.inputs, shape)
        dtype = "bool" if truth else graph.dtype(step.output)
        held = joined(shape, axes)
        graph.put(
            step.output,
            binary(graph, code, operands, held, name=step.output, dtype=dtype),
            axes,
        )

    return write


def _variadic_writer(code: str) -> WriteOperator:
    def write(graph: Graph, step: Step) -> None:
        shape = graph.shape(step.output)
        operands, axes = broadcast_operands(graph, step.inputs, shape)
        held = joined(shape, axes)
        result = operands[0]
        for other in operands[1:]:
            sizes = np.broadcast_shapes(_absolute(result.shape), _absolute(other.shape))
            partial = held if sizes == _absolute(held) else _signed(sizes, held)
            result = binary(
                graph, code, [result, other], partial, name=step.output, dtype=result.dtype
            )
        if step.operator == "Mean":
            share = scalar(graph, 1 / len(operands))
            result = binary(graph, "MUL", [result, share], held, name=step.output)
        if len(operands) == 1 and step.operator != "Mean":
            graph.alias(step.output, graph.value(step.inputs[0]))
        else:
            graph.put(step.output, result, axes)

    return write


def _absolute(shape: Shape) -> Shape:
    return tuple(abs(size) for size in shape)


def _signed(sizes: Sequence[int], like: Shape) -> Shape:
    tail = like[len(like) - len(sizes) :]
    return tuple(-size if size == -other else size for size, other in zip(sizes, tail, strict=True))


def _power(graph: Graph, step: Step) -> None:
    if graph.is_static(step.inputs[1]):
        exponent = graph.static(step, 1)
        if exponent.size == 1 and float(exponent.reshape(())) in (1.0, 2.0, 0.5, -1.0):
            tensor, axes = held_tensor(graph, step)
            match float(exponent.reshape(())):
                case 1.0:
                    graph.alias(step.output, graph.value(step.inputs[0]))
                    return
                case 2.0:
                    made = binary(graph, "MUL", [tensor, tensor], tensor.shape, name=step.output)
                case 0.5:
                    made = unary(graph, "SQRT", tensor, step.output)
                case _:
                    one = scalar(graph, 1.0)
                    made = binary(graph, "DIV", [one, tensor], tensor.shape, name=step.output)
            graph.put(step.output, made, axes)
            return
    shape = graph.shape(step.output)
    operands, axes = broadcast_operands(graph, step.inputs, shape)
    made = graph.draft.add(
        "POW", operands, joined(shape, axes), name=step.output, options=schema.PowOptionsT()
    )
    graph.put(step.output, made, axes)


def _reciprocal(graph: Graph, step: Step) -> None:
    tensor, axes = held_tensor(graph, step)
    made = binary(graph, "DIV", [scalar(graph, 1.0), tensor], tensor.shape, name=step.output)
    graph.put(step.output, made, axes)


def _is_nan(graph: Graph, step: Step) -> None:
    tensor, axes = held_tensor(graph, step)
    graph.put(step.output, is_nan(graph, tensor, step.output), axes)


def is_nan(graph: Graph, tensor: Tensor, name: str) -> Tensor:
    """Whether each number is NaN, which alone differs from itself."""
    return binary(graph, "NOT_EQUAL", [tensor, tensor], tensor.shape, name=name, dtype="bool")


def _where(graph: Graph, step: Step) -> None:
    shape = graph.shape(step.output)
    operands, axes = broadcast_operands(graph, step.inputs, shape)
    graph.put(
        step.output,
        graph.draft.add(
            "SELECT_V2",
            operands,
            joined(shape, axes),
            name=step.output,
            dtype=graph.dtype(step.output),
            options=schema.SelectV2OptionsT(),
        ),
        axes,
    )


def _cast(graph: Graph, step: Step) -> None:
    tensor, axes = held_tensor(graph, step)
    dtype = graph.dtype(step.output)
    if dtype == "text":
        raise step.refuse("to text")
    if tensor.dtype == dtype:
        graph.alias(step.output, graph.value(step.inputs[0]))
    else:
        graph.put(step.output, cast(graph, tensor, dtype, step.output), axes)


def cast(graph: Graph, tensor: Tensor, dtype: str, name: str) -> Tensor:
    """The numbers of a tensor in another type."""
    return graph.draft.add(
        "CAST", [tensor], tensor.shape, name=name, dtype=dtype, options=schema.CastOptionsT()
    )


def _identity(graph: Graph, step: Step) -> None:
    graph.alias(step.output, graph.value(step.inputs[0]))


def _expand(graph: Graph, step: Step) -> None:
    value = graph.value(step.inputs[0])
    shape = graph.shape(step.output)
    if value.dtype != "float32" or value.tensor is None:
        raise step.refuse("of anything but float32")
    ones: Array = np.ones([max(size, 1) for size in shape], dtype=np.float32)
    lifted = graph.lifted(value, len(shape))
    axes = common_axes([lifted], shape)
    held = joined(shape, axes)
    ones_held = graph.draft.constant(
        ones.reshape([max(size, 1) for size in held]), f"{step.output}_ones"
    )
    if any(size < 0 for size in shape) and all(size >= 0 for size in lifted.shape):
        raise step.refuse("to the number of rows")
    tensor = graph.arranged(lifted, axes)
    graph.put(step.output, binary(graph, "MUL", [tensor, ones_held], held, name=step.output), axes)


OPERATORS: Operators = {
    **{name: _unary_writer(code, options) for name, (code, options) in _UNARY.items()},
    **{name: _binary_writer(code, truth) for name, (code, _, truth) in _BINARY.items()},
    **{name: _variadic_writer(code) for name, code in _VARIADIC.items()},
    "Cast": _cast,
    "Dropout": _identity,
    "Expand": _expand,
    "Identity": _identity,
    "IsNaN": _is_nan,
    "Pow": _power,
    "Reciprocal": _reciprocal,
    "Where": _where,
}
