"""A small, real bundle with preprocessing: tells which colour an image has most of."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.classifier_bundle import write_classifier_bundle

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.trust import PrivateKey

COLOURS = ("red", "green", "blue")
PRE = (
    {"step": "resize", "input": "image", "height": 8, "width": 8, "method": "area"},
    {"step": "scale", "input": "image", "factor": 1 / 255},
    {"step": "layout", "input": "image", "to": "NCHW"},
)


def colour_model() -> bytes:
    """The mean of each channel of float images (N, 3, 8, 8), and the name of the largest."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["probabilities"], axes=[2, 3], keepdims=0),
        helper.make_node("ArgMax", ["probabilities"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["classes", "index"], ["label"], axis=0),
    ]
    names = numpy_helper.from_array(np.array(COLOURS, dtype=object), "classes")
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3]),
        ],
        [names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def colour_images(rows: int, side: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images, uint8 (N, side, side, 3), and the colour of each."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 128, (rows, side, side, 3), np.uint8)
    chosen = rng.integers(0, 3, rows)
    images[np.arange(rows), :, :, chosen] += 120
    return images, np.array([COLOURS[index] for index in chosen], dtype=object)


def write_image_bundle(folder: Path, *, key: PrivateKey | None = None) -> Path:
    """Write colours-1.0.0.edgepack into `folder`; it takes images of any size."""
    images, labels = colour_images(64)
    pooled = images.reshape(64, 8, 2, 8, 2, 3).mean(axis=(2, 4)).round() / 255
    outputs = {"label": labels, "probabilities": pooled.mean(axis=(1, 2)).astype(np.float32)}
    return write_classifier_bundle(
        folder,
        TensorSpec(name="image", datatype=Datatype.UINT8, shape=(-1, -1, -1, 3)),
        name="colours",
        classes=COLOURS,
        model=colour_model(),
        samples=images,
        outputs=outputs,
        key=key,
        requires=("pre",),
        pre=PRE,
    )
