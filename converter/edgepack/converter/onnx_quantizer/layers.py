"""Which nodes of a graph are to run with 8 bits."""

from collections.abc import Sequence
from typing import Final

from onnx import ModelProto, NodeProto, TensorProto

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.onnx_graph import QUANTIZABLE, quantizable_nodes

# What runs on 8-bit tensors as they are: in float they would cost a conversion on either side.
PASSING: Final = (
    "Relu",
    "Clip",
    "MaxPool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Add",
    "Pad",
    "Resize",
    "Slice",
    "Split",
)
_ALL_INPUTS: Final = ("Add", "Concat")
_SMALLEST_LAYER: Final = 64  # weights; below, scales and zero points outweigh what is saved


def chosen_layers(
    model: ModelProto, keep_float: Sequence[str], operators: tuple[str, ...] = QUANTIZABLE
) -> list[str]:
    """Names of the nodes with weights that are worth 8 bits and may have them, in their order.

    Raises:
        UnsupportedModelError: None is, or `keep_float` names what is no node.
    """
    unknown = sorted(set(keep_float) - {node.name for node in model.graph.node})
    if unknown:
        raise UnsupportedModelError(f"keep_float names {unknown[0][:80]!r}, which is no node")
    chosen = [
        node.name
        for node, count in quantizable_nodes(model, operators)
        if count >= _SMALLEST_LAYER and node.name not in set(keep_float)
    ]
    if not chosen:
        raise UnsupportedModelError("no layer is left to quantize")
    return chosen


def passing_nodes(model: ModelProto, layers: Sequence[str], keep_float: Sequence[str]) -> list[str]:
    """The nodes behind quantized layers that 8 bits go through unharmed, in their order."""
    made_8bit: set[str] = set()
    found = []
    for node in model.graph.node:
        if node.name in set(layers):
            made_8bit.update(node.output)
        elif node.op_type in PASSING and node.name not in set(keep_float):
            inputs = node.input if node.op_type in _ALL_INPUTS else node.input[:1]
            if all(name in made_8bit for name in inputs):
                found.append(node.name)
                made_8bit.update(node.output)
    return found


def activations_of(model: ModelProto, names: Sequence[str]) -> list[str]:
    """The float tensors that some nodes take and give, without constants, in their order."""
    wanted = set(names)
    floats = {
        item.name
        for item in (*model.graph.value_info, *model.graph.output, *model.graph.input)
        if item.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    floats -= {item.name for item in model.graph.initializer}
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in wanted:
            found |= dict.fromkeys(name for name in _tensors(node) if name in floats)
    return list(found)


def before_activations(model: ModelProto) -> dict[str, str]:
    """Tensors that nothing but a Relu or Clip reads, and what that gives.

    Both are part of the rounding: the first needs no range of its own, for what the second would
    cut off may as well be cut off before.
    """
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {item.name for item in model.graph.output}
    outputs |= {item.name for item in model.graph.input}
    return {
        name: nodes[0].output[0]
        for name, nodes in readers.items()
        if len(nodes) == 1
        and nodes[0].op_type in ("Relu", "Clip")
        and nodes[0].input[0] == name
        and name not in outputs
    }


def _tensors(node: NodeProto) -> list[str]:
    return [*node.input, *node.output]
