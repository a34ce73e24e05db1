"""Small networks as ONNX files, built by code, for the tests of the ONNX tools."""

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LONG = "StatefulPartitionedCall/functional_1/a_layer_with_a_name_as_frameworks_write_them/"


def conv_net(
    *,
    channels: int = 16,
    blocks: int = 2,
    batch: int | None = None,
    opset: int = 17,
    size: int = 8,
    seed: int = 0,
) -> bytes:
    """Convolution, batch normalization and ReLU a few times, then pooling, dense and softmax."""
    rng = np.random.default_rng(seed)
    nodes, constants = [], {}
    tensor, width = "image", 1
    for block in range(blocks):
        name = f"{LONG}block_{block}/"
        kernel = rng.normal(size=(channels, width, 3, 3)) / np.sqrt(9 * width)
        constants[f"{name}kernel"] = kernel
        for part, value in (
            ("scale", rng.uniform(0.5, 2, channels)),
            ("bias", rng.normal(size=channels) / 4),
            ("mean", rng.normal(size=channels) / 4),
            ("var", rng.uniform(0.5, 2, channels)),
        ):
            constants[f"{name}{part}"] = value
        nodes += [
            helper.make_node(
                "Conv", [tensor, f"{name}kernel"], [f"{name}conv"], name=f"{name}Conv", pads=[1] * 4
            ),
            helper.make_node(
                "BatchNormalization",
                [f"{name}conv", *(f"{name}{part}" for part in ("scale", "bias", "mean", "var"))],
                [f"{name}norm"],
            ),
            helper.make_node("Relu", [f"{name}norm"], [f"{name}relu"]),
        ]
        tensor, width = f"{name}relu", channels
    constants[f"{LONG}dense/kernel"] = rng.normal(size=(width, 4))
    constants[f"{LONG}dense/bias"] = rng.normal(size=4)
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], [f"{LONG}pooled"]),
        helper.make_node("Flatten", [f"{LONG}pooled"], [f"{LONG}flat"]),
        helper.make_node("MatMul", [f"{LONG}flat", f"{LONG}dense/kernel"], [f"{LONG}product"]),
        helper.make_node("Add", [f"{LONG}product", f"{LONG}dense/bias"], [f"{LONG}logits"]),
        helper.make_node("Softmax", [f"{LONG}logits"], ["probabilities"]),
    ]
    return model_bytes(
        nodes,
        [("image", (batch, 1, size, size))],
        [("probabilities", (batch, 4))],
        constants,
        opset=opset,
    )


def dense_net(*, widths: tuple[int, ...] = (12, 64, 64, 1), seed: int = 0) -> bytes:
    """Dense layers as torch writes them: Gemm with transposed weights, and ReLU between."""
    rng = np.random.default_rng(seed)
    nodes, constants, tensor = [], {}, "x"
    last = len(widths) - 2
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        constants[f"w{index}"] = rng.normal(size=(after, before)) / np.sqrt(before)
        constants[f"b{index}"] = rng.normal(size=after) / 4
        out = "y" if index == last else f"h{index}"
        nodes.append(helper.make_node("Gemm", [tensor, f"w{index}", f"b{index}"], [out], transB=1))
        if index != last:
            nodes.append(helper.make_node("Relu", [out], [f"r{index}"]))
            tensor = f"r{index}"
    return model_bytes(nodes, [("x", (None, widths[0]))], [("y", (None, widths[-1]))], constants)


def model_bytes(nodes, inputs, outputs, constants, *, opset: int = 17) -> bytes:
    """A file of float32 inputs (name, shape with None for free) and constants."""
    infos = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(shape)) for n, shape in group]
        for group in (inputs, outputs)
    ]
    tensors = [
        numpy_helper.from_array(
            np.asarray(v) if np.asarray(v).dtype == np.int64 else np.asarray(v, np.float32), name
        )
        for name, v in constants.items()
    ]
    graph = helper.make_graph(nodes, "net", *infos, tensors, doc_string="written by a framework")
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("", opset)]  # as skl2onnx does
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def images(rows: int, *, size: int = 8, seed: int = 1) -> np.ndarray:
    """Random images float32 (rows, 1, size, size)."""
    return np.random.default_rng(seed).normal(size=(rows, 1, size, size)).astype(np.float32)


def answers(data: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime answers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def operators(data: bytes) -> set[str]:
    """The kinds of nodes in a file."""
    return {node.op_type for node in onnx.load_model_from_string(data).graph.node}


def recurrent_net(*, hidden: int = 32, inputs: int = 6, seed: int = 0) -> bytes:
    """An LSTM over (batch, time, inputs), as torch writes it, and a dense layer behind it."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.normal(size=(1, 4 * hidden, inputs)) / np.sqrt(hidden),
        "r": rng.normal(size=(1, 4 * hidden, hidden)) / np.sqrt(hidden),
        "b": rng.normal(size=(1, 8 * hidden)) / np.sqrt(hidden),
        "dense": rng.normal(size=(hidden, 3)),
        "axis": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r", "b"], ["", "last"], hidden_size=hidden),
        helper.make_node("Squeeze", ["last", "axis"], ["state"]),
        helper.make_node("MatMul", ["state", "dense"], ["y"]),
    ]
    return model_bytes(nodes, [("x", (None, 10, inputs))], [("y", (None, 3))], constants)
