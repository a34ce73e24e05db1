"""Models that are right on their golden samples, and slow or failing where a value is large."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from support.tiny_bundle import CLASSES, tiny_model

LARGE = 100.0  # an input value above this spoils the model's mood
_TURNS = 30_000


def failing_model(seed: int = 0) -> bytes:
    """The tiny model; its engine fails on a large value: it looks up what is not in a table."""
    nodes = [
        helper.make_node("Cast", ["is_large"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["extra"], axis=0),
    ]
    return _model(seed, nodes, [numpy_helper.from_array(np.zeros(1, np.float32), "table")])


def slow_model(seed: int = 0) -> bytes:
    """The tiny model; it goes round and round on a large value, for some ten milliseconds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["value", "value"], ["next"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("Cast", ["is_large"], ["one_or_none"], to=TensorProto.INT64),
        helper.make_node("Mul", ["one_or_none", "turns"], ["count"]),
        helper.make_node("Loop", ["count", "", "nothing"], ["extra"], body=body),
    ]
    constants = [
        numpy_helper.from_array(np.array(_TURNS, np.int64), "turns"),
        numpy_helper.from_array(np.array(0, np.float32), "nothing"),
    ]
    return _model(seed, nodes, constants)


def _model(seed: int, extra: Sequence[NodeProto], constants: Sequence[onnx.TensorProto]) -> bytes:
    """The tiny model whose scores have `extra` added, which is made from `is_large`."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "limit"], ["is_large"]),
            *extra,
            helper.make_node("MatMul", ["x", "weights"], ["plain_scores"]),
            helper.make_node("Add", ["plain_scores", "extra"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
            helper.make_node("Gather", ["classes", "index"], ["label"], axis=0),
        ],
        "moody",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3]),
        ],
        [
            numpy_helper.from_array(tiny_model(seed).weights, "weights"),
            numpy_helper.from_array(np.array(LARGE, np.float32), "limit"),
            helper.make_tensor("classes", TensorProto.STRING, [3], [c.encode() for c in CLASSES]),
            *constants,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
