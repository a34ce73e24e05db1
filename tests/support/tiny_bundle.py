"""A small, real bundle made by code: a linear classifier of 4 features and 3 classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.classifier_bundle import write_classifier_bundle

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.trust import PrivateKey

FEATURES = ("air_temp", "torque", "speed", "wear")
CLASSES = ("ok", "worn", "broken")


@dataclass(frozen=True)
class TinyModel:
    """The model in numpy: what the original would answer."""

    weights: np.ndarray

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        scores = x.astype(np.float32) @ self.weights
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
        labels = np.array([CLASSES[i] for i in probabilities.argmax(axis=1)], dtype=object)
        return {"label": labels, "probabilities": probabilities}

    def onnx(self) -> bytes:
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "weights"], ["scores"]),
                helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
                helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
                helper.make_node("Gather", ["classes", "index"], ["label"], axis=0),
            ],
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
            [
                helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3]),
            ],
            [
                numpy_helper.from_array(self.weights, "weights"),
                helper.make_tensor(
                    "classes", TensorProto.STRING, [3], [c.encode() for c in CLASSES]
                ),
            ],
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model)
        return model.SerializeToString()


def tiny_model(seed: int = 0) -> TinyModel:
    rng = np.random.default_rng(seed)
    return TinyModel(rng.normal(size=(4, 3)).astype(np.float32))


def write_tiny_bundle(
    folder: Path,
    *,
    name: str = "tiny",
    version: str = "1.0.0",
    seed: int = 0,
    key: PrivateKey | None = None,
    sequence: int = 1,
    model: bytes | None = None,
) -> Path:
    """Write NAME-VERSION.edgepack into `folder`, signed with `key` if there is one.

    `model` replaces the ONNX file, for bundles that do not do what their golden samples say.
    """
    tiny = tiny_model(seed)
    x = np.random.default_rng(seed + 1).normal(size=(64, 4)).astype(np.float32)
    outputs = tiny.predict(x)
    return write_classifier_bundle(
        folder,
        TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 4), feature_names=FEATURES),
        name=name,
        version=version,
        classes=CLASSES,
        model=model if model is not None else tiny.onnx(),
        samples=x,
        outputs=outputs,
        key=key,
        sequence=sequence,
    )
