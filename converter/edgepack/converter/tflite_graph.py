"""TFLite files: what is in them, and their tensors as a contract binds them.

Reads with edgepack's own bounded reader: the file may be damaged or hostile. LiteRT is imported
for the operators' names only.
"""

from dataclasses import dataclass
from typing import Final

from edgepack.bundle.contract import Datatype
from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.sources.source import FileSummary
from edgepack.runtime.flatbuffer import DamagedFileError
from edgepack.runtime.tflite_file import FileOperator, FileTensor, TfliteFile, read_tflite

WEIGHTED: Final = frozenset(
    {
        "BATCH_MATMUL",
        "CONV_2D",
        "CONV_3D",
        "DEPTHWISE_CONV_2D",
        "EMBEDDING_LOOKUP",
        "FULLY_CONNECTED",
        "TRANSPOSE_CONV",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
    }
)
_SCHEMA_VERSION: Final = 3
_FLOAT_BYTES: Final = {Datatype.FP32: 4, Datatype.FP16: 2}
_CUSTOM: Final = 32  # the operator code of operators that have a name instead


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteTensor:
    """An input or output of a file.

    Attributes:
        name: As the file has it.
        datatype: Of its values in the file.
        shape: -1 where a size is free.
        scale, zero_point: real = (q - zero_point) * scale, for quantized integers; else None.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None

    @property
    def batch(self) -> int | None:
        """The fixed batch, or None if it is free."""
        return self.shape[0] if self.shape and self.shape[0] > 0 else None


def read(data: bytes) -> TfliteFile:
    """Read a file.

    Raises:
        ModelFileError: It is damaged.
    """
    try:
        return read_tflite(data)
    except DamagedFileError as exc:
        raise ModelFileError(f"the TFLite file is damaged: {exc}") from exc


def summarise(data: bytes) -> FileSummary:
    """Count what is in a file.

    Raises:
        ModelFileError: It is damaged.
    """
    versions: dict[str, int] = {}
    operators = set()
    weights = 0
    for graph in read(data).graphs:
        for operator in graph.operators:
            name = operator_name(operator)
            versions[name] = max(operator.version, versions.get(name, 1))
            operators.add(f"{'tflite-custom' if operator.custom else 'tflite'}::{name}")
            if name in WEIGHTED:
                weights += sum(
                    _float_weights(graph.tensors[place]) for place in operator.inputs if place >= 0
                )
    return FileSummary(
        opsets=dict(sorted(versions.items())),
        operators=tuple(sorted(operators)),
        weights=weights,
        ir_version=_SCHEMA_VERSION,
    )


def tensors_of(data: bytes) -> tuple[tuple[TfliteTensor, ...], tuple[TfliteTensor, ...]]:
    """A file's inputs and outputs, in its order.

    Raises:
        ModelFileError: The file is damaged.
        UnsupportedModelError: The contract has no such tensors (complex, 4 bits, no name).
    """
    graph = read(data).graphs[0]
    inputs, outputs = (
        tuple(_tensor(graph.tensors[place]) for place in places)
        for places in (graph.inputs, graph.outputs)
    )
    for tensors, what in ((inputs, "input"), (outputs, "output")):
        if not tensors:
            raise ModelFileError(f"the TFLite file has no {what}")
        names = [tensor.name for tensor in tensors]
        if len(set(names)) < len(names) or "" in names:
            raise UnsupportedModelError(
                f"every {what} of the TFLite file must have a name of its own, got "
                + ", ".join(repr(name[:64]) for name in names[:5])
            )
    return inputs, outputs


def operator_name(operator: FileOperator) -> str:
    """An operator's name in the schema ("CONV_2D"), or its custom one.

    Raises:
        UnsupportedModelError: The schema here is older than the operator.
    """
    if operator.custom and operator.builtin == _CUSTOM:
        return operator.custom
    names = _names()
    if operator.builtin not in names:
        raise UnsupportedModelError(
            f"the TFLite file has operator {operator.builtin}, which LiteRT here does not know"
        )
    return names[operator.builtin]


def _tensor(tensor: FileTensor) -> TfliteTensor:
    datatype = tensor.datatype
    if datatype is None:
        raise UnsupportedModelError(
            f"tensor {tensor.name[:64]!r} of the TFLite file is of type {tensor.type_code}, "
            "which no contract has"
        )
    quantized = bool(tensor.scales) and datatype not in _FLOAT_BYTES
    if quantized and len(tensor.scales) > 1:
        raise UnsupportedModelError(
            f"tensor {tensor.name[:64]!r} must have one scale, got {len(tensor.scales)}"
        )
    quantized = quantized and tensor.scales[0] > 0
    return TfliteTensor(
        name=tensor.name,
        datatype=datatype,
        shape=tensor.shape,
        scale=float(tensor.scales[0]) if quantized else None,
        zero_point=tensor.zero_points[0] if quantized else None,
    )


def _float_weights(tensor: FileTensor) -> int:
    """Number of constant floats with two dimensions or more: biases are not shrunk."""
    if tensor.datatype is None or len(tensor.shape) < 2:
        return 0
    return tensor.constant_bytes // _FLOAT_BYTES.get(tensor.datatype, tensor.constant_bytes + 1)


def _names() -> dict[int, str]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {
        number: name
        for name, number in vars(BuiltinOperator).items()
        if isinstance(number, int) and not name.startswith("_")
    }
