"""Bundles with several variants each, for what a device chooses among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import joblib
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgepack.bench.workloads import IMAGE_PIXELS, image_network
from edgepack.bundle.contract import Task
from edgepack.converter import ConvertRequest, convert
from edgepack.converter.request import Precision
from edgepack.trust import keygen

_ROWS: Final = 160
_WIDTH: Final = 1024
_INNER: Final = 4608  # 38 MB of weights: beyond the size from which they are used as they lie
_MAX_DROP: Final = 0.2  # the choice is measured, not the accuracy of made-up weights


def digits_bundle(folder: Path) -> Path:
    """A scaler and a network of 64 units on the handwritten digits."""
    digits = load_digits()
    x, y = digits.data.astype(np.float32), digits.target
    model = make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=60, random_state=0))
    joblib.dump(model.fit(x[:1000], y[:1000]), folder / "digits.joblib")
    np.savez(folder / "digits.npz", X=x[1000:], y=y[1000:])
    return _convert(folder, "digits.joblib", "digits.npz", None)


def image_bundle(folder: Path) -> Path:
    """Convolutions on a 96 x 96 colour image."""
    (folder / "image.onnx").write_bytes(image_network(rounds=8).model)
    shape = (_ROWS, 3, IMAGE_PIXELS, IMAGE_PIXELS)
    np.savez(folder / "image.npz", x=np.random.default_rng(0).random(shape, dtype=np.float32))
    return _convert(folder, "image.onnx", "image.npz", Task.TRANSFORM)


def dense_bundle(folder: Path, *, alone: bool = False, inner: int = _INNER) -> Path:
    """Two large matrix products, their weights in a file of their own.

    Args:
        folder: Where the bundle goes.
        alone: Pack the float32 ONNX variant only.
        inner: Width between the two; the weights take 8 * 1024 * inner bytes.
    """
    rng = np.random.default_rng(0)
    shapes = ((_WIDTH, inner), (inner, _WIDTH))
    weights = [
        rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0])) for shape in shapes
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["y"]),
    ]
    constants = [numpy_helper.from_array(value, f"w{place}") for place, value in enumerate(weights)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, _WIDTH]) for n in "xy"]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], constants)
    imports = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, opset_imports=imports, ir_version=8), str(folder / "dense.onnx")
    )
    np.savez(folder / "dense.npz", x=rng.standard_normal((_ROWS, _WIDTH), np.float32))
    return _convert(folder, "dense.onnx", "dense.npz", Task.TRANSFORM, alone=alone)


BUNDLES: Final[tuple[tuple[str, Callable[[Path], Path]], ...]] = (
    ("digits network", digits_bundle),
    ("image network", image_bundle),
    ("large dense network", dense_bundle),
)


def _convert(
    folder: Path, model: str, data: str, task: Task | None, *, alone: bool = False
) -> Path:
    keys = folder / "keys"
    if not keys.exists():
        keygen(keys)
    report = convert(
        ConvertRequest(
            model=folder / model,
            data=folder / data,
            output=folder,
            task=task,
            keys=keys,
            max_drop=_MAX_DROP,
            precision=Precision.FP32 if alone else None,
            formats=("onnx",) if alone else (),
        )
    )
    return report.path
