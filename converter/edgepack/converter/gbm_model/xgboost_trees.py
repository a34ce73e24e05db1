"""XGBoost's trees, from the JSON that the library itself writes of a model.

XGBoost casts to float32 and goes left where `value < threshold`. A split on categories goes right
for those of its set and left for all others; NaN has a direction of its own at every node.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.gbm_model.ensemble import LEAF, Ensemble, Link, Tree
from edgepack.converter.gbm_model.grow import Fork, grow, runs
from edgepack.runtime.tensors import Array

_SIGMOIDS: Final = ("binary:logistic", "reg:logistic")
_EXPONENTS: Final = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
_SUMS: Final = (
    "binary:logitraw",
    "rank:map",
    "rank:ndcg",
    "rank:pairwise",
    "reg:absoluteerror",
    "reg:linear",
    "reg:pseudohubererror",
    "reg:quantileerror",
    "reg:expectileerror",
    "reg:squarederror",
    "reg:squaredlogerror",
)
LINKS: Final[Mapping[str, Link]] = {
    **dict.fromkeys(_SIGMOIDS, Link.SIGMOID),
    **dict.fromkeys(_EXPONENTS, Link.EXP),
    **dict.fromkeys(_SUMS, Link.NONE),
    "binary:hinge": Link.STEP,
    "multi:softprob": Link.SOFTMAX,
    "multi:softmax": Link.SOFTMAX,
}
_CATEGORICAL: Final = 1


def read_xgboost(document: bytes, *, rounds: int | None, missing: float | None = None) -> Ensemble:
    """Read a model.

    Args:
        document: `Booster.save_raw("json")`.
        rounds: Number of boosting rounds that predictions use; None for all.
        missing: The wrapper's own mark of missing values, if it is not NaN.

    Raises:
        UnsupportedModelError: It has no exact form here: a linear booster, leaves of vectors, an
            objective of the user's own.
        ModelFileError: It makes no sense.
    """
    learner = json.loads(document)["learner"]
    objective = str(learner["objective"]["name"])
    if objective not in LINKS:
        raise UnsupportedModelError(f"XGBoost's objective {objective[:40]!r} has no ONNX form here")
    booster = learner["gradient_booster"]
    if booster["name"] not in ("gbtree", "dart"):
        raise UnsupportedModelError(
            f"XGBoost's booster {str(booster['name'])[:40]!r} is not one of trees"
        )
    dropped = booster.get("weight_drop")
    model = booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]
    param = learner["learner_model_param"]
    targets = max(int(param["num_class"]), int(param.get("num_target", 1)), 1)
    count = len(model["trees"]) if rounds is None else int(model["iteration_indptr"][rounds])
    trees = []
    for index in range(count):
        tree = _tree(model["trees"][index], int(model["tree_info"][index]))
        trees.append(tree if dropped is None else tree.scaled(float(dropped[index])))
    ensemble = Ensemble(
        trees=tuple(trees),
        base=_base(param["base_score"], objective, targets),
        features=int(param["num_feature"]),
        link=LINKS[objective],
        strict=True,
        complement=True,
        missing=missing,
    )
    ensemble.check()
    return ensemble


def objective_of(config: Mapping[str, Any]) -> str:
    """The objective in a parsed `Booster.save_config()`."""
    return str(config["learner"]["objective"]["name"])


def _base(text: object, objective: str, targets: int) -> Array:
    """What the sums begin with: the file has the base score as a prediction, not as a sum."""
    found = json.loads(text) if isinstance(text, str) else text
    scores = np.atleast_1d(np.asarray(found, dtype=np.float32))
    link = LINKS[objective]
    with np.errstate(divide="ignore", invalid="ignore"):
        if link is Link.SIGMOID:
            scores = -np.log(1 / scores - 1)
        elif link is Link.EXP:
            scores = np.log(scores)
    if not np.isfinite(scores).all() or len(scores) not in (1, targets):
        raise ModelFileError(f"base_score must be {targets} finite numbers, got {str(found)[:40]}")
    whole: Array = np.broadcast_to(scores.astype(np.float64), (targets,)).copy()
    return whole


def _tree(stored: Mapping[str, Any], target: int) -> Tree:
    if int(stored["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise UnsupportedModelError(
            "XGBoost's trees with several outputs a leaf (multi_output_tree) have no ONNX form here"
        )
    left = np.asarray(stored["left_children"], dtype=np.int64)
    right = np.asarray(stored["right_children"], dtype=np.int64)
    feature = np.asarray(stored["split_indices"], dtype=np.int64)
    threshold = np.asarray(stored["split_conditions"], dtype=np.float32).astype(np.float64)
    default_left = np.asarray(stored["default_left"]).astype(bool)
    leaf = left == -1
    kinds = np.asarray(stored.get("split_type", np.zeros(len(left))), dtype=np.int64)
    if not len({len(left), len(right), len(feature), len(threshold), len(default_left)}) == 1:
        raise ModelFileError("a tree has lists of different lengths")
    if (kinds[~leaf] == _CATEGORICAL).any():
        sets = _category_sets(stored)
        forks = {
            index: _fork(
                index,
                feature,
                threshold,
                children=(left, right),
                default_left=default_left,
                sets=sets,
            )
            for index in np.flatnonzero(~leaf).tolist()
        }
        leaves = {index: float(threshold[index]) for index in np.flatnonzero(leaf).tolist()}
        return grow(forks, leaves, root=0, target=target)
    return Tree(
        feature=np.where(leaf, LEAF, feature),
        threshold=np.where(leaf, 0.0, threshold),
        yes=np.where(leaf, 0, left),
        no=np.where(leaf, 0, right),
        missing_yes=default_left & ~leaf,
        value=np.where(leaf, threshold, 0.0)[:, None],
        target=target,
    )


def _category_sets(stored: Mapping[str, Any]) -> dict[int, list[int]]:
    parts = zip(
        stored["categories_nodes"],
        stored["categories_segments"],
        stored["categories_sizes"],
        strict=True,
    )
    return {
        int(node): [int(item) for item in stored["categories"][begin : begin + size]]
        for node, begin, size in parts
    }


def _fork(
    node: int,
    feature: Array,
    threshold: Array,
    *,
    children: tuple[Array, Array],
    default_left: Array,
    sets: Mapping[int, list[int]],
) -> Fork:
    left, right = int(children[0][node]), int(children[1][node])
    points: list[tuple[float, int]] = []
    if node in sets:
        for first, last in runs(sets[node]):
            points += [(float(first), left), (float(last + 1), right)]
        otherwise = left
    else:
        points, otherwise = [(float(threshold[node]), left)], right
    return Fork(
        feature=int(feature[node]),
        points=tuple(points),
        otherwise=otherwise,
        missing=left if default_left[node] else right,
    )
