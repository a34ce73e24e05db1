"""Models, contracts and bundles for the runtime's tests, built by code."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgepack.bundle.contract import (
    Contract,
    Datatype,
    EngineRequirements,
    Nonfinite,
    Parity,
    Task,
    TensorBinding,
    TensorSpec,
    Variant,
)

ONNX_TYPES = {
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.INT64: TensorProto.INT64,
    Datatype.INT8: TensorProto.INT8,
    Datatype.BYTES: TensorProto.STRING,
    Datatype.BOOL: TensorProto.BOOL,
}


@dataclass
class FakeBundle:
    """A bundle in memory: what `load` needs of one."""

    contract: Contract
    files: Mapping[str, bytes]
    digest: str = "sha256:" + "0" * 64
    reads: list[str] = field(default_factory=list)

    def read(self, path: str) -> bytes:
        self.reads.append(path)
        return self.files[path]


def tensor(name, datatype, shape, **kwargs):
    return TensorSpec(name=name, datatype=datatype, shape=tuple(shape), **kwargs)


def binding_of(spec: TensorSpec, **kwargs) -> TensorBinding:
    return TensorBinding(
        **{"name": spec.name, "tensor": spec.name, "dtype": spec.datatype, **kwargs}
    )


def graph_bytes(nodes, inputs, outputs, constants: Mapping[str, np.ndarray] | None = None) -> bytes:
    """Make an ONNX file; inputs and outputs are (name, datatype, shape with None or -1 free)."""
    infos = [
        [
            helper.make_tensor_value_info(
                name, ONNX_TYPES[datatype], [None if size in (-1, None) else size for size in shape]
            )
            for name, datatype, shape in group
        ]
        for group in (inputs, outputs)
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    ]
    graph = helper.make_graph(nodes, "test", infos[0], infos[1], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def bundle_of(
    model: bytes,
    inputs,
    outputs,
    *,
    task=Task.GENERIC,
    input_bindings=None,
    output_bindings=None,
    precision="fp32",
    parity=None,
    **contract_fields,
) -> FakeBundle:
    """Make a bundle of one variant around an ONNX file."""
    variant = Variant(
        name=f"onnx-{precision}",
        files=(f"onnx-{precision}/model.onnx",),
        precision=precision,
        size_bytes=len(model),
        engine=EngineRequirements(engine="onnxruntime", opsets={"": 17}),
        inputs=tuple(input_bindings or [binding_of(spec) for spec in inputs]),
        outputs=tuple(output_bindings or [binding_of(spec) for spec in outputs]),
        parity=parity or Parity(rows=100, metric="within_tolerance", value=1.0, bound=1.0),
    )
    contract = Contract(
        name="test",
        version="1.0.0",
        task=task,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        variants=(variant,),
        golden="golden.safetensors",
        **contract_fields,
    )
    return FakeBundle(contract, {variant.files[0]: model})


def tflite_bundle_of(model: bytes, inputs, outputs, *, engine="litert", **fields) -> FakeBundle:
    """Make a bundle of one variant around a TFLite file."""
    bundle = bundle_of(model, inputs, outputs, **fields)
    (variant,) = bundle.contract.variants
    path = f"tflite-{variant.precision}/model.tflite"
    made = replace(
        variant,
        name=f"tflite-{variant.precision}",
        files=(path,),
        engine=EngineRequirements(engine=engine, opsets={"FULLY_CONNECTED": 1}),
    )
    return FakeBundle(replace(bundle.contract, variants=(made,)), {path: model})


def linear_bundle(
    weights: np.ndarray, *, nonfinite: Nonfinite = Nonfinite.REJECT, batch: int | None = None
) -> FakeBundle:
    """Gives y = x @ weights, float32; `batch` makes the file's batch fixed."""
    features, targets = weights.shape
    rows = -1 if batch is None else batch
    model = graph_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", Datatype.FP32, (rows, features))],
        [("y", Datatype.FP32, (rows, targets))],
        {"w": weights.astype(np.float32)},
    )
    x = tensor(
        "x",
        Datatype.FP32,
        (-1, features),
        nonfinite=nonfinite,
        feature_names=tuple(f"f{index}" for index in range(features)),
    )
    y = tensor("y", Datatype.FP32, (-1, targets))
    return bundle_of(
        model,
        [x],
        [y],
        input_bindings=[binding_of(x, batch=batch)],
        output_bindings=[binding_of(y, batch=batch)],
    )


def compress_bundle() -> FakeBundle:
    """Keeps only the rows above zero: the number of output rows depends on the data."""
    model = graph_bytes(
        [
            helper.make_node("Greater", ["x", "zero"], ["above"]),
            helper.make_node("Squeeze", ["above", "axis"], ["flat"]),
            helper.make_node("Compress", ["x", "flat"], ["y"], axis=0),
        ],
        [("x", Datatype.FP32, (-1, 1))],
        [("y", Datatype.FP32, (-1, 1))],
        {"zero": np.float32(0), "axis": np.array([1])},
    )
    x = tensor("x", Datatype.FP32, (-1, 1))
    y = tensor("y", Datatype.FP32, (-1, 1))
    return bundle_of(model, [x], [y])


def text_bundle() -> FakeBundle:
    """Takes a word and a number for each row; gives the number doubled and the word as it was."""
    model = graph_bytes(
        [
            helper.make_node("Identity", ["word"], ["same"]),
            helper.make_node("Add", ["number", "number"], ["twice"]),
        ],
        [("word", Datatype.BYTES, (-1, 1)), ("number", Datatype.FP32, (-1, 1))],
        [("same", Datatype.BYTES, (-1, 1)), ("twice", Datatype.FP32, (-1, 1))],
    )
    inputs = [tensor("word", Datatype.BYTES, (-1, 1)), tensor("number", Datatype.FP32, (-1, 1))]
    outputs = [tensor("same", Datatype.BYTES, (-1,)), tensor("twice", Datatype.FP32, (-1,))]
    return bundle_of(model, inputs, outputs)


def sum_bundle(columns: int) -> FakeBundle:
    """Takes `columns` separate inputs (N, 1) and gives their sum."""
    specs = [tensor(f"c{index}", Datatype.FP32, (-1, 1)) for index in range(columns)]
    model = graph_bytes(
        [helper.make_node("Sum", [spec.name for spec in specs], ["value"])],
        [(spec.name, Datatype.FP32, (-1, 1)) for spec in specs],
        [("value", Datatype.FP32, (-1, 1))],
    )
    return bundle_of(model, specs, [tensor("value", Datatype.FP32, (-1,))])


def quantized_bundle() -> FakeBundle:
    """The file takes int8 and gives it back; scales are 0.5 with zero point 3, and 2 with -1."""
    model = graph_bytes(
        [helper.make_node("Identity", ["qx"], ["qy"])],
        [("qx", Datatype.INT8, (-1, 2))],
        [("qy", Datatype.INT8, (-1, 2))],
    )
    x = tensor("x", Datatype.FP32, (-1, 2))
    y = tensor("y", Datatype.FP32, (-1, 2))
    return bundle_of(
        model,
        [x],
        [y],
        precision="int8",
        input_bindings=[binding_of(x, tensor="qx", dtype=Datatype.INT8, scale=0.5, zero_point=3)],
        output_bindings=[binding_of(y, tensor="qy", dtype=Datatype.INT8, scale=2.0, zero_point=-1)],
    )
