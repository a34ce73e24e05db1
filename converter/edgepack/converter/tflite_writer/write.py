"""From an exported ONNX file to a float32 TFLite file that was seen to answer the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import ModelProto, inliner

from edgepack.bundle.contract import Datatype, TensorBinding
from edgepack.converter.errors import ModelFileError, UnsupportedModelError, one_line
from edgepack.converter.onnx_graph import datatype_of_element
from edgepack.converter.sources.source import Exported, ExportFacts
from edgepack.converter.tflite_graph import summarise
from edgepack.converter.tflite_writer import check
from edgepack.converter.tflite_writer.draft import Tensor, to_bytes
from edgepack.converter.tflite_writer.fuse import fuse
from edgepack.converter.tflite_writer.graph import Graph, Step
from edgepack.converter.tflite_writer.labels import LargestOf, largest_of
from edgepack.converter.tflite_writer.operators.find import OPERATORS
from edgepack.converter.tflite_writer.rows import rows_for
from edgepack.converter.tflite_writer.trace import Trace, declared_batch, trace
from edgepack.runtime.tensors import Array

_LABEL = "label"
# What an attribute or a shape that no exporter gives may make a writer of an operator raise.
_ODD = (AssertionError, AttributeError, KeyError, IndexError, TypeError, ValueError)
_DATATYPES = {
    "float32": Datatype.FP32,
    "int32": Datatype.INT32,
    "int64": Datatype.INT64,
    "uint8": Datatype.UINT8,
    "int8": Datatype.INT8,
    "bool": Datatype.BOOL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One output of the contract.

    Attributes:
        binding: As the ONNX file has it.
        tensor: The tensor of the ONNX graph to write.
        rule: How the label comes of that tensor, if it is derived.
    """

    binding: TensorBinding
    tensor: str
    rule: LargestOf | None = None


def write_tflite(
    exported: Exported, feeds: Mapping[str, Array], class_names: Sequence[str] = ()
) -> Exported:
    """Write the TFLite file of an ONNX file.

    Args:
        exported: The ONNX file in float32 and its bindings.
        feeds: Tensor of the file → rows to compare on, (N, …); random rows where there are none.
        class_names: The contract's, if they are known: a derived label must then be one of them.

    Returns:
        The file and its bindings. A label that is the class of the largest score is bound to the
        scores with `derive="argmax"`. The number of rows is free wherever the ONNX file leaves it
        so.

    Raises:
        UnsupportedModelError: An operator, or what it is asked, is outside the writer's list; or
            the file that came out answers otherwise.
    """
    model = _read(exported.data)
    batch = declared_batch(model.graph)
    rows = rows_for(model, feeds, batch)
    expected = check.onnx_answers(
        exported.data, rows, [item.tensor for item in exported.facts.outputs], batch
    )
    for item in exported.facts.outputs:
        count = len(next(iter(rows.values())))
        if item.name == _LABEL and expected[item.tensor].size == count:
            # some exports give the labels as one row
            expected[item.tensor] = expected[item.tensor].reshape(-1)
    wanted = _wanted(model, exported, rows, expected, class_names)
    found = trace(model, rows, [item.tensor for item in wanted])
    graph, inputs = _written(model, found)
    outputs = _outputs(graph, wanted)
    fuse(graph.draft, list(outputs.values()))
    outputs = _named(graph, outputs)
    unique = list(dict.fromkeys(outputs.values()))
    data = to_bytes(graph.draft, list(inputs.values()), unique)
    check.check_file(
        data,
        rows,
        batch,
        [
            check.Expected(
                name=item.binding.name,
                tensor=outputs[item.tensor].name,
                answers=expected[item.binding.tensor],
                rule=item.rule,
            )
            for item in wanted
        ],
    )
    facts = ExportFacts(
        inputs=tuple(
            _bound(binding, inputs[binding.tensor], batch) for binding in exported.facts.inputs
        ),
        outputs=tuple(
            replace(
                _bound(item.binding, outputs[item.tensor], batch),
                derive=None if item.rule is None else "argmax",
            )
            for item in wanted
        ),
        summary=summarise(data),
        messages=exported.facts.messages,
    )
    return Exported(data=data, facts=facts)


def _read(data: bytes) -> ModelProto:
    try:
        model = onnx.load_from_string(data)
    except Exception as exc:  # protobuf raises classes of its own
        raise ModelFileError(f"not an ONNX file: {one_line(exc)}") from exc
    return inliner.inline_local_functions(model) if model.functions else model


def _wanted(
    model: ModelProto,
    exported: Exported,
    rows: Mapping[str, Array],
    expected: Mapping[str, Array],
    class_names: Sequence[str],
) -> list[_Wanted]:
    """What to write for each output; the label from its scores wherever that is what it is."""
    wanted = []
    for binding in exported.facts.outputs:
        item = _Wanted(binding=binding, tensor=binding.tensor)
        if binding.name == _LABEL:
            rule = largest_of(model.graph, binding.tensor)
            if rule is not None and _is_rule(model, rule, rows, expected[binding.tensor]):
                _agree(rule, class_names)
                item = _Wanted(binding=binding, tensor=rule.scores, rule=rule)
            elif expected[binding.tensor].dtype.kind in "OUS":
                raise UnsupportedModelError(
                    "a TFLite file holds no text, and the label of this model is not the class "
                    "of its largest score"
                )
        wanted.append(item)
    return wanted


def _is_rule(model: ModelProto, rule: LargestOf, rows: Mapping[str, Array], label: Array) -> bool:
    probe = ModelProto()
    probe.CopyFrom(model)
    if all(item.name != rule.scores for item in probe.graph.output):
        probe.graph.output.append(onnx.ValueInfoProto(name=rule.scores))
    batch = declared_batch(model.graph)
    scores = check.onnx_answers(probe.SerializeToString(), rows, [rule.scores], batch)
    return check.label_fits(rule, label, scores[rule.scores])


def _agree(rule: LargestOf, class_names: Sequence[str]) -> None:
    if not class_names or rule.classes is None:
        return
    own = [str(item) for item in rule.classes.tolist()]
    places = [str(place) for place in range(len(own))]
    if list(class_names) not in (own, places) and own != places:
        raise UnsupportedModelError(
            f"the model's classes must be the contract's {list(class_names)[:8]}, got {own[:8]}"
        )


def _written(model: ModelProto, found: Trace) -> tuple[Graph, dict[str, Tensor]]:
    """Write every node that depends on the data."""
    steps = [Step(node) for node in found.nodes]
    for step in steps:
        if step.operator not in OPERATORS:
            raise UnsupportedModelError(f"the TFLite writer has no operator {step.operator}")
    graph = Graph(found)
    fixed = {item.name for item in model.graph.initializer}
    inputs = {}
    for item in model.graph.input:
        if item.name in fixed:
            continue
        datatype = datatype_of_element(item.type.tensor_type.elem_type)
        if datatype not in _DATATYPES.values():
            raise UnsupportedModelError(
                f"a TFLite file takes no {datatype} as the TFLite writer makes it, "
                f"got the input {item.name[:80]!r}"
            )
        dtype = found.tensors[item.name].dtype
        inputs[item.name] = graph.draft.input(item.name, found.tensors[item.name].shape, dtype)
        graph.put(item.name, inputs[item.name])
    for step in steps:
        try:
            OPERATORS[step.operator](graph, step)
        except _ODD as exc:
            raise UnsupportedModelError(
                f"the TFLite writer cannot write this {step.operator}: {one_line(exc)}"
            ) from exc
    return graph, inputs


def _outputs(graph: Graph, wanted: Sequence[_Wanted]) -> dict[str, Tensor]:
    """The tensors of the outputs, in ONNX's order; each made by an operation."""
    outputs: dict[str, Tensor] = {}
    for item in wanted:
        tensor = graph.plain(item.tensor)
        if tensor not in graph.draft.makers:  # an input, or a constant
            sizes = [max(size, -1) for size in tensor.shape]
            tensor = graph.draft.add(
                "RESHAPE",
                [tensor, graph.draft.integers(sizes, "shape")],
                tensor.shape,
                name=f"{item.tensor}_copy",
                dtype=tensor.dtype,
                options=schema.ReshapeOptionsT(newShape=sizes),
            )
        outputs[item.tensor] = tensor
    return outputs


def _named(graph: Graph, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the outputs the names that they have in the ONNX file, where these are free."""
    names: dict[Tensor, str] = {}
    for name, tensor in outputs.items():
        names.setdefault(tensor, name)
    renamed = {tensor: graph.draft.rename(tensor, name) for tensor, name in names.items()}
    return {name: renamed[tensor] for name, tensor in outputs.items()}


def _bound(binding: TensorBinding, tensor: Tensor, batch: int | None) -> TensorBinding:
    return replace(
        binding, tensor=tensor.name, dtype=_DATATYPES[tensor.dtype], batch=batch, layout=None
    )
