"""Constants of a file are named and sorted by what reads them, however its writer did it."""

import itertools

import numpy as np
from onnx import ModelProto, helper
from onnx_nets import answers, model_bytes

from edgepack.converter.onnx_constants import settle_constants

VALUES = [np.full((2, 2), 2.0), np.full((2, 2), 3.0), np.ones((2,))]


def file(names: tuple[str, ...], order: tuple[int, ...]) -> bytes:
    """Two products and a sum, with the constants called and sorted somehow."""
    nodes = [
        helper.make_node("MatMul", ["x", names[0]], ["a"]),
        helper.make_node("MatMul", ["a", names[1]], ["constant_1"]),  # a name that is taken
        helper.make_node("Add", ["constant_1", names[2]], ["y"]),
    ]
    constants = {names[i]: VALUES[i] for i in order}
    return model_bytes(nodes, [("x", (None, 2))], [("y", (None, 2))], constants)


def test_the_same_graph_gives_the_same_bytes():
    """Six orders of constants under other names are one file, which answers as before."""
    feeds = {"x": np.array([[1.0, 2.0]], np.float32)}
    expected = answers(file(("p", "q", "r"), (0, 1, 2)), feeds)[0].tolist()
    found = set()
    for order in itertools.permutations(range(3)):
        data = file(tuple(f"fold__{300 + place}" for place in order), order)
        given = ModelProto.FromString(data)
        given.graph.input[0].type.tensor_type.shape.dim[0].dim_param = f"unk__{order[0]}"
        settled = settle_constants(given)
        found.add(settled.SerializeToString(deterministic=True))
    (only,) = found
    assert expected == answers(only, feeds)[0].tolist()


def test_a_graph_inside_follows():
    """What a branch reads of the constants outside is renamed there too."""
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", 1, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["o"])],
        "other",
        [],
        [helper.make_tensor_value_info("o", 1, None)],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other),
    ]
    constants = {"w": np.full((2, 2), 2.0), "zero": np.zeros(())}
    data = model_bytes(nodes, [("x", (1, 2))], [("y", (1, 2))], constants)
    settled = settle_constants(ModelProto.FromString(data))
    assert ["constant_0", "constant_1"] == [item.name for item in settled.graph.initializer]
    (got,) = answers(settled.SerializeToString(), {"x": np.ones((1, 2), np.float32)})
    assert [[4.0, 4.0]] == got.tolist()
