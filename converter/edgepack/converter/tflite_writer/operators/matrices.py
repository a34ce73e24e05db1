"""Matrix products: fully connected layers where one side is constant."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.tflite_writer.draft import Shape, Tensor
from edgepack.converter.tflite_writer.graph import Graph, Step
from edgepack.converter.tflite_writer.operators.elementwise import binary
from edgepack.converter.tflite_writer.write_operator import Operators
from edgepack.runtime.tensors import Array

_KEEPS_DIMENSIONS = 5  # the version of FULLY_CONNECTED that does


def fully_connected(
    graph: Graph,
    tensor: Tensor,
    weights: Array,
    bias: Array | None,
    name: str,
    *,
    relu: bool = False,
) -> Tensor:
    """Multiply the last dimension by weights.

    Args:
        graph: Where to write it.
        tensor: float32 (…, K).
        weights: (M, K).
        bias: (M,) or None for zeros: every interpreter takes a bias, old ones want one.
        name: Of the output.
        relu: Cut the answer off below 0.
    """
    if bias is None:
        bias = np.zeros(weights.shape[0])
    wide = len(tensor.shape) > 2
    code = schema.ActivationFunctionType
    return graph.draft.add(
        "FULLY_CONNECTED",
        [
            tensor,
            graph.draft.constant(np.asarray(weights, dtype=np.float32), f"{name}_weights"),
            graph.draft.bias(bias, f"{name}_bias"),
        ],
        (*tensor.shape[:-1], weights.shape[0]),
        name=name,
        options=schema.FullyConnectedOptionsT(
            keepNumDims=wide, fusedActivationFunction=code.RELU if relu else code.NONE
        ),
        version=_KEEPS_DIMENSIONS if wide else 1,
    )


def _matmul(graph: Graph, step: Step) -> None:
    left, right = (graph.value(name) for name in step.inputs)
    shape = graph.shape(step.output)
    if right.constant is not None and left.rank > 1 and right.rank <= 2:
        # A vector on the right is a matrix of one column that ONNX then leaves out.
        weights = np.atleast_2d(right.constant.T)
        made = fully_connected(graph, graph.plain(step.inputs[0]), weights, None, step.output)
        axes = tuple(range(len(shape)))
        graph.put(step.output, made, axes if right.rank == 2 else (*axes, -1))
        return
    if min(left.rank, right.rank) < 2:
        raise step.refuse("of a vector on the left")
    sides = [graph.plain(name) for name in step.inputs]
    graph.put(step.output, batch_product(graph, sides, shape, step.output))


def batch_product(graph: Graph, sides: Sequence[Tensor], shape: Shape, name: str) -> Tensor:
    """The product of two tensors' last two dimensions."""
    return graph.draft.add(
        "BATCH_MATMUL",
        sides,
        shape,
        name=name,
        options=schema.BatchMatMulOptionsT(adjX=False, adjY=False),
    )


def _gemm(graph: Graph, step: Step) -> None:
    alpha, beta = step.attribute("alpha", 1.0), step.attribute("beta", 1.0)
    right = graph.value(step.inputs[1])
    if right.constant is None or step.attribute("transA", 0):
        raise step.refuse("of two computed matrices, or of a transposed first one")
    weights = right.constant if step.attribute("transB", 0) else right.constant.T
    weights = weights.astype(np.float32) * np.float32(alpha)
    shape = graph.shape(step.output)
    bias, rest = None, None
    if step.has_input(2):
        added = graph.value(step.inputs[2])
        if added.constant is not None and added.constant.size in (1, shape[1]):
            bias = np.broadcast_to(added.constant.reshape(-1) * np.float32(beta), (shape[1],))
        elif beta == 1.0:
            rest = graph.arranged(graph.lifted(added, 2), (0, 1))
        else:
            raise step.refuse("with a computed addend and a beta")
    made = fully_connected(graph, graph.plain(step.inputs[0]), weights, bias, step.output)
    if rest is not None:
        made = binary(graph, "ADD", [made, rest], shape, name=step.output)
    graph.put(step.output, made)


OPERATORS: Operators = {"Gemm": _gemm, "MatMul": _matmul}
