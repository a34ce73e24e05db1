"""Lists of tensors in loops, for a file that takes one row: TFLite wants to know their sizes."""

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

# Operator → which of its inputs is the shape of the list's elements.
_ELEMENT_SHAPE: Final = {
    "TensorListReserve": 0,
    "EmptyTensorList": 0,
    "TensorListFromTensor": 1,
    "TensorListStack": 1,
    "TensorListGetItem": 2,
    "TensorListGather": 2,
}


def with_one_row(graph: Any) -> Any:  # noqa: ANN401  (TensorFlow is not followed)
    """A copy of a graph whose lists hold elements of one row where the graph leaves that open.

    Recurrent layers put one step of all rows into each element: (rows, features). Where an
    element's first size is something else, the file's answers tell: they are compared.
    """
    changed = type(graph)()
    changed.CopyFrom(graph)
    _close(changed.node, "{}")
    for function in changed.library.function:
        _close(function.node_def, "{}:output:0")
    return changed


def _close(nodes: Any, reference: str) -> None:  # noqa: ANN401
    constants = {node.name: node for node in nodes if node.op == "Const"}
    for node in list(nodes):
        place = _ELEMENT_SHAPE.get(node.op)
        if place is None:
            continue
        constant = constants.get(node.input[place].partition(":")[0])
        if constant is None:
            continue
        shape = tf.make_ndarray(constant.attr["value"].tensor)
        if shape.ndim != 1 or not _is_open(shape.tolist()):
            continue
        shape[0] = 1
        closed = nodes.add()
        closed.CopyFrom(constant)
        closed.name = f"{node.name}_element_shape"
        closed.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(shape))
        node.input[place] = reference.format(closed.name)


def _is_open(shape: Sequence[int]) -> bool:
    return bool(shape) and shape[0] == -1 and min(shape[1:], default=1) > 0
