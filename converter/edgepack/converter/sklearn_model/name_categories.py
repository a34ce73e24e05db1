"""Encoders that refuse what they were not fitted to are called after the column that they encode.

Then the device can say which input it was (`edgepack.runtime.categories`). A value is followed back
only through what leaves it as it is: where it was changed, nothing is said of where it came from.
"""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from edgepack.runtime.categories import encoder_name

_LEAVES = ("Identity", "Cast")
_SHAPES = ("Reshape", "Squeeze", "Unsqueeze")
_PICKS = ("Gather", "ArrayFeatureExtractor")


def name_categories(model: ModelProto, tensors: Sequence[str]) -> None:
    """Name the encoders, in place.

    Args:
        model: Exported.
        tensors: Its inputs, in the contract's order; each is (N, C).
    """
    graph = _Graph(model, tensors)
    taken = set()
    for node in model.graph.node:
        if node.op_type != "OneHotEncoder" or _attribute(node, "zeros", 1):
            continue  # it takes every value
        origin = graph.origin(node.input[0], None)
        if origin is not None and origin not in taken:  # two nodes of one name confuse some tools
            node.name = encoder_name(*origin)
            taken.add(origin)


class _Graph:
    """Who makes each tensor, and how many columns the inputs have."""

    def __init__(self, model: ModelProto, tensors: Sequence[str]) -> None:
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._constants = {item.name: item for item in model.graph.initializer}
        self._numbers = {name: number for number, name in enumerate(tensors)}
        self._widths: dict[str, int] = {
            item.name: item.type.tensor_type.shape.dim[1].dim_value
            for item in model.graph.input
            if len(item.type.tensor_type.shape.dim) == 2
        }

    def origin(self, tensor: str, column: int | None) -> tuple[int, int] | None:
        """Input and column whose values a tensor's column has; None where that is not certain.

        Args:
            tensor: Its name.
            column: Which of its columns; None for the only one.
        """
        if tensor in self._numbers:
            width = self._widths.get(tensor)
            if column is None:
                column = 0 if width == 1 else None
            return None if column is None or not width else (self._numbers[tensor], column)
        node = self._makers.get(tensor)
        if node is None:
            return None
        if node.op_type in _LEAVES:
            return self.origin(node.input[0], column)
        if node.op_type in _SHAPES:
            return self.origin(node.input[0], None) if not column else None
        if node.op_type in _PICKS:
            return self._picked(node, column)
        if node.op_type == "Concat":
            return self._joined(node, column)
        return None

    def _picked(self, node: NodeProto, column: int | None) -> tuple[int, int] | None:
        places = self._constants.get(node.input[1])
        if places is None or (node.op_type == "Gather" and _axis(node) != 1):
            return None
        numbers = np.atleast_1d(numpy_helper.to_array(places)).ravel()
        if column is None:
            column = 0 if len(numbers) == 1 else None
        if column is None or column >= len(numbers) or numbers[column] < 0:
            return None
        return self.origin(node.input[0], int(numbers[column]))

    def _joined(self, node: NodeProto, column: int | None) -> tuple[int, int] | None:
        if column is None or _axis(node) not in (1, -1):
            return None
        for tensor in node.input:
            width = self._width(tensor)
            if not width:
                return None
            if column < width:
                return self.origin(tensor, column)
            column -= width
        return None

    def _width(self, tensor: str) -> int | None:
        """How many columns it has, where that is plain."""
        if tensor in self._widths:
            return int(self._widths[tensor])
        node = self._makers.get(tensor)
        if node is not None and node.op_type in _LEAVES:
            return self._width(node.input[0])
        if node is not None and node.op_type in _PICKS and node.input[1] in self._constants:
            return int(numpy_helper.to_array(self._constants[node.input[1]]).size)
        return None


def _axis(node: NodeProto) -> int:
    return _attribute(node, "axis", 0)


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return int(next((item.i for item in node.attribute if item.name == name), default))
