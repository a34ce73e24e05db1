"""ONNX files: what is in them, and the few repairs that a converter's output needs.

Imports onnx, so it runs in the child process only.
"""

from collections import Counter
from typing import Any, Final

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from edgepack.bundle.contract import Datatype
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sources.source import FileSummary
from edgepack.runtime.tensors import Array

_TIE_STEPS: Final = 1 << 20
QUANTIZABLE: Final = ("Conv", "Gemm", "MatMul")
_PASSES: Final = (
    *("Identity", "Reshape", "Squeeze", "Cast"),
    *("QuantizeLinear", "DequantizeLinear"),
)
RECURRENT: Final = ("LSTM", "GRU", "RNN")
_DATATYPES: Final[dict[int, Datatype]] = {
    TensorProto.BOOL: Datatype.BOOL,
    TensorProto.UINT8: Datatype.UINT8,
    TensorProto.UINT16: Datatype.UINT16,
    TensorProto.UINT32: Datatype.UINT32,
    TensorProto.UINT64: Datatype.UINT64,
    TensorProto.INT8: Datatype.INT8,
    TensorProto.INT16: Datatype.INT16,
    TensorProto.INT32: Datatype.INT32,
    TensorProto.INT64: Datatype.INT64,
    TensorProto.FLOAT16: Datatype.FP16,
    TensorProto.FLOAT: Datatype.FP32,
    TensorProto.DOUBLE: Datatype.FP64,
    TensorProto.STRING: Datatype.BYTES,
}


def datatype_of_element(element: int) -> Datatype:
    """The contract's name of an ONNX element type.

    Raises:
        UnsupportedModelError: The contract has none (bfloat16, complex, 4 bits).
    """
    found = _DATATYPES.get(element)
    if found is None:
        name = TensorProto.DataType.Name(element) if element else "something that is no tensor"
        raise UnsupportedModelError(f"inputs and outputs must be plain tensors, got {name}")
    return found


def clean(model: ModelProto) -> ModelProto:
    """Repair what converters leave behind, in place; the answers stay.

    - ONNX's own domain imported twice (skl2onnx writes "" and "" again): once, the later version.
    - Domains that no node uses (onnxruntime's optimizer imports all that it knows): gone, for an
      engine without them would refuse the file.
    - Output sizes that are declared and wrong: free, so that the engine does not warn.
    - Names of the machine or of the writer's inner life: gone.
    """
    used = {""} | {_domain(node.domain) for node in _nodes(model.graph)}
    for function in model.functions:
        used |= {function.domain} | {_domain(item.domain) for item in function.opset_import}
    versions: dict[str, int] = {}
    for item in model.opset_import:
        domain = _domain(item.domain)
        if domain in used:
            versions[domain] = max(item.version, versions.get(domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(
        helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())
    )
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim[1:]:
            dimension.Clear()
    model.doc_string = ""
    model.graph.doc_string = ""
    return model


def summarise(model: ModelProto) -> FileSummary:
    """Count what is in a model."""
    operators: Counter[str] = Counter()
    for node in _nodes(model.graph):
        operators[f"{node.domain or 'ai.onnx'}::{node.op_type}"] += 1
    return FileSummary(
        opsets={item.domain: item.version for item in model.opset_import},
        operators=tuple(sorted(operators)),
        weights=sum(count for _, count in quantizable_nodes(model, (*QUANTIZABLE, *RECURRENT))),
        ir_version=model.ir_version,
    )


def quantizable_nodes(
    model: ModelProto, operators: tuple[str, ...] = QUANTIZABLE
) -> list[tuple[NodeProto, int]]:
    """The nodes that a smaller type would shrink, with the number of their constant weights."""
    sizes = {item.name: _size(item) for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = next((a for a in node.attribute if a.name == "value"), None)
            if value is not None:
                sizes[node.output[0]] = _size(value.t)
    found = []
    for node in model.graph.node:
        if node.op_type in operators and not node.domain:
            inputs = node.input[1:3] if node.op_type in RECURRENT else node.input[:2]
            count = sum(sizes.get(name, 0) for name in inputs)
            if count:
                found.append((node, count))
    return found


def without_zipmap(model: ModelProto) -> ModelProto:
    """Give the matrix that a ZipMap would turn into a list of dictionaries, in place."""
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(
                    helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, None])
                )
        graph.node.remove(node)
    return model


def add_argmax_label(model: ModelProto, scores: str) -> str:
    """Append `label = argmax(scores)`, in place, and give the new output's name."""
    graph = model.graph
    taken = {name for node in graph.node for name in node.output}
    label = "label"
    while label in taken or any(item.name == label for item in graph.input):
        label += "_"
    graph.node.append(
        helper.make_node("ArgMax", [scores], [label], name=f"edgepack_{label}", axis=1, keepdims=0)
    )
    graph.output.append(helper.make_tensor_value_info(label, TensorProto.INT64, [None]))
    return label


def add_settled_label(model: ModelProto, probabilities: str, classes: Array) -> str:
    """Append `label = classes[argmax(probabilities)]` with ties settled, in place.

    scikit-learn adds up in float64, where the votes of a forest tie exactly and the first class
    wins. In float32 a tie is off by the last bit. Probabilities are therefore compared in steps
    of 2**-20.

    Returns:
        The new output's name.
    """
    graph = model.graph
    as_text = classes.dtype.kind in "OU"
    kind = TensorProto.STRING if as_text else TensorProto.INT64
    values: Any = [str(item).encode() if as_text else int(item) for item in classes.tolist()]
    element = graph_element(model, probabilities)
    graph.initializer.extend(
        [
            helper.make_tensor("edgepack_steps", element, [1], [float(_TIE_STEPS)]),
            helper.make_tensor("edgepack_classes", kind, [len(values)], values),
        ]
    )
    chain: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("Mul", [probabilities, "edgepack_steps"], "edgepack_scaled", {}),
        ("Round", ["edgepack_scaled"], "edgepack_rounded", {}),
        ("ArgMax", ["edgepack_rounded"], "edgepack_best", {"axis": 1, "keepdims": 0}),
        ("Gather", ["edgepack_classes", "edgepack_best"], "edgepack_label", {"axis": 0}),
    )
    for operator, inputs, output, attributes in chain:
        graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
    graph.output.append(helper.make_tensor_value_info("edgepack_label", kind, [None]))
    return "edgepack_label"


def add_column(model: ModelProto, tensor: str, column: int) -> str:
    """Append one column of a matrix as an output (N, 1), in place, and give its name."""
    graph = model.graph
    name = f"edgepack_column_{column}"
    graph.initializer.append(helper.make_tensor(f"{name}_index", TensorProto.INT64, [1], [column]))
    graph.node.append(
        helper.make_node("Gather", [tensor, f"{name}_index"], [name], name=name, axis=1)
    )
    element = graph_element(model, tensor)
    graph.output.append(helper.make_tensor_value_info(name, element, [None, 1]))
    return name


def graph_element(model: ModelProto, output: str) -> int:
    """The element type of one of the graph's outputs."""
    found = next(item for item in model.graph.output if item.name == output)
    return int(found.type.tensor_type.elem_type)


def output_datatype(model: ModelProto, output: str) -> Datatype:
    """The datatype of one of the graph's outputs."""
    return datatype_of_element(graph_element(model, output))


def float_outputs(model: ModelProto) -> list[str]:
    """Names of the outputs that are float32."""
    return [
        item.name
        for item in model.graph.output
        if item.type.tensor_type.elem_type == TensorProto.FLOAT
    ]


def ends_in_softmax(model: ModelProto, tensor: str) -> bool:
    """Tell whether a tensor is made by Softmax, so that it holds probabilities."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(tensor)
    while node is not None and node.op_type in _PASSES:
        node = makers.get(node.input[0])
    return node is not None and node.op_type in ("Softmax", "QLinearSoftmax")


def nodes_of(model: ModelProto) -> list[NodeProto]:
    """Every node of a model, those of graphs inside nodes included."""
    return _nodes(model.graph)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _nodes(graph: GraphProto) -> list[NodeProto]:
    found: list[NodeProto] = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += _nodes(attribute.g)
    return found


def _size(tensor: TensorProto) -> int:
    size = 1
    for dimension in tensor.dims:
        size *= dimension
    # No quantizer takes float64: what is computed so needs its digits.
    return size if tensor.data_type == TensorProto.FLOAT else 0
