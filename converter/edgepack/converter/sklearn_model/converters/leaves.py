"""Finds the leaf of each tree that a row falls into.

onnxruntime adds leaf values up in float32. Its TreeEnsembleRegressor is therefore asked for the
leaf's number only, which float32 holds exactly; values are looked up and added in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.writer import FLOAT64, ML, Value, Writer
from edgepack.runtime.tensors import Array

_MOST_LEAVES = 1 << 24  # float32 counts to here without gaps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """The nodes of one tree.

    Attributes:
        left, right: Number of the child, int64 (M,); of leaves the same as their own.
        feature: Column that is compared, int64 (M,).
        threshold: float64 (M,): left where value <= threshold.
        missing_left: Where NaN goes left, bool (M,).
        leaf: Where a node has no children, bool (M,).
        values: Of each node, float64 (M, K).
    """

    left: Array
    right: Array
    feature: Array
    threshold: Array
    missing_left: Array
    leaf: Array
    values: Array


def of_sklearn(tree: Any, values: Array) -> Tree:  # noqa: ANN401
    """A `sklearn.tree._tree.Tree`, with values (M, K) of its nodes."""
    missing = getattr(tree, "missing_go_to_left", None)
    leaf = tree.children_left < 0
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        feature=np.where(leaf, 0, tree.feature),
        threshold=tree.threshold,
        missing_left=np.zeros(len(leaf), bool) if missing is None else missing.astype(bool),
        leaf=leaf,
        values=np.asarray(values, dtype=np.float64).reshape(len(leaf), -1),
    )


def leaf_values(writer: Writer, x: Value, trees: Sequence[Tree]) -> Value:
    """The values of the leaves that rows fall into, floats (N, T, K).

    Args:
        writer: Of the graph.
        x: Floats (N, D), of the dtype in which scikit-learn compares: float32, or float64.
        trees: T trees.
    """
    counts = [int(tree.leaf.sum()) for tree in trees]
    if max(counts) > _MOST_LEAVES:
        raise UnsupportedModelError(f"a tree has {max(counts)} leaves, at most {_MOST_LEAVES} do")
    numbers = writer.op(
        "TreeEnsembleRegressor",
        x,
        domain=ML,
        dtype=np.float32,
        n_targets=len(trees),
        **_attributes(trees, double=x.dtype == FLOAT64),
    ).reshape(-1, len(trees))
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    places = numbers.cast(np.int64) + starts
    table = np.concatenate([tree.values[tree.leaf] for tree in trees])
    return writer.const(table).take(places)


def _attributes(trees: Sequence[Tree], *, double: bool) -> dict[str, Any]:
    sizes = [len(tree.leaf) for tree in trees]
    numbers = np.concatenate([np.arange(size) for size in sizes])
    owners = np.repeat(np.arange(len(trees)), sizes)
    leaf = np.concatenate([tree.leaf for tree in trees])
    thresholds = np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees]))
    weights = np.concatenate([np.arange(tree.leaf.sum()) for tree in trees]).astype(np.float64)
    found: dict[str, Any] = {
        "nodes_treeids": owners.tolist(),
        "nodes_nodeids": numbers.tolist(),
        "nodes_featureids": np.concatenate([tree.feature for tree in trees]).astype(int).tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": _children(trees, "left", leaf),
        "nodes_falsenodeids": _children(trees, "right", leaf),
        "nodes_missing_value_tracks_true": np.concatenate([tree.missing_left for tree in trees])
        .astype(int)
        .tolist(),
        "target_treeids": owners[leaf].tolist(),
        "target_nodeids": numbers[leaf].tolist(),
        "target_ids": owners[leaf].tolist(),
        "post_transform": "NONE",
        "aggregate_function": "SUM",
    }
    if double:
        found["nodes_values_as_tensor"] = numpy_helper.from_array(thresholds, "thresholds")
        found["target_weights_as_tensor"] = numpy_helper.from_array(weights, "numbers")
    else:
        found["nodes_values"] = rounded_down(thresholds).tolist()
        found["target_weights"] = weights.tolist()
    return found


def rounded_down(thresholds: Array) -> Array:
    """The largest float32 that is not above each: float32 values compare with it just the same."""
    with np.errstate(over="ignore"):
        narrow = thresholds.astype(np.float32)
    above = narrow.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(narrow, np.float32(-np.inf)), narrow)


def _children(trees: Sequence[Tree], side: str, leaf: Array) -> list[int]:
    found = np.concatenate([getattr(tree, side) for tree in trees]).astype(int)
    kept: list[int] = np.where(leaf, 0, found).tolist()
    return kept
