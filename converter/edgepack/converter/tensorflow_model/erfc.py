"""Erfc, as TensorFlow writes GELU, by what ONNX has: 1 - Erf. Pure."""

from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2


def without_erfc(graph: Any) -> Any:  # noqa: ANN401  (TensorFlow is not followed)
    """A graph without Erfc, which tf2onnx passes on as if ONNX had it.

    Args:
        graph: A frozen GraphDef; it is not changed.
    """
    if not any(node.op == "Erfc" for node in graph.node):
        return graph
    found = graph_pb2.GraphDef()
    found.CopyFrom(graph)
    for node in [node for node in found.node if node.op == "Erfc"]:
        datatype = node.attr["T"].type
        erf = node_def_pb2.NodeDef(name=f"{node.name}/erf", op="Erf", input=node.input[:1])
        erf.attr["T"].type = datatype
        one = node_def_pb2.NodeDef(name=f"{node.name}/one", op="Const")
        one.attr["dtype"].type = datatype
        one.attr["value"].tensor.CopyFrom(_one(datatype))
        found.node.extend([erf, one])
        node.op = "Sub"
        node.input[:1] = [one.name, erf.name]
    return found


def _one(datatype: int) -> Any:  # noqa: ANN401
    return tf.make_tensor_proto(1.0, dtype=datatype)
