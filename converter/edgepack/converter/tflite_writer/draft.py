"""A TFLite file in the making: tensors and operations, then bytes on LiteRT's schema.

It knows nothing of ONNX. Sizes that follow the number of rows are negative: -1 is the number of
rows, -6 is six times that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.converter.errors import UnsupportedModelError
from edgepack.runtime.tensors import Array

Shape = tuple[int, ...]

_TYPES: Final = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "bool": schema.TensorType.BOOL,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tensor:
    """One tensor of the file.

    Attributes:
        name: Unique in the file.
        shape: Sizes; negative where they follow the number of rows.
        dtype: As numpy calls it.
        data: Its values, if it is a constant.
    """

    name: str
    shape: Shape
    dtype: str
    data: Array | None = field(default=None, repr=False)


@dataclass(slots=True, kw_only=True, eq=False)
class Operation:
    """One operation of the file.

    Attributes:
        code: "CONV_2D", as the schema's BuiltinOperator has it.
        inputs, output: Its tensors; None for an input that is left out.
        options: The schema's options object (`Conv2DOptionsT`) or None.
        version: The oldest version of the operator that does what is meant, so that old
            interpreters take the file.
    """

    code: str
    inputs: tuple[Tensor | None, ...]
    output: Tensor
    options: Any = None
    version: int = 1


class Draft:
    """Collects the operations in the order in which they run."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.operations: list[Operation] = []
        self.makers: dict[Tensor, Operation] = {}
        self._names: set[str] = set()
        self._constants: dict[tuple[str, Shape, bytes], Tensor] = {}

    def input(self, name: str, shape: Shape, dtype: str) -> Tensor:
        """Add an input of the file."""
        return self._tensor(name, shape, dtype)

    def constant(self, values: Array, name: str) -> Tensor:
        """Add a constant, or give the one of the same type, shape and values."""
        values = np.ascontiguousarray(values)
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        key = (values.dtype.name, values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = self._tensor(name, values.shape, values.dtype.name, values)
        return self._constants[key]

    def bias(self, values: Array, name: str) -> Tensor:
        """Add a bias, which is never shared: int8 gives each layer's a scale of its own."""
        held = np.ascontiguousarray(values, dtype=np.float32)
        return self._tensor(name, held.shape, "float32", held)

    def integers(self, values: Sequence[int], name: str) -> Tensor:
        """Add a vector of int32, as operators take for axes and sizes."""
        return self.constant(np.array(values, dtype=np.int32), name)

    def add(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        shape: Shape,
        *,
        name: str,
        dtype: str = "float32",
        options: Any = None,  # noqa: ANN401
        version: int = 1,
    ) -> Tensor:
        """Add an operation and give its output."""
        output = self._tensor(name, shape, dtype)
        operation = Operation(
            code=code, inputs=tuple(inputs), output=output, options=options, version=version
        )
        self.operations.append(operation)
        self.makers[output] = operation
        return output

    def rename(self, tensor: Tensor, name: str) -> Tensor:
        """Give an operation's output another name, if no other tensor of the file has it."""
        operation = self.makers.pop(tensor)
        if any(item is not tensor and item.name == name for item in self._in_use()):
            self.makers[tensor] = operation
            return tensor
        renamed = replace(tensor, name=name)
        operation.output = renamed
        self.makers[renamed] = operation
        for item in self.operations:
            item.inputs = tuple(renamed if part is tensor else part for part in item.inputs)
        return renamed

    def _in_use(self) -> list[Tensor]:
        return [tensor for item in self.operations for tensor in _touched(item)]

    def _tensor(self, name: str, shape: Shape, dtype: str, data: Array | None = None) -> Tensor:
        if dtype not in _TYPES:
            raise UnsupportedModelError(
                f"the TFLite writer takes {', '.join(_TYPES)}, got {dtype} in {name[:80]!r}"
            )
        unique, count = name, 1
        while unique in self._names:
            unique, count = f"{name}_{count}", count + 1
        self._names.add(unique)
        return Tensor(name=unique, shape=shape, dtype=dtype, data=data)


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer that starts at a multiple of 16, as the schema wants and its packer forgets."""

    def Pack(self, builder: Any) -> int:  # noqa: ANN401, N802
        if self.data is None:
            return int(super().Pack(builder))
        content = self.data.tobytes()
        builder.StartVector(1, len(content), 16)
        builder.head = builder.head - len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


def to_bytes(draft: Draft, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bytes:
    """Write the file: only what the outputs need, the same bytes for the same draft."""
    import flatbuffers

    operations = needed(draft.operations, outputs)
    tensors = list(dict.fromkeys([*inputs, *(t for o in operations for t in _touched(o))]))
    index = {tensor: place for place, tensor in enumerate(tensors)}
    codes = list(dict.fromkeys((item.code, item.version) for item in operations))
    buffers = [tensor for tensor in tensors if tensor.data is not None]
    places = {tensor: place for place, tensor in enumerate(buffers, start=1)}
    model = schema.ModelT(
        version=3,
        description="edgepack",
        operatorCodes=[_code(*item) for item in codes],
        subgraphs=[
            schema.SubGraphT(
                name="main",
                tensors=[_packed(tensor, places.get(tensor, 0)) for tensor in tensors],
                inputs=[index[tensor] for tensor in inputs],
                outputs=[index[tensor] for tensor in outputs],
                operators=[
                    _operator(item, codes.index((item.code, item.version)), index)
                    for item in operations
                ],
            )
        ],
        buffers=[schema.BufferT(), *(_AlignedBuffer(data=tensor.data) for tensor in buffers)],
        signatureDefs=[
            schema.SignatureDefT(
                signatureKey="serving_default",
                subgraphIndex=0,
                inputs=[schema.TensorMapT(name=t.name, tensorIndex=index[t]) for t in inputs],
                outputs=[schema.TensorMapT(name=t.name, tensorIndex=index[t]) for t in outputs],
            )
        ],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def needed(operations: Sequence[Operation], outputs: Sequence[Tensor]) -> list[Operation]:
    """The operations that the outputs depend on, in their order."""
    wanted = set(outputs)
    kept = []
    for operation in reversed(operations):
        if operation.output in wanted:
            wanted.update(tensor for tensor in operation.inputs if tensor is not None)
            kept.append(operation)
    return kept[::-1]


def _touched(operation: Operation) -> list[Tensor]:
    return [*(tensor for tensor in operation.inputs if tensor is not None), operation.output]


def _code(name: str, version: int) -> Any:  # noqa: ANN401
    number = getattr(schema.BuiltinOperator, name)
    return schema.OperatorCodeT(
        deprecatedBuiltinCode=min(number, 127), builtinCode=number, version=version
    )


def _packed(tensor: Tensor, buffer: int) -> Any:  # noqa: ANN401
    return schema.TensorT(
        name=tensor.name,
        type=_TYPES[tensor.dtype],
        shape=[abs(size) for size in tensor.shape],
        shapeSignature=[max(size, -1) for size in tensor.shape] if _free(tensor) else None,
        buffer=buffer,
        hasRank=True,
    )


def _free(tensor: Tensor) -> bool:
    return any(size < 0 for size in tensor.shape)


def _operator(operation: Operation, code: int, index: dict[Tensor, int]) -> Any:  # noqa: ANN401
    kind = 0
    if operation.options is not None:
        kind = getattr(schema.BuiltinOptions, type(operation.options).__name__[:-1])
    return schema.OperatorT(
        opcodeIndex=code,
        inputs=[-1 if tensor is None else index[tensor] for tensor in operation.inputs],
        outputs=[index[operation.output]],
        builtinOptionsType=kind,
        builtinOptions=operation.options,
    )
