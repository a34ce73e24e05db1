# ruff: noqa: ANN401  (the schema's objects have no types)
"""TFLite files taken apart and put together again: short names, nothing that no engine reads.

Works on copies of the schema's own objects, as LiteRT generates them.
"""

from collections import Counter
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.tflite_graph import read
from edgepack.converter.tflite_quantizer.sharing_builder import SharingBuilder

_SPARE_BYTES: Final = 4096
# As TensorFlow's own op_version.cc counts.
_PER_CHANNEL_VERSIONS: Final = {
    schema.BuiltinOperator.CONV_2D: 5,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 6,
    schema.BuiltinOperator.FULLY_CONNECTED: 12,
}
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


def with_float_weights(data: bytes) -> bytes:
    """Make the constants of a file float32 that computes in float: those of 8 and of 16 bits.

    A file of that kind answers nearly as before, and can be quantized in another way.
    """
    model = _unpack(data)
    changed = False
    for graph in model.subgraphs:
        for operator in list(graph.operators):
            kind = model.operatorCodes[operator.opcodeIndex].builtinCode
            ends = [graph.tensors[place] for place in operator.outputs[:1]]
            if not ends or ends[0].type != schema.TensorType.FLOAT32:
                continue
            places = [int(place) for place in operator.inputs if place >= 0]
            widened = [
                graph.tensors[place] for place in places if _widen(model, graph.tensors[place])
            ]
            changed = changed or bool(widened)
            if kind == schema.BuiltinOperator.DEQUANTIZE and widened:
                _replace(graph, int(operator.outputs[0]), places[0])
                graph.operators.remove(operator)
    return _pack(model) if changed else data


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
    _set_versions(model)
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


def _widen(model: Any, tensor: Any) -> bool:
    """Make a constant of 8 or 16 bits float32; tell whether it was one."""
    content = model.buffers[tensor.buffer].data
    kind = {
        schema.TensorType.FLOAT16: np.float16,
        schema.TensorType.INT8: np.int8,
        schema.TensorType.UINT8: np.uint8,
    }.get(tensor.type)
    if content is None or not len(content) or kind is None:
        return False
    values = np.frombuffer(bytes(content), kind).reshape(tensor.shape).astype(np.float32)
    found = tensor.quantization
    if kind is not np.float16:
        if found is None or found.scale is None or not len(found.scale):
            return False
        shape = [1] * values.ndim
        if len(found.scale) > 1:
            shape[found.quantizedDimension] = len(found.scale)
        zero_points = np.zeros(1) if found.zeroPoint is None else np.asarray(found.zeroPoint)
        zero_shape = shape if len(zero_points) > 1 else [1] * values.ndim
        values = (values - zero_points.reshape(zero_shape).astype(np.float32)) * np.asarray(
            found.scale, np.float32
        ).reshape(shape)
    tensor.type = schema.TensorType.FLOAT32
    tensor.quantization = None
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    return True


def _replace(graph: Any, old: int, new: int) -> None:
    for operator in graph.operators:
        operator.inputs = [new if place == old else int(place) for place in operator.inputs]
    graph.outputs = [new if place == old else int(place) for place in graph.outputs]


def _set_versions(model: Any) -> None:
    """Say which kernels float operators with a scale for each channel of their weights need.

    The quantizer leaves the version of the float operator. tflite-runtime 2.14 then runs such a
    fully connected layer with the first channel's scale for all, and answers nonsense.
    """
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            version = _PER_CHANNEL_VERSIONS.get(code.builtinCode)
            if version is None:
                continue
            data, weights = (graph.tensors[place] for place in operator.inputs[:2])
            scales = None if weights.quantization is None else weights.quantization.scale
            is_float = data.type == schema.TensorType.FLOAT32
            if is_float and scales is not None and len(scales) > 1:
                code.version = max(code.version, version)


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
    for code in model.operatorCodes:
        # Files of before 2020 have the number in the field of eight bits only.
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
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
    builder = SharingBuilder(size + _SPARE_BYTES)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
