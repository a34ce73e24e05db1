"""Activation functions beyond those that are one operator of TFLite for one of ONNX."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Tensor
from edgepack.converter.tflite_writer.graph import Graph, Step
from edgepack.converter.tflite_writer.operators.elementwise import (
    binary,
    broadcast_operands,
    held_tensor,
    joined,
    scalar,
    unary,
)
from edgepack.converter.tflite_writer.write_operator import Operators

_ERF_P = 0.3275911
_ERF_A = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def _clip(graph: Graph, step: Step) -> None:
    low, high = step.attribute("min"), step.attribute("max")
    if step.has_input(1):
        low = float(graph.static(step, 1).reshape(()))
    if step.has_input(2):
        high = float(graph.static(step, 2).reshape(()))
    tensor, axes = held_tensor(graph, step)
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
    tensor, axes = held_tensor(graph, step)
    alpha, beta = step.attribute("alpha", 0.2), step.attribute("beta", 0.5)
    for code, number in (("MUL", alpha), ("ADD", beta)):
        tensor = binary(
            graph, code, [tensor, scalar(graph, number)], tensor.shape, name=step.output
        )
    graph.put(step.output, clipped(graph, tensor, 0.0, 1.0, step.output), axes)


def _softplus(graph: Graph, step: Step) -> None:
    # log(1 + exp(x)) without overflow: max(x, 0) + log(1 + exp(-|x|)).
    tensor, axes = held_tensor(graph, step)
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
    tensor, axes = held_tensor(graph, step)
    below = unary(graph, "ABS", tensor, f"{step.output}_abs")
    below = binary(
        graph, "ADD", [below, scalar(graph, 1.0)], tensor.shape, name=f"{step.output}_one"
    )
    graph.put(
        step.output, binary(graph, "DIV", [tensor, below], tensor.shape, name=step.output), axes
    )


def _leaky_relu(graph: Graph, step: Step) -> None:
    tensor, axes = held_tensor(graph, step)
    options = schema.LeakyReluOptionsT(alpha=step.attribute("alpha", 0.01))
    graph.put(step.output, unary(graph, "LEAKY_RELU", tensor, step.output, options), axes)


def _elu(graph: Graph, step: Step) -> None:
    if step.attribute("alpha", 1.0) != 1.0:
        raise step.refuse("with an alpha other than 1")
    tensor, axes = held_tensor(graph, step)
    graph.put(step.output, unary(graph, "ELU", tensor, step.output), axes)


def _gelu(graph: Graph, step: Step) -> None:
    tensor, axes = held_tensor(graph, step)
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
    tensor, axes = held_tensor(graph, step)
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


OPERATORS: Operators = {
    "Clip": _clip,
    "Elu": _elu,
    "Erf": _erf,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Softplus": _softplus,
    "Softsign": _softsign,
}
