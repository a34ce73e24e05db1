"""Support vector regression: kernels against constant vectors."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Tensor
from edgepack.converter.tflite_writer.graph import Graph, Step
from edgepack.converter.tflite_writer.operators.elementwise import binary, scalar, unary
from edgepack.converter.tflite_writer.operators.linear_models import as_float, post_transformed
from edgepack.converter.tflite_writer.operators.matrices import fully_connected
from edgepack.converter.tflite_writer.write_operator import Operators
from edgepack.runtime.tensors import Array


def _regressor(graph: Graph, step: Step) -> None:
    if step.attribute("one_class", 0):
        raise step.refuse("of one class")
    tensor, name = as_float(graph, step), step.output
    coefficients = np.array(step.attribute("coefficients"), dtype=np.float32)
    count = step.attribute("n_supports", 0)
    if count:
        vectors = np.array(step.attribute("support_vectors"), dtype=np.float32)
        tensor = _kernel(graph, step, tensor, vectors.reshape(count, -1))
    rho = np.array(step.attribute("rho"), dtype=np.float32)[:1]
    made = fully_connected(graph, tensor, coefficients[None, :], rho, name)
    graph.put(name, post_transformed(graph, step, made, name))


def _kernel(graph: Graph, step: Step, tensor: Tensor, vectors: Array) -> Tensor:
    """What the kernel says of each row and each vector: float32 (N, vectors)."""
    gamma, addend, degree = (*step.attribute("kernel_params", []), 0.0, 0.0, 0.0)[:3]
    kind, name = step.attribute("kernel_type", "LINEAR"), step.output
    if kind == "RBF":
        return _radial(graph, tensor, vectors, gamma, name)
    if kind == "LINEAR":
        return fully_connected(graph, tensor, vectors, None, f"{name}_products")
    bias = np.full(len(vectors), addend, dtype=np.float32)
    scaled = vectors.astype(np.float64) * gamma
    made = fully_connected(graph, tensor, scaled, bias, f"{name}_products")
    if kind == "SIGMOID":
        return unary(graph, "TANH", made, f"{name}_kernel")
    if kind != "POLY" or degree != int(degree) or not 1 <= degree <= 9:
        raise step.refuse(f"with the kernel {kind} of the degree {degree}")
    power = made
    for _ in range(int(degree) - 1):  # POW of a negative number is not a number everywhere
        power = binary(graph, "MUL", [power, made], made.shape, name=f"{name}_power")
    return power


def _radial(graph: Graph, tensor: Tensor, vectors: Array, gamma: float, name: str) -> Tensor:
    # Differences first: the product form (x² - 2xv + v²) loses what is left of close vectors.
    rows, columns = tensor.shape
    single = graph.reshaped(tensor, (rows, 1, columns))
    held = graph.draft.constant(vectors, f"{name}_vectors")
    shape = (rows, len(vectors), columns)
    apart = binary(graph, "SUB", [single, held], shape, name=f"{name}_apart")
    square = binary(graph, "MUL", [apart, apart], shape, name=f"{name}_square")
    distance = graph.draft.add(
        "SUM",
        [square, graph.draft.integers([2], "axes")],
        shape[:2],
        name=f"{name}_distance",
        options=schema.ReducerOptionsT(keepDims=False),
    )
    operands = [distance, scalar(graph, -gamma)]
    return unary(
        graph,
        "EXP",
        binary(graph, "MUL", operands, shape[:2], name=f"{name}_exponent"),
        f"{name}_kernel",
    )


OPERATORS: Operators = {"ai.onnx.ml.SVMRegressor": _regressor}
