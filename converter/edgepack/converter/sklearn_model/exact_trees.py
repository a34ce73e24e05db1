"""Float64 thresholds for histogram gradient boosting, which skl2onnx rounds to float32.

scikit-learn puts a threshold half way between two values of the training data. Data of few
decimals has values that lie exactly there, and then the last bit of the threshold decides.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgepack.runtime.tensors import Array

_ML = "ai.onnx.ml"
_OPSET_WITH_DOUBLES = 3
_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_LEAF = b"LEAF"
_FLOAT_LISTS = ("nodes_values", "class_weights", "target_weights", "base_values", "nodes_hitrates")


def keep_exact_thresholds(model: ModelProto, estimator: Any) -> None:  # noqa: ANN401
    """Write the thresholds and leaves of a histogram gradient boosting as float64, in place.

    Args:
        model: Exported with float64 inputs.
        estimator: The fitted HistGradientBoostingClassifier or -Regressor that its trees are of.
    """
    trees = [node for node in model.graph.node if node.op_type in _TREES]
    predictors = [tree for stage in estimator._predictors for tree in stage]
    if len(trees) != 1:
        return
    (node,) = trees
    lists = {item.name: item for item in node.attribute}
    kind = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
    places = list(zip(lists["nodes_treeids"].ints, lists["nodes_nodeids"].ints, strict=True))
    leaves = list(zip(lists[f"{kind}_treeids"].ints, lists[f"{kind}_nodeids"].ints, strict=True))
    thresholds = [
        0.0 if mode == _LEAF else float(predictors[tree].nodes[place]["num_threshold"])
        for (tree, place), mode in zip(places, lists["nodes_modes"].strings, strict=True)
    ]
    weights = [float(predictors[tree].nodes[place]["value"]) for tree, place in leaves]
    exact: dict[str, Array] = {
        "nodes_values": np.array(thresholds),
        f"{kind}_weights": np.array(weights),
        "base_values": np.ravel(np.asarray(estimator._baseline_prediction, dtype=np.float64)),
    }
    _replace(node, exact)
    for item in model.opset_import:
        if item.domain == _ML:
            item.version = max(item.version, _OPSET_WITH_DOUBLES)


def _replace(node: NodeProto, exact: dict[str, Array]) -> None:
    kept = [item for item in node.attribute if item.name not in _FLOAT_LISTS]
    tensors: Sequence[Any] = [
        helper.make_attribute(f"{name}_as_tensor", numpy_helper.from_array(values, name))
        for name, values in exact.items()
    ]
    del node.attribute[:]
    node.attribute.extend([*kept, *tensors])
