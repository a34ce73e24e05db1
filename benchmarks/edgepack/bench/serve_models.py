"""Two models to serve over HTTP: digits, and one that takes an image of 602 KB and says little."""

from pathlib import Path
from typing import Final

import joblib
import numpy as np
import onnx
from onnx import TensorProto, helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgepack.bundle import Part, media_types, sign_bundle, write_bundle
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
from edgepack.converter import ConvertRequest, convert
from edgepack.runtime.golden import Golden, render_golden
from edgepack.trust import PrivateKey

DIGITS: Final = "digits"
IMAGE: Final = "image"
IMAGE_SHAPE: Final = (1, 3, 224, 224)
_SAMPLES: Final = 4


def write_digits(folder: Path) -> Path:
    """Make digits.joblib and a bundle of it."""
    digits = load_digits()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    joblib.dump(model.fit(digits.data[:1000], digits.target[:1000]), folder / "digits.joblib")
    np.savez(folder / "data.npz", X=digits.data[1000:], y=digits.target[1000:])
    request = ConvertRequest(
        model=folder / "digits.joblib",
        data=folder / "data.npz",
        output=folder,
        name=DIGITS,
        keys=folder / "keys",
    )
    return convert(request).path


def write_image(folder: Path, release_key: Path) -> Path:
    """Make a bundle whose model gives the mean of each channel of an image."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["value"], axes=[2, 3], keepdims=0)],
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *IMAGE_SHAPE[1:]])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["N", IMAGE_SHAPE[1]])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    data = proto.SerializeToString()
    rng = np.random.default_rng(0)
    images = rng.random((_SAMPLES, *IMAGE_SHAPE[1:]), dtype=np.float32)
    golden = Golden(inputs={"x": images}, outputs={"value": images.mean(axis=(2, 3))}, truth=None)
    path = folder / f"{IMAGE}-1.0.0.edgepack"
    write_bundle(
        path,
        _image_contract(len(data)),
        [
            Part(path="onnx-fp32/model.onnx", media_type=media_types.WEIGHTS, data=data),
            Part(
                path="golden.safetensors",
                media_type=media_types.DATASET,
                data=render_golden(golden),
            ),
        ],
    )
    sign_bundle(path, PrivateKey.load(release_key), sequence=1)
    return path


def _image_contract(size_bytes: int) -> Contract:
    shape = (-1, *IMAGE_SHAPE[1:])
    return Contract(
        name=IMAGE,
        version="1.0.0",
        task=Task.GENERIC,
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=shape),),
        outputs=(TensorSpec(name="value", datatype=Datatype.FP32, shape=(-1, IMAGE_SHAPE[1])),),
        golden="golden.safetensors",
        variants=(
            Variant(
                name="onnx-fp32",
                files=("onnx-fp32/model.onnx",),
                precision="fp32",
                size_bytes=size_bytes,
                engine=EngineRequirements(engine="onnxruntime", opsets={"": 17}),
                inputs=(TensorBinding(name="x", tensor="x", dtype=Datatype.FP32),),
                outputs=(TensorBinding(name="value", tensor="value", dtype=Datatype.FP32),),
                parity=Parity(rows=_SAMPLES, metric="max_rel_error", value=0.0, bound=1e-4),
            ),
        ),
    )
