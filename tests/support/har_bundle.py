"""A small, real bundle that takes windows of signals: what a person does, from mean and spread."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.classifier_bundle import write_classifier_bundle

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.trust import PrivateKey

ACTIVITIES = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")
CHANNELS = tuple(
    f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"
)
LENGTH = 128


def fitted(windows: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Weights, float32 (19, 6): ridge regression on means and mean squares of each channel."""
    x = _features(windows)
    wanted = np.eye(len(ACTIVITIES))[activity]
    weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ wanted)
    return weights.astype(np.float32)


def _features(windows: np.ndarray) -> np.ndarray:
    wide = windows.astype(np.float64)
    ones = np.ones((len(wide), 1))
    return np.concatenate([wide.mean(axis=1), np.square(wide).mean(axis=1), ones], axis=1)


def har_model(weights: np.ndarray) -> bytes:
    """float32 (N, 128, 9) to label and probabilities."""
    nodes = [
        helper.make_node("ReduceMean", ["signal"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["signal", "signal"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["power"], axes=[1], keepdims=0),
        helper.make_node("Concat", ["mean", "power"], ["features"], axis=1),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["classes", "index"], ["label"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "activity",
        [helper.make_tensor_value_info("signal", TensorProto.FLOAT, ["N", LENGTH, len(CHANNELS)])],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
            helper.make_tensor_value_info(
                "probabilities", TensorProto.FLOAT, ["N", len(ACTIVITIES)]
            ),
        ],
        [
            numpy_helper.from_array(weights[:-1], "weights"),
            numpy_helper.from_array(weights[-1], "bias"),
            numpy_helper.from_array(np.array(ACTIVITIES, dtype=object), "classes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_har_bundle(folder: Path, windows: np.ndarray, activity: np.ndarray, key: PrivateKey):
    """Write activity-1.0.0.edgepack, fitted to windows float32 (N, 128, 9)."""
    weights = fitted(windows, activity)
    golden_x = windows[:: len(windows) // 64][:64]
    scores = (_features(golden_x) @ weights).astype(np.float32)
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    labels = np.array([ACTIVITIES[index] for index in scores.argmax(axis=1)], dtype=object)
    outputs = {"label": labels, "probabilities": probabilities}
    given = TensorSpec(
        name="signal",
        datatype=Datatype.FP32,
        shape=(-1, LENGTH, len(CHANNELS)),
        feature_names=CHANNELS,
    )
    return write_classifier_bundle(
        folder,
        given,
        name="activity",
        classes=ACTIVITIES,
        model=har_model(weights),
        samples=golden_x,
        outputs=outputs,
        key=key,
    )
