"""What takes the nodes that are written: skl2onnx's container."""

from typing import Any

from onnx import NodeProto, TensorProto, helper

from edgepack.converter.sklearn_model.converters.writer import ML

# onnxruntime 1.17, the oldest that edgepack runs on, knows opset 20 and ai.onnx.ml 4; the
# converters use nothing of those, and older engines stay possible.
TARGET_OPSET = {"": 17, ML: 3}


def identity(source: str, target: str) -> NodeProto:
    """A node that gives a tensor another name."""
    return helper.make_node("Identity", [source], [target], name=target)


class ContainerSink:
    """Gives nodes to skl2onnx."""

    def __init__(self, scope: Any, container: Any) -> None:  # noqa: ANN401
        self._scope = scope
        self._container = container

    def name(self, hint: str) -> str:
        """A name that nothing else in the graph has."""
        return str(self._scope.get_unique_variable_name(f"edgepack_{hint}"))

    def node(self, node: NodeProto) -> None:
        """Take a node."""
        self._container.nodes.append(node)
        version = TARGET_OPSET.get(node.domain, 1)
        self._container.node_domain_version_pair_sets.add((node.domain, version))

    def constant(self, tensor: TensorProto) -> None:
        """Take a constant."""
        self._container.initializers.append(tensor)
