"""Small TFLite files made by code, with the schema that ships with LiteRT."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "str": schema.TensorType.STRING,
}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor: computed, or constant if it has a value; -1 is a free size."""

    name: str
    shape: Sequence[int]
    dtype: str = "float32"
    value: np.ndarray | None = None
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True, kw_only=True)
class Op:
    """An operator by its name in the schema; `options` are fields of its options' class."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: Mapping[str, object] = field(default_factory=dict)
    options_class: str = ""
    version: int = 1
    custom: str = ""


def tflite_bytes(
    tensors: Sequence[Tensor], ops: Sequence[Op], inputs: Sequence[str], outputs: Sequence[str]
) -> bytes:
    """Make a file of one graph."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    model.operatorCodes = []
    graph = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = [_tensor(item, model.buffers) for item in tensors]
    places = {item.name: place for place, item in enumerate(tensors)}
    graph.inputs = [places[name] for name in inputs]
    graph.outputs = [places[name] for name in outputs]
    graph.operators = []
    for index, op in enumerate(ops):
        model.operatorCodes.append(_code(op))
        graph.operators.append(_operator(op, index, places))
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def linear_file(weights: np.ndarray, *, batch: int | None = None) -> bytes:
    """Gives y = x @ weights; `batch` fixes the file's batch."""
    features, targets = weights.shape
    rows = -1 if batch is None else batch
    return tflite_bytes(
        [
            Tensor(name="x", shape=(rows, features)),
            Tensor(name="w", shape=(targets, features), value=weights.T.astype(np.float32)),
            Tensor(name="y", shape=(rows, targets)),
        ],
        [
            Op(
                kind="FULLY_CONNECTED",
                inputs=["x", "w"],
                outputs=["y"],
                options_class="FullyConnectedOptions",
            )
        ],
        ["x"],
        ["y"],
    )


def two_outputs_file() -> bytes:
    """Gives x * x ("sq") and then x + x ("sum"), for rows of two numbers."""
    return tflite_bytes(
        [Tensor(name=name, shape=(-1, 2)) for name in ("x", "sq", "sum")],
        [
            Op(kind="ADD", inputs=["x", "x"], outputs=["sum"], options_class="AddOptions"),
            Op(kind="MUL", inputs=["x", "x"], outputs=["sq"], options_class="MulOptions"),
        ],
        ["x"],
        ["sq", "sum"],
    )


def quantized_file(batch: int = -1) -> bytes:
    """Takes int8 (scale 0.5, zero point 3) and gives it back, as int8 of the same scale."""
    return tflite_bytes(
        [
            Tensor(name="qx", shape=(batch, 2), dtype="int8", scale=0.5, zero_point=3),
            Tensor(name="shape", shape=(2,), dtype="int32", value=np.array([-1, 2], np.int32)),
            Tensor(name="qy", shape=(batch, 2), dtype="int8", scale=0.5, zero_point=3),
        ],
        [Op(kind="RESHAPE", inputs=["qx", "shape"], outputs=["qy"])],
        ["qx"],
        ["qy"],
    )


def network_file(*, batch: int = -1, hidden: int = 64, classes: int = 4, seed: int = 0) -> bytes:
    """A classifier of 8 features: two layers with ReLU, then logits and their softmax."""
    rng = np.random.default_rng(seed)
    sizes = [8, hidden, hidden, classes]
    tensors = [Tensor(name="x", shape=(batch, 8))]
    ops = []
    last = "x"
    for layer, (width, wide) in enumerate(itertools.pairwise(sizes)):
        weights = rng.normal(size=(wide, width)).astype(np.float32) / np.sqrt(width)
        bias = rng.normal(size=wide).astype(np.float32) / 4
        names = [f"layer{layer};fused", f"w{layer}", f"b{layer}"]
        tensors += [
            Tensor(name=names[1], shape=(wide, width), value=weights),
            Tensor(name=names[2], shape=(wide,), value=bias),
            Tensor(name=names[0], shape=(batch, wide)),
        ]
        ops.append(
            Op(
                kind="FULLY_CONNECTED",
                inputs=[last, *names[1:]],
                outputs=[names[0]],
                options={"fusedActivationFunction": int(layer < len(sizes) - 2)},
                options_class="FullyConnectedOptions",
            )
        )
        last = names[0]
    tensors.append(Tensor(name="probabilities", shape=(batch, classes)))
    ops.append(
        Op(
            kind="SOFTMAX",
            inputs=[last],
            outputs=["probabilities"],
            options={"beta": 1.0},
            options_class="SoftmaxOptions",
        )
    )
    return tflite_bytes(tensors, ops, ["x"], ["probabilities"])


def _tensor(item: Tensor, buffers: list) -> schema.TensorT:
    made = schema.TensorT()
    made.name = item.name.encode()
    made.shape = [max(size, 1) for size in item.shape]
    if any(size < 0 for size in item.shape):
        made.shapeSignature = list(item.shape)
    made.type = TYPES[item.dtype]
    made.buffer = 0
    if item.value is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(item.value).tobytes(), np.uint8)
        made.buffer = len(buffers)
        buffers.append(buffer)
    if item.scale is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = [item.scale]
        made.quantization.zeroPoint = [item.zero_point]
    return made


def _code(op: Op) -> schema.OperatorCodeT:
    made = schema.OperatorCodeT()
    number = (
        schema.BuiltinOperator.CUSTOM if op.custom else getattr(schema.BuiltinOperator, op.kind)
    )
    made.builtinCode = number
    made.deprecatedBuiltinCode = min(number, 127)
    made.version = op.version
    if op.custom:
        made.customCode = op.custom.encode()
    return made


def _operator(op: Op, index: int, places: Mapping[str, int]) -> schema.OperatorT:
    made = schema.OperatorT()
    made.opcodeIndex = index
    made.inputs = [places[name] if name else -1 for name in op.inputs]
    made.outputs = [places[name] for name in op.outputs]
    if op.options_class:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, op.options_class)
        made.builtinOptions = getattr(schema, f"{op.options_class}T")()
        for name, value in op.options.items():
            setattr(made.builtinOptions, name, value)
    return made
