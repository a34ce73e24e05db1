"""A bundle of one linear model in several forms, some of which misbehave."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgepack.bundle import Part, media_types, write_bundle
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
from edgepack.runtime.golden import Golden, render_golden

FEATURES = 8


def linear_onnx(weights: np.ndarray, name: str) -> bytes:
    """Gives x @ weights; the name makes it a file of its own."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    size = weights.shape[1]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, columns])
        for name, columns in (("x", FEATURES), ("y", size))
    ]
    constants = [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, name, infos[:1], infos[1:], constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def write_contest(folder: Path, vices: Sequence[str]) -> Path:
    """Write a bundle with a variant for each word, named after it; gives its path.

    "good" runs on onnxruntime; every other word is a vice of the engine "rogue".
    """
    weights = np.random.default_rng(0).normal(size=(FEATURES, 4)).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(64, FEATURES)).astype(np.float32)
    variants, parts = [], []
    base = Variant(
        name="",
        files=(),
        precision="fp32",
        size_bytes=0,
        engine=EngineRequirements(engine="onnxruntime", opsets={"": 17}),
        inputs=(TensorBinding(name="x", tensor="x", dtype=Datatype.FP32),),
        outputs=(TensorBinding(name="y", tensor="y", dtype=Datatype.FP32),),
        parity=Parity(rows=64, metric="r2", value=1.0, bound=0.99),
    )
    for word in vices:
        data = linear_onnx(weights, word)
        path = f"{word}/model.onnx"
        parts.append(Part(path=path, media_type=media_types.WEIGHTS, data=data))
        good = word.startswith("good")
        engine = base.engine if good else EngineRequirements(engine="rogue")
        precision = "fp32" if good else word
        variants.append(
            replace(
                base,
                name=word,
                files=(path,),
                size_bytes=len(data),
                precision=precision,
                engine=engine,
            )
        )
    contract = Contract(
        name="contest",
        version="1.0.0",
        task=Task.TRANSFORM,
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, FEATURES)),),
        outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, 4)),),
        golden="golden.safetensors",
        variants=tuple(variants),
    )
    golden = render_golden(Golden(inputs={"x": x}, outputs={"y": x @ weights}))
    parts.append(Part(path="golden.safetensors", media_type=media_types.DATASET, data=golden))
    path = folder / "contest-1.0.0.edgepack"
    write_bundle(path, contract, parts)
    return path
