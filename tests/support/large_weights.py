"""A bundle whose weights lie in a second file, as an archive and as a device's store."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgepack.bundle import Bundle, Part, media_types, open_bundle, open_layout, write_bundle
from edgepack.bundle.contract import (
    Contract,
    Datatype,
    EngineRequirements,
    Parity,
    Task,
    TensorBinding,
    TensorSpec,
    Variant,
)
from edgepack.converter.external_data import split, weights_name
from edgepack.runtime.golden import Golden, render_golden

WIDTH = 128


def network(*, layers: int, width: int = WIDTH) -> bytes:
    """Square matrix products with ReLU, all weights inside: 4 * width**2 bytes a layer."""
    rng = np.random.default_rng(0)
    nodes, weights, tensor = [], [], "x"
    for layer in range(layers):
        matrix = (rng.normal(size=(width, width)) / np.sqrt(width / 2)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        out = "y" if layer == layers - 1 else f"r{layer}"
        nodes.append(helper.make_node("MatMul", [tensor, f"w{layer}"], [f"h{layer}"]))
        nodes.append(helper.make_node("Relu", [f"h{layer}"], [out]))
        tensor = out
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name in "xy"]
    graph = helper.make_graph(nodes, "large", infos[:1], infos[1:], weights)
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def write_large(folder: Path, *, layers: int = 20, width: int = WIDTH) -> Bundle:
    """Write a bundle of a split network, unsigned, and open it."""
    model, weights = split(network(layers=layers, width=width))
    assert weights is not None
    files = {
        "onnx-fp32/model.onnx": model,
        f"onnx-fp32/{weights_name(weights)}": weights,
    }
    bindings = [TensorBinding(name=name, tensor=name, dtype=Datatype.FP32) for name in "xy"]
    variant = Variant(
        name="onnx-fp32",
        files=tuple(files),
        precision="fp32",
        size_bytes=sum(map(len, files.values())),
        engine=EngineRequirements(engine="onnxruntime", opsets={"": 17}),
        inputs=tuple(bindings[:1]),
        outputs=tuple(bindings[1:]),
        parity=Parity(rows=64, metric="within_tolerance", value=1.0, bound=1.0),
    )
    specs = [TensorSpec(name=n, datatype=Datatype.FP32, shape=(-1, width)) for n in "xy"]
    contract = Contract(
        name="large",
        version="1.0.0",
        task=Task.GENERIC,
        inputs=tuple(specs[:1]),
        outputs=tuple(specs[1:]),
        variants=(variant,),
        golden="golden.safetensors",
    )
    rows = np.ones((64, width), np.float32)
    golden = render_golden(Golden(inputs={"x": rows}, outputs={"y": rows}, truth=None))
    parts = [
        Part(path=path, media_type=media_types.WEIGHTS, data=data) for path, data in files.items()
    ]
    parts.append(Part(path="golden.safetensors", media_type=media_types.DATASET, data=golden))
    path = folder / "large-1.0.0.edgepack"
    write_bundle(path, contract, parts)
    return open_bundle(path)


def stored(bundle: Bundle, folder: Path, *, hash_blobs: bool = True) -> Bundle:
    """Put a bundle's blobs into a store, as a device does, and open it there."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for blob in bundle.blobs():
        path = blobs / blob.hex
        if not path.exists():
            path.write_bytes(bundle.read_blob(blob.digest))
            path.chmod(0o444)
    return open_layout(folder, bundle.digest, hash_blobs=hash_blobs)
