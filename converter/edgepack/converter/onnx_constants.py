"""Names and order of an ONNX file's constants that do not change from run to run.

tf2onnx folds constants in the order of Python's sets of objects, which is that of their addresses:
the same model gave files that differed in numbers within names. Imports onnx, so it runs in the
child process only.
"""

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto


def settle_constants(model: ModelProto) -> ModelProto:
    """Number the constants in the order in which nodes read them, and sort them so, in place.

    Constants that are inputs or outputs too keep their names, and those that no node of the
    model reads come last. Graphs inside nodes, which may read them, follow. Free sizes of inputs
    and outputs, which tf2onnx numbers so too, are numbered as they come.
    """
    graph = model.graph
    fixed = {item.name for item in (*graph.input, *graph.output)}
    constants = {item.name: item for item in graph.initializer}
    nodes = list(_nodes(graph))
    taken = {name for node in nodes for name in (*node.input, *node.output)} | fixed
    taken -= constants.keys() - fixed
    read = dict.fromkeys(name for node in nodes for name in node.input if name in constants)
    order = [*read, *sorted(constants.keys() - read.keys())]
    names: dict[str, str] = {}
    for name in order:
        new = name if name in fixed else f"constant_{len(names)}"
        while new in taken and new != name:
            new += "_"
        names[name] = new
    settled = []
    for name in order:
        copy = type(constants[name])()
        copy.CopyFrom(constants[name])
        copy.name = names[name]
        settled.append(copy)
    del graph.initializer[:]
    graph.initializer.extend(settled)
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    sizes: dict[str, str] = {}
    for item in (*graph.input, *graph.output):
        for dimension in item.type.tensor_type.shape.dim:
            if dimension.dim_param:
                number = sizes.setdefault(dimension.dim_param, f"size_{len(sizes)}")
                dimension.dim_param = number
    return model


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
