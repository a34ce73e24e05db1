"""A bundle whose model knows two words and refuses every other, as scikit-learn's encoder does."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from support.classifier_bundle import write_classifier_bundle

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.runtime.categories import encoder_name

WORDS = ("left", "right")


def write_word_bundle(folder: Path) -> Path:
    """Write words-1.0.0.edgepack into `folder`: `word` BYTES (N, 1) to the word itself."""
    words = np.array([WORDS[row % 2] for row in range(64)], dtype=object)
    probabilities = np.eye(2, dtype=np.float32)[np.arange(64) % 2]
    return write_classifier_bundle(
        folder,
        TensorSpec(name="word", datatype=Datatype.BYTES, shape=(-1, 1), feature_names=("word",)),
        name="words",
        classes=WORDS,
        model=_onnx(),
        samples=words.reshape(-1, 1),
        outputs={"label": words, "probabilities": probabilities},
        tensor=Datatype.BYTES,
    )


def _onnx() -> bytes:
    encode = {"cats_strings": list(WORDS), "zeros": 0, "domain": "ai.onnx.ml"}
    graph = helper.make_graph(
        [
            helper.make_node(
                "OneHotEncoder", ["word"], ["encoded"], name=encoder_name(0, 0), **encode
            ),
            helper.make_node("Reshape", ["encoded", "flat"], ["probabilities"]),
            helper.make_node("Reshape", ["word", "all"], ["label"]),
        ],
        "words",
        [helper.make_tensor_value_info("word", TensorProto.STRING, ["N", 1])],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
        ],
        [
            helper.make_tensor("flat", TensorProto.INT64, [2], [-1, 2]),
            helper.make_tensor("all", TensorProto.INT64, [1], [-1]),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
