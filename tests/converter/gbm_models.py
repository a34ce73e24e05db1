"""Boosted models made by code, and their trees run as ONNX, for the converter's tests."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from edgepack.converter.gbm_model.ensemble import Ensemble
from edgepack.converter.gbm_model.graph import add_classes, add_value
from edgepack.converter.gbm_model.part import Part

ROWS = 600
_KINDS = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}


@dataclass(frozen=True)
class Machines:
    """Rows of five columns with one decimal, the fourth one whole numbers 0 to 11."""

    plain: Any
    with_nan: Any
    value: Any  # any number
    count: Any  # above 0
    two: Any  # two classes
    four: Any  # four classes


def machines() -> Machines:
    """Data whose values lie where thresholds do, with and without gaps."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(ROWS, 5)).round(1)
    plain[:, 3] = rng.integers(0, 12, ROWS)
    value = plain[:, 0] + plain[:, 1] ** 2 + np.sin(plain[:, 3] * 3) + rng.normal(size=ROWS) * 0.1
    with_nan = plain.copy()
    with_nan[rng.random(plain.shape) < 0.15] = np.nan
    return Machines(
        plain=plain,
        with_nan=with_nan,
        value=value,
        count=np.exp(value / 2).round() + 0.1,
        two=(value > 1).astype(int),
        four=np.digitize(value, [0, 1, 2]),
    )


def run_trees(ensemble: Ensemble, rows: Any, dtype: Any, *, classes: Any = None) -> dict[str, Any]:
    """The ensemble's answers by onnxruntime, from inputs of a type."""
    part = Part(prefix="trees")
    kind = _KINDS[dtype]
    if classes is None:
        add_value(part, ensemble, "x", dtype, output="value")
        outputs = {"value": kind}
    else:
        add_classes(
            part, ensemble, "x", dtype, classes=classes, label="label", probabilities="proba"
        )
        is_text = classes.dtype.kind in "OU"
        outputs = {"label": TensorProto.STRING if is_text else TensorProto.INT64, "proba": kind}
    graph = helper.make_graph(
        part.nodes,
        "trees",
        [helper.make_tensor_value_info("x", kind, [None, ensemble.features])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        part.initializers,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return dict(zip(outputs, session.run(None, {"x": rows.astype(dtype)}), strict=True))


def at_the_splits(ensemble: Ensemble, rows: Any) -> Any:
    """The rows, and copies that have a threshold, or one of the float32 next to it, in a column."""
    found = [rows]
    for tree in ensemble.trees[:6]:
        inner = np.flatnonzero(tree.feature >= 0)[:20]
        for feature, threshold in zip(tree.feature[inner], tree.threshold[inner], strict=True):
            near = np.float32(threshold)
            with np.errstate(over="ignore"):
                below, above = np.nextafter(near, np.float32([-np.inf, np.inf]))
            for value in (near, below, above):
                row = rows[len(found) % len(rows)].copy()
                row[feature] = float(value)
                found.append(row[None])
    return np.concatenate(found)
