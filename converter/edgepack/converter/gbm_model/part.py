"""Nodes and constants on their way into a graph."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgepack.runtime.tensors import Array

ML_DOMAIN: Final = "ai.onnx.ml"


@dataclass(slots=True, kw_only=True)
class Part:
    """Nodes and constants that are added to a graph.

    Attributes:
        prefix: Of every name that this makes.
    """

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, output: str | None = None, **fields: Any) -> str:  # noqa: ANN401
        """Add a node with one output, and give that one's name."""
        name = f"{self.prefix}_{len(self.nodes)}_{operator}"
        node = helper.make_node(operator, inputs, [output or name], name=name, **fields)
        self.nodes.append(node)
        return output or name

    def constant(self, values: Array) -> str:
        """Add a constant, and give its name."""
        name = f"{self.prefix}_constant_{len(self.initializers)}"
        if values.dtype.kind in "OU":
            text: Any = [str(item).encode() for item in values.ravel().tolist()]
            tensor = helper.make_tensor(name, TensorProto.STRING, values.shape, text)
        else:
            tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.initializers.append(tensor)
        return name
