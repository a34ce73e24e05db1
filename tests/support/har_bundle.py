"""A small, real bundle that takes windows of signals: what a person does, from mean and spread."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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
from edgepack.runtime.golden import Golden, render_golden
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
    data = har_model(weights)
    golden_x = windows[:: len(windows) // 64][:64]
    scores = (_features(golden_x) @ weights).astype(np.float32)
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    labels = np.array([ACTIVITIES[index] for index in scores.argmax(axis=1)], dtype=object)
    outputs = {"label": labels, "probabilities": probabilities}
    golden = render_golden(Golden(inputs={"signal": golden_x}, outputs=outputs, truth=labels))
    contract = Contract(
        name="activity",
        version="1.0.0",
        task=Task.CLASSIFICATION,
        inputs=(
            TensorSpec(
                name="signal",
                datatype=Datatype.FP32,
                shape=(-1, LENGTH, len(CHANNELS)),
                feature_names=CHANNELS,
            ),
        ),
        outputs=(
            TensorSpec(name="label", datatype=Datatype.BYTES, shape=(-1,)),
            TensorSpec(name="probabilities", datatype=Datatype.FP32, shape=(-1, len(ACTIVITIES))),
        ),
        class_names=ACTIVITIES,
        golden="golden.safetensors",
        variants=(
            Variant(
                name="onnx-fp32",
                files=("onnx-fp32/model.onnx",),
                precision="fp32",
                size_bytes=len(data),
                engine=EngineRequirements(engine="onnxruntime", opsets={"": 17}),
                inputs=(TensorBinding(name="signal", tensor="signal", dtype=Datatype.FP32),),
                outputs=(
                    TensorBinding(name="label", tensor="label", dtype=Datatype.BYTES),
                    TensorBinding(
                        name="probabilities", tensor="probabilities", dtype=Datatype.FP32
                    ),
                ),
                parity=Parity(rows=64, metric="agreement", value=1.0, bound=1.0),
            ),
        ),
    )
    path = folder / "activity-1.0.0.edgepack"
    write_bundle(
        path,
        contract,
        [
            Part(path="onnx-fp32/model.onnx", media_type=media_types.WEIGHTS, data=data),
            Part(path="golden.safetensors", media_type=media_types.DATASET, data=golden),
        ],
    )
    sign_bundle(path, key, sequence=1)
    return path
