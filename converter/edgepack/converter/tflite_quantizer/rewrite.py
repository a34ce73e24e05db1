# ruff: noqa: ANN401  (the schema's objects have no types)
"""TFLite files taken apart and put together again: short names, nothing that no engine reads.

Works on copies of the schema's own objects, as LiteRT generates them.
"""

from collections import Counter
from typing import Any, Final

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.tflite_graph import read

_SPARE_BYTES: Final = 4096
_MAX_BYTES: Final = 2**31 - 2**20  # what one flatbuffer can hold


def layer_names(data: bytes) -> tuple[str, ...]:
    """A name of its own for each operator of the main graph: that of its first output's tensor.

    Raises:
        ModelFileError: The file is damaged.
    """
    graph = read(data).graphs[0]
    full = [graph.tensors[item.outputs[0]].name if item.outputs else "" for item in graph.operators]
    # TensorFlow's converter joins the names of all that it fused.
    short = [name.split(";", 1)[0] for name in full]
    seen = Counter(short)
    return tuple(
        name if name and seen[name] == 1 else f"{name}#{place}" for place, name in enumerate(short)
    )


def with_plain_names(data: bytes) -> bytes:
    """Name every tensor but inputs and outputs by its place: "t12" is its position.

    The quantizer finds tensors by their names, and converters write the same name twice.
    """
    model = _unpack(data)
    model.signatureDefs = model.signatureDefs or []  # the quantizer takes none at all for an error
    for number, graph in enumerate(model.subgraphs):
        taken = {graph.tensors[place].name for place in _ends(graph)}
        prefix = b"t" if number == 0 else b"g%dt" % number
        while any(name.startswith(prefix) for name in taken):
            prefix += b"_"
        for place, tensor in enumerate(graph.tensors):
            if number or place not in _ends(graph):
                tensor.name = prefix + b"%d" % place
    return _pack(model)


def compacted(data: bytes, original: bytes) -> bytes:
    """Leave out what no engine reads: names inside, metadata, descriptions, ranges, doubles.

    Args:
        data: A file that was made of another.
        original: The other one: inputs and outputs are named as there.
    """
    model = _unpack(data)
    _name_ends(model.subgraphs[0], original)
    model.description = None
    model.metadata = None
    model.metadataBuffer = None
    for graph in model.subgraphs:
        ends = _ends(graph)
        for place, tensor in enumerate(graph.tensors):
            if place not in ends:
                tensor.name = None
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
                if tensor.quantization.scale is None:
                    tensor.quantization = None
    _share_buffers(model)
    return _pack(model)


def _name_ends(graph: Any, original: bytes) -> None:
    """The quantizer puts a Dequantize before an output: a new tensor, with a name of its own.

    Which of its sizes are free is forgotten then.
    """
    source = read(original).graphs[0]
    for ours, theirs in ((graph.inputs, source.inputs), (graph.outputs, source.outputs)):
        for here, there in zip(ours, theirs, strict=False):
            tensor, wanted = graph.tensors[int(here)], source.tensors[there]
            tensor.name = wanted.name.encode()
            free = any(size < 0 for size in wanted.shape)
            tensor.shapeSignature = list(wanted.shape) if free else None


def _share_buffers(model: Any) -> None:
    """Keep each buffer once that is used, and equal ones once."""
    kept = [schema.BufferT()]
    places: dict[bytes, int] = {b"": 0}
    for graph in model.subgraphs:
        variables = {place for place, tensor in enumerate(graph.tensors) if tensor.isVariable}
        for place, tensor in enumerate(graph.tensors):
            buffer = model.buffers[tensor.buffer]
            content = b"" if buffer.data is None or place in variables else bytes(buffer.data)
            if content not in places:
                places[content] = len(kept)
                kept.append(buffer)
            tensor.buffer = places[content]
    model.buffers = kept


def _ends(graph: Any) -> set[int]:
    return {int(place) for places in (graph.inputs, graph.outputs) for place in places}


def _unpack(data: bytes) -> Any:
    read(data)  # the generated code follows offsets wherever they lead
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:
        # Large files keep their weights behind the tables.
        if buffer.data is None and buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def _pack(model: Any) -> bytes:
    size = sum(len(item.data) for item in model.buffers if item.data is not None)
    if size > _MAX_BYTES:
        raise UnsupportedModelError(f"weights must be at most {_MAX_BYTES} bytes, got {size}")
    builder = flatbuffers.Builder(size + _SPARE_BYTES)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
