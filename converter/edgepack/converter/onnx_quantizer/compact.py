"""Makes an ONNX file small without touching what it computes.

A quantized layer brings a dozen tensors, each with a name of a hundred letters: in a file of 25,000
weights the names and the repeated zero points weigh more than the biases.
"""

import hashlib
from collections.abc import Callable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper

from edgepack.runtime.categories import is_encoder_name

_OLDEST_IR_VERSION = 8
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def compact(model: ModelProto) -> ModelProto:
    """Shorten names, merge equal constants and drop what no engine reads, in place.

    Inputs and outputs keep their names. Nodes lose theirs, but for encoders that refuse values.
    """
    _merge_constants(model.graph)
    _drop_unused(model.graph)
    _drop_comments(model)
    _rename(model.graph)
    _lower_ir_version(model)
    return model


def _merge_constants(graph: GraphProto) -> None:
    """Equal constants of the main graph become one: zero points are mostly the same zeros."""
    kept: dict[bytes, str] = {}
    same: dict[str, str] = {}
    fixed = {item.name for item in (*graph.input, *graph.output)}
    unique = []
    for tensor in graph.initializer:
        name = tensor.name
        tensor.name = ""
        tensor.doc_string = ""
        key = hashlib.sha256(tensor.SerializeToString(deterministic=True)).digest()
        tensor.name = name
        if name not in fixed and key in kept:
            same[name] = kept[key]
            continue
        kept.setdefault(key, name)
        unique.append(tensor)
    if same:
        tensors = [type(tensor).FromString(tensor.SerializeToString()) for tensor in unique]
        del graph.initializer[:]
        graph.initializer.extend(tensors)
        _map_names(graph, lambda name: same.get(name, name))


def _drop_unused(graph: GraphProto) -> None:
    used = {name for node in _all_nodes(graph) for name in node.input}
    used |= {item.name for item in (*graph.input, *graph.output)}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _drop_comments(model: ModelProto) -> None:
    model.doc_string = ""
    model.producer_name = model.producer_version = ""
    del model.metadata_props[:]
    for graph in _all_graphs(model.graph):
        graph.doc_string = ""
        graph.name = "g"  # the checker wants one
        del graph.value_info[:]
        del graph.metadata_props[:]
        del graph.quantization_annotation[:]
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.doc_string = ""
            del value.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            if not is_encoder_name(node.name):  # devices tell by them what they refuse
                node.name = ""
            del node.metadata_props[:]
            for attribute in node.attribute:
                attribute.doc_string = ""


def _lower_ir_version(model: ModelProto) -> None:
    """State the format's oldest version that has these operators: more engines take the file.

    What later versions added (comments on nodes, types of 4 bits) is not in it.
    """
    needed: int = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    model.ir_version = min(model.ir_version, max(needed, _OLDEST_IR_VERSION))


def _rename(graph: GraphProto) -> None:
    fixed = {item.name for item in (*graph.input, *graph.output)}
    names: dict[str, str] = {}
    counter = 0

    def short(name: str) -> str:
        nonlocal counter
        if not name or name in fixed:
            return name
        if name not in names:
            while (found := _base36(counter)) in fixed:
                counter += 1
            names[name] = found
            counter += 1
        return names[name]

    _map_names(graph, short)


def _map_names(graph: GraphProto, new: Callable[[str], str]) -> None:
    """Rename tensors in a graph and in the graphs inside it, which see its tensors."""
    for part in _all_graphs(graph):
        for node in part.node:
            node.input[:] = [new(name) for name in node.input]
            node.output[:] = [new(name) for name in node.output]
        values = [*part.initializer]
        for value in values:
            value.name = new(value.name)
        for sparse in part.sparse_initializer:
            sparse.values.name = new(sparse.values.name)
        if part is not graph:
            for item in (*part.input, *part.output):
                item.name = new(item.name)


def _all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _all_graphs(attribute.g)


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for part in _all_graphs(graph):
        yield from part.node


def _base36(number: int) -> str:
    text = _DIGITS[number % 36]
    while number := number // 36:
        text = _DIGITS[number % 36] + text
    return text
