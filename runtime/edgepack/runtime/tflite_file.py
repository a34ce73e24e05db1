"""What is in a TFLite file, read without an engine and without trusting the file.

Field numbers are those of TFLite's schema, version 3.
"""

from typing import Final

from edgepack.bundle.contract import Datatype
from edgepack.runtime.flatbuffer import DamagedFileError, Reader, Table
from edgepack.trust.values import dataclass

IDENTIFIER: Final = b"TFL3"
_VERSION: Final = 3
_LEAST_BYTES: Final = 8
_MAX_RANK: Final = 64
_PLACEHOLDER: Final = 127  # an operator's number stands in a field of its own when it is larger
_DATATYPES: Final[dict[int, Datatype]] = {
    0: Datatype.FP32,
    1: Datatype.FP16,
    2: Datatype.INT32,
    3: Datatype.UINT8,
    4: Datatype.INT64,
    5: Datatype.BYTES,
    6: Datatype.BOOL,
    7: Datatype.INT16,
    9: Datatype.INT8,
    10: Datatype.FP64,
    12: Datatype.UINT64,
    15: Datatype.UINT32,
    16: Datatype.UINT16,
}
# Options with vectors inside: number of the option's table → fields that are vectors, and
# the bytes of one of their items.
_VECTORS_IN_OPTIONS: Final[dict[int, tuple[tuple[int, int], ...]]] = {
    3: ((1, 4), (2, 4)),  # ConcatEmbeddingsOptions
    17: ((0, 4),),  # ReshapeOptions
    30: ((0, 4),),  # SqueezeOptions
    111: ((0, 1), (1, 1)),  # VarHandleOptions
    115: ((0, 4),),  # BucketizeOptions
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTensor:
    """A tensor of a file.

    Attributes:
        name: As the file has it.
        type_code: Its type's number in the schema.
        shape: Sizes; -1 where the file says that they are free.
        scales, zero_points: Quantization, one for the tensor or one for each channel; or empty.
        channel_dimension: The dimension of the channels, for one scale a channel.
        constant_bytes: Size of its constant content; 0 if it is computed.
    """

    name: str
    type_code: int
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    channel_dimension: int
    constant_bytes: int

    @property
    def datatype(self) -> Datatype | None:
        """The contract's name of its type, or None if it has none (complex, 4 bits)."""
        return _DATATYPES.get(self.type_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOperator:
    """One operator of a graph: its number in the schema (or a custom name), and its tensors."""

    builtin: int
    custom: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """One graph; `inputs` and `outputs` are positions in `tensors`."""

    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteFile:
    """A file's graphs, the main one first."""

    graphs: tuple[Graph, ...]
    description: str
    signatures: int


def is_tflite(head: bytes) -> bool:
    """Tell by its first bytes whether a file says that it is TFLite."""
    return head[4:8] == IDENTIFIER


def read_tflite(data: bytes) -> TfliteFile:
    """Read a file; everything that an interpreter follows is checked on the way.

    Raises:
        DamagedFileError: It is no TFLite file, or cut off, or leads out of itself.
    """
    if len(data) < _LEAST_BYTES or not is_tflite(data[:_LEAST_BYTES]):
        raise DamagedFileError(f"it does not begin as a TFLite file does, got {data[:8]!r}")
    model = Reader(data).root()
    version = model.number(0, "I")
    if version != _VERSION:
        raise DamagedFileError(f"schema version must be {_VERSION}, got {version}")
    codes = [_code(table) for table in model.tables(1)]
    buffers = [_buffer_bytes(table, len(data)) for table in model.tables(4)]
    graphs = tuple(_graph(table, codes, buffers) for table in model.tables(2))
    if not graphs:
        raise DamagedFileError("it has no graph")
    _check_positions(model.numbers(5, "i"), len(buffers), "metadata buffer")
    for metadata in model.tables(6):
        metadata.text(0)
        _check_positions((metadata.number(1, "I"),), len(buffers), "metadata buffer")
    return TfliteFile(
        graphs=graphs, description=model.text(3), signatures=_check_signatures(model, graphs)
    )


def _code(table: Table) -> tuple[int, str, int]:
    old, new = table.number(0, "b"), table.number(3, "i")
    builtin = max(old, new) if old == _PLACEHOLDER or new else old
    if builtin < 0:
        raise DamagedFileError(f"an operator's number must be >= 0, got {builtin}")
    return builtin, table.text(1), table.number(2, "i", 1)


def _buffer_bytes(table: Table, file_bytes: int) -> int:
    _, inside = table.span(0)
    offset, outside = table.number(1, "Q"), table.number(2, "Q")
    if offset > 1 and offset + outside > file_bytes:
        raise DamagedFileError("a buffer's content lies behind the end")
    return inside or (outside if offset > 1 else 0)


def _graph(table: Table, codes: list[tuple[int, str, int]], buffers: list[int]) -> Graph:
    tensors = tuple(_tensor(item, buffers) for item in table.tables(0))
    inputs, outputs = _whole(table, 1), _whole(table, 2)
    _check_positions((*inputs, *outputs), len(tensors), "tensor")
    operators = tuple(_operator(item, codes, len(tensors)) for item in table.tables(3))
    table.text(4)
    return Graph(tensors=tensors, operators=operators, inputs=inputs, outputs=outputs)


def _tensor(table: Table, buffers: list[int]) -> FileTensor:
    name = table.text(3)
    shape, signature = _whole(table, 0), _whole(table, 7)
    if len(shape) > _MAX_RANK or any(size < 0 for size in shape):
        raise DamagedFileError(f"tensor {name[:64]!r} has an impossible shape")
    if signature and (len(signature) != len(shape) or any(size < -1 for size in signature)):
        raise DamagedFileError(f"tensor {name[:64]!r} has an impossible shape signature")
    buffer = table.number(2, "I")
    _check_positions((buffer,), len(buffers), "buffer")
    quantization = table.table(4)
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    channel_dimension = 0
    if quantization is not None:
        for field in (0, 1):
            quantization.numbers(field, "f")
        scales, zero_points = quantization.numbers(2, "f"), _whole(quantization, 3, "q")
        quantization.table(5)
        channel_dimension = quantization.number(6, "i")
        if len(scales) != len(zero_points) and zero_points and scales:
            raise DamagedFileError(f"tensor {name[:64]!r} has not as many zero points as scales")
    table.table(6)
    return FileTensor(
        name=name,
        type_code=table.number(1, "b"),
        shape=signature or shape,
        scales=scales,
        zero_points=zero_points or (0,) * len(scales),
        channel_dimension=channel_dimension,
        constant_bytes=buffers[buffer] if buffer else 0,
    )


def _operator(table: Table, codes: list[tuple[int, str, int]], tensors: int) -> FileOperator:
    index = table.number(0, "I")
    _check_positions((index,), len(codes), "operator code")
    inputs, outputs = _whole(table, 1), _whole(table, 2)
    optional = -1
    used = (*inputs, *outputs, *_whole(table, 8))
    _check_positions([place for place in used if place != optional], tensors, "tensor")
    options = table.table(4)
    if options is not None:
        for field, item_bytes in _VECTORS_IN_OPTIONS.get(table.number(3, "B"), ()):
            options.numbers(field, {1: "B", 4: "i"}[item_bytes])
    table.span(5)
    table.numbers(7, "B")
    table.table(12)
    builtin, custom, version = codes[index]
    return FileOperator(
        builtin=builtin, custom=custom, version=version, inputs=inputs, outputs=outputs
    )


def _check_signatures(model: Table, graphs: tuple[Graph, ...]) -> int:
    count = 0
    for signature in model.tables(7):
        count += 1
        signature.text(2)
        graph = signature.number(4, "I")
        _check_positions((graph,), len(graphs), "graph")
        for field in (0, 1):
            for item in signature.tables(field):
                item.text(0)
                place = item.number(1, "I")
                _check_positions((place,), len(graphs[graph].tensors), "tensor")
    return count


def _whole(table: Table, field: int, kind: str = "i") -> tuple[int, ...]:
    return tuple(int(number) for number in table.numbers(field, kind))


def _check_positions(positions: "tuple[float, ...] | list[int]", count: int, what: str) -> None:
    wrong = next((place for place in positions if not 0 <= place < count), None)
    if wrong is not None:
        raise DamagedFileError(f"{what} must be one of {count}, got {wrong}")
