"""What is known of a TFLite file that a framework's converter made, by the contract's names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgepack.bundle.contract import Datatype, TensorBinding
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sources.source import Exported, ExportFacts, FileSummary
from edgepack.runtime.flatbuffer import DamagedFileError
from edgepack.runtime.tflite_file import FileTensor, Graph, read_tflite

_SCHEMA_VERSION = 3
_FLOAT_BYTES = 4
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV")


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteFile:
    """A float32 TFLite file that a framework's own converter made.

    Attributes:
        data: The file.
        inputs: Names of its input tensors, in the order of the ONNX file's inputs.
        outputs: Names of its output tensors, in the order of the ONNX file's outputs.
        messages: What a person should know of it.
    """

    data: bytes = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    messages: tuple[str, ...] = ()


def exported_tflite(
    file: TfliteFile,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    tensors: Mapping[str, str],
    wanted: Sequence[str],
) -> Exported:
    """The file with its tensors bound to a contract.

    Args:
        file: The file.
        inputs: The contract's names of its inputs.
        outputs: The ONNX file's names of its outputs.
        tensors: Contract name → ONNX output; a label that is none of them is derived of the
            scores.
        wanted: Contract names of the outputs to bind.

    Raises:
        UnsupportedModelError: The converter gave other tensors than the model has.
    """
    graph = _graph(file)
    found = {
        graph.tensors[place].name: graph.tensors[place] for place in (*graph.inputs, *graph.outputs)
    }
    made = dict(zip(outputs, file.outputs, strict=True))
    bound = []
    for name in wanted:
        tensor, derive = tensors[name], None
        if tensor not in made:  # the ONNX file has a node for it
            tensor, derive = (
                next(made_by for made_by in tensors.values() if made_by in made),
                "argmax",
            )
        bound.append(_binding(name, found, made[tensor], derive))
    return Exported(
        data=file.data,
        facts=ExportFacts(
            inputs=tuple(
                _binding(name, found, tensor, None)
                for name, tensor in zip(inputs, file.inputs, strict=True)
            ),
            outputs=tuple(bound),
            summary=_summary(graph),
            messages=file.messages,
        ),
    )


def _graph(file: TfliteFile) -> Graph:
    try:
        return read_tflite(file.data).graphs[0]
    except DamagedFileError as exc:
        raise UnsupportedModelError(f"the converter wrote a damaged TFLite file: {exc}") from exc


def _summary(graph: Graph) -> FileSummary:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    names = {number: name for name, number in vars(BuiltinOperator).items() if name.isupper()}
    versions: dict[str, int] = {}
    weights = 0
    for operator in graph.operators:
        name = operator.custom or names.get(operator.builtin, str(operator.builtin))
        versions[name] = max(operator.version, versions.get(name, 0))
        if name in _WEIGHTED:
            places = [place for place in operator.inputs[:2] if place >= 0]
            weights += sum(graph.tensors[place].constant_bytes for place in places) // _FLOAT_BYTES
    return FileSummary(
        opsets=dict(sorted(versions.items())),
        operators=tuple(f"tflite::{name}" for name in sorted(versions)),
        weights=weights,
        ir_version=_SCHEMA_VERSION,
    )


def _binding(
    name: str, found: Mapping[str, FileTensor], tensor: str, derive: str | None
) -> TensorBinding:
    if tensor not in found:
        raise UnsupportedModelError(f"the TFLite file has no tensor {tensor!r} for {name!r}")
    item = found[tensor]
    datatype = item.datatype
    if datatype is None or item.scales:
        raise UnsupportedModelError(f"tensor {tensor!r} of the TFLite file must be plain numbers")
    rows = item.shape[0] if item.shape else -1
    return TensorBinding(
        name=name,
        tensor=tensor,
        dtype=Datatype(datatype),
        batch=rows if rows > 0 else None,
        derive=derive,
    )
