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
_ERF_P = 0.3275911
_ERF_A = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
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


def _held(graph: Graph, step: Step) -> tuple[Tensor, Axes]:
    value = graph.value(step.inputs[0])
    if value.tensor is None:
        axes = tuple(range(value.rank))
        return graph.arranged(value, axes), axes
    return value.tensor, value.axes


def _unary_writer(code: str, options: Any) -> WriteOperator:  # noqa: ANN401
    def write(graph: Graph, step: Step) -> None:
        tensor, axes = _held(graph, step)
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
            tensor, axes = _held(graph, step)
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
    tensor, axes = _held(graph, step)
    made = binary(graph, "DIV", [scalar(graph, 1.0), tensor], tensor.shape, name=step.output)
    graph.put(step.output, made, axes)


def _clip(graph: Graph, step: Step) -> None:
    low, high = step.attribute("min"), step.attribute("max")
    if step.has_input(1):
        low = float(graph.static(step, 1).reshape(()))
    if step.has_input(2):
        high = float(graph.static(step, 2).reshape(()))
    tensor, axes = _held(graph, step)
    graph.put(step.output, clipped(graph, tensor, low, high, step.output), axes)


def clipped(
    graph: Graph, tensor: Tensor, low: float | None, high: float | None, name: str
) -> Tensor:
    """Limit a tensor, with the activation that TFLite can fuse where there is one."""
    limit = float(np.finfo(np.float32).max)
    low = None if low is None or low <= -limit else low
    high = None if high is None or high >= limit else high
    fused: dict[tuple[float | None, float | None], str] = {
        (0.0, 6.0): "RELU6",
        (0.0, None): "RELU",
        (-1.0, 1.0): "RELU_N1_TO_1",
    }
    if (low, high) in fused and tensor.dtype == "float32":
        return unary(graph, fused[(low, high)], tensor, name)
    for code, bound in (("MAXIMUM", low), ("MINIMUM", high)):
        if bound is not None:
            tensor = binary(
                graph,
                code,
                [tensor, scalar(graph, bound, tensor)],
                tensor.shape,
                name=name,
                dtype=tensor.dtype,
            )
    return tensor


def _hard_sigmoid(graph: Graph, step: Step) -> None:
    tensor, axes = _held(graph, step)
    alpha, beta = step.attribute("alpha", 0.2), step.attribute("beta", 0.5)
    for code, number in (("MUL", alpha), ("ADD", beta)):
        tensor = binary(
            graph, code, [tensor, scalar(graph, number)], tensor.shape, name=step.output
        )
    graph.put(step.output, clipped(graph, tensor, 0.0, 1.0, step.output), axes)


def _softplus(graph: Graph, step: Step) -> None:
    # log(1 + exp(x)) without overflow: max(x, 0) + log(1 + exp(-|x|)).
    tensor, axes = _held(graph, step)
    small = unary(graph, "ABS", tensor, f"{step.output}_abs")
    small = unary(graph, "NEG", small, f"{step.output}_neg")
    small = unary(graph, "EXP", small, f"{step.output}_exp")
    small = binary(
        graph, "ADD", [small, scalar(graph, 1.0)], tensor.shape, name=f"{step.output}_one"
    )
    small = unary(graph, "LOG", small, f"{step.output}_log")
    large = unary(graph, "RELU", tensor, f"{step.output}_relu")
    graph.put(
        step.output, binary(graph, "ADD", [large, small], tensor.shape, name=step.output), axes
    )


def _softsign(graph: Graph, step: Step) -> None:
    tensor, axes = _held(graph, step)
    below = unary(graph, "ABS", tensor, f"{step.output}_abs")
    below = binary(
        graph, "ADD", [below, scalar(graph, 1.0)], tensor.shape, name=f"{step.output}_one"
    )
    graph.put(
        step.output, binary(graph, "DIV", [tensor, below], tensor.shape, name=step.output), axes
    )


def _leaky_relu(graph: Graph, step: Step) -> None:
    tensor, axes = _held(graph, step)
    options = schema.LeakyReluOptionsT(alpha=step.attribute("alpha", 0.01))
    graph.put(step.output, unary(graph, "LEAKY_RELU", tensor, step.output, options), axes)


def _elu(graph: Graph, step: Step) -> None:
    if step.attribute("alpha", 1.0) != 1.0:
        raise step.refuse("with an alpha other than 1")
    tensor, axes = _held(graph, step)
    graph.put(step.output, unary(graph, "ELU", tensor, step.output), axes)


def _gelu(graph: Graph, step: Step) -> None:
    tensor, axes = _held(graph, step)
    options = schema.GeluOptionsT(approximate=step.attribute("approximate", "none") == "tanh")
    graph.put(step.output, unary(graph, "GELU", tensor, step.output, options), axes)


def _prelu(graph: Graph, step: Step) -> None:
    # max(x, 0) + slope * min(x, 0): PRELU itself wants the slope without its first dimension.
    shape = graph.shape(step.output)
    (tensor, slope), axes = broadcast_operands(graph, step.inputs[:2], shape)
    held = joined(shape, axes)
    zero = scalar(graph, 0.0)
    above = unary(graph, "RELU", tensor, f"{step.output}_above")
    below = binary(graph, "MINIMUM", [tensor, zero], held, name=f"{step.output}_below")
    below = binary(graph, "MUL", [below, slope], held, name=f"{step.output}_slope")
    graph.put(step.output, binary(graph, "ADD", [above, below], held, name=step.output), axes)


def _erf(graph: Graph, step: Step) -> None:
    """The error function, to 1.5e-7: Abramowitz and Stegun 1964, 7.1.26."""
    tensor, axes = _held(graph, step)
    name = step.output

    def with_number(code: str, operands: Sequence[Tensor | float], part: str) -> Tensor:
        held = [scalar(graph, item) if isinstance(item, float) else item for item in operands]
        return binary(graph, code, held, tensor.shape, name=f"{name}_{part}")

    size = unary(graph, "ABS", tensor, f"{name}_size")
    below = with_number("MUL", [size, _ERF_P], "scaled")
    t = with_number("DIV", [1.0, with_number("ADD", [below, 1.0], "below")], "t")
    total = with_number("MUL", [t, _ERF_A[0]], "sum")
    for number in _ERF_A[1:]:
        total = with_number("ADD", [total, number], "sum")
        total = with_number("MUL", [total, t], "sum")
    square = unary(graph, "NEG", with_number("MUL", [size, size], "square"), f"{name}_square")
    total = with_number("MUL", [total, unary(graph, "EXP", square, f"{name}_exp")], "tail")
    made = with_number("SUB", [1.0, total], "of_size")
    sign = unary(graph, "SIGN", tensor, f"{name}_sign")
    graph.put(name, binary(graph, "MUL", [made, sign], tensor.shape, name=name), axes)


def _is_nan(graph: Graph, step: Step) -> None:
    tensor, axes = _held(graph, step)
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
    tensor, axes = _held(graph, step)
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
    "Clip": _clip,
    "Dropout": _identity,
    "Elu": _elu,
    "Erf": _erf,
    "Expand": _expand,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _identity,
    "IsNaN": _is_nan,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _reciprocal,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Where": _where,
}
