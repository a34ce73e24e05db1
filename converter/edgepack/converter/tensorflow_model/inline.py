"""A frozen graph with its functions taken into it, as exporters want it."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.grappler import tf_optimizer

from edgepack.converter.tensorflow_model.saved import node_of, reachable

_LOWERED = "_lower_using_switch_merge"
_SHAPES = "_input_shapes"


def inlined(graph: Any, inputs: Iterable[str], outputs: Iterable[str]) -> Any:  # noqa: ANN401
    """The graph without calls of functions; loops and conditions stay whole.

    Args:
        graph: A protobuf without variables; it is changed.
        inputs: Names of the tensors that it takes.
        outputs: Names of those that it gives.
    """
    ends = [*inputs, *outputs]
    for node in (*graph.node, *(n for f in graph.library.function for n in f.node_def)):
        if _LOWERED in node.attr:  # exporters know a loop, but not its parts
            del node.attr[_LOWERED]
    for function in graph.library.function:
        if _SHAPES in function.attr:  # of its arguments before variables became constants
            del function.attr[_SHAPES]
    imported = tf.Graph()
    with imported.as_default():
        tf.import_graph_def(graph, name="")
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph, graph=imported)
    meta.collection_def["train_op"].node_list.value.extend(node_of(name) for name in ends)
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.min_graph_nodes = -1
    rewrite.optimizers.append("function")
    # Functions that nothing calls are left over, and call functions that are gone.
    return reachable(tf_optimizer.OptimizeGraph(config, meta), ends)
