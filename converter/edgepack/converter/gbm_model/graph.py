"""One ensemble as ONNX nodes: the trees, the link, and a classifier's label.

The trees are a TreeEnsembleRegressor whatever the task: it gives the plain sums, and what follows
is written as the library computes it. (The sigmoid of onnxruntime is off by 1e-7, which is much
for a probability of 1e-6.)
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from onnx import TensorProto, numpy_helper

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.gbm_model.ensemble import LEAF, Ensemble, Link, Tree
from edgepack.converter.gbm_model.lookups import add_lookups
from edgepack.converter.gbm_model.part import ML_DOMAIN, Part
from edgepack.converter.gbm_model.thresholds import float32_thresholds
from edgepack.runtime.tensors import Array

_KINDS: Final = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}


def add_value(part: Part, ensemble: Ensemble, x: str, dtype: Any, *, output: str) -> None:  # noqa: ANN401
    """Add a regressor's answers, (N, T).

    Args:
        part: Gets the nodes.
        ensemble: The model.
        x: Tensor of the inputs, (N, F).
        dtype: Its type, float32 or float64; the answers have the same.
        output: Name for them.

    Raises:
        UnsupportedModelError: The link is a classifier's.
    """
    sums, inner = _sums(part, ensemble, x, np.dtype(dtype))
    if ensemble.link is Link.NONE:
        value = sums
    elif ensemble.link is Link.EXP:
        value = part.add("Exp", sums)
    elif ensemble.link is Link.SIGMOID:
        value = _sigmoid(part, _sloped(part, ensemble, sums, inner), inner)
    elif ensemble.link is Link.STEP:
        value = _step(part, sums, inner)
    elif ensemble.link is Link.SIGNED_SQUARE:
        value = part.add("Mul", sums, part.add("Abs", sums))
    elif ensemble.link is Link.LOG1P_EXP:
        value = part.add("Log", _one_plus_exp(part, sums, inner))
    else:
        raise UnsupportedModelError(f"a regressor cannot end in {ensemble.link.value}")
    part.add("Cast", value, output=output, to=_KINDS[np.dtype(dtype)])


def add_classes(
    part: Part,
    ensemble: Ensemble,
    x: str,
    dtype: Any,  # noqa: ANN401
    *,
    classes: Array,
    label: str,
    probabilities: str,
    exact_sums: str | None = None,
) -> None:
    """Add a classifier's label (N,) and probabilities (N, C).

    Args:
        part: Gets the nodes.
        ensemble: The model.
        x: Tensor of the inputs, (N, F).
        dtype: Its type, float32 or float64; the probabilities have the same.
        classes: (C,), text or whole numbers.
        label: Name for the labels.
        probabilities: Name for the probabilities.
        exact_sums: Tensor of the leaves' sums, float64 (N, T), where they were added up before;
            the operator adds in float32.

    Raises:
        UnsupportedModelError: The number of classes is not that of the sums.
    """
    if len(classes) != max(ensemble.targets, 2):
        raise UnsupportedModelError(
            f"the model has {len(classes)} classes and {ensemble.targets} outputs"
        )
    if exact_sums is None:
        sums, inner = _sums(part, ensemble, x, np.dtype(dtype))
    else:
        sums, inner = exact_sums, np.dtype(np.float64)
    if ensemble.targets == 1:
        best, found = _two_classes(part, ensemble, sums, inner)
    else:
        if ensemble.link is Link.SOFTMAX:
            found = part.add("Softmax", sums, axis=1)
        elif ensemble.link is Link.SIGMOID:
            found = _sigmoid(part, _sloped(part, ensemble, sums, inner), inner)
        else:
            raise UnsupportedModelError(f"a classifier cannot end in {ensemble.link.value}")
        best = part.add("ArgMax", sums, axis=1, keepdims=0)
    part.add("Cast", found, output=probabilities, to=_KINDS[np.dtype(dtype)])
    if classes.dtype.kind not in "OU":
        classes = classes.astype(np.int64)
    part.add("Gather", part.constant(classes), best, output=label, axis=0)


def add_sums(part: Part, ensemble: Ensemble, x: str, dtype: Any, *, output: str) -> None:  # noqa: ANN401
    """Add the sums of the leaves, (N, T), before any link.

    Args:
        part: Gets the nodes.
        ensemble: The model.
        x: Tensor of the inputs, (N, F).
        dtype: Its type, float32 or float64; the sums have the same.
        output: Name for them.
    """
    sums, _ = _sums(part, ensemble, x, np.dtype(dtype))
    part.add("Cast", sums, output=output, to=_KINDS[np.dtype(dtype)])


def _two_classes(part: Part, ensemble: Ensemble, sums: str, dtype: Any) -> tuple[str, str]:  # noqa: ANN401
    """Which of two classes is the likelier one, (N,), and both probabilities, (N, 2)."""
    if ensemble.link not in (Link.SIGMOID, Link.STEP):
        raise UnsupportedModelError(f"a classifier cannot end in {ensemble.link.value}")
    step = ensemble.link is Link.STEP
    sums = _sloped(part, ensemble, sums, dtype)
    second = (_step if step else _sigmoid)(part, sums, dtype)
    tested, border = sums, ensemble.border
    if ensemble.complement:
        first = part.add("Sub", part.constant(np.ones(1, dtype)), second)
        tested, border = second, 0.5
    else:
        first = _sigmoid(part, part.add("Neg", sums), dtype)
    is_second = part.add("Greater", tested, part.constant(np.array([border], dtype)))
    column = part.add("Cast", is_second, to=TensorProto.INT64)
    best = part.add("Reshape", column, part.constant(np.array([-1], dtype=np.int64)))
    return best, part.add("Concat", first, second, axis=1)


def _sloped(part: Part, ensemble: Ensemble, sums: str, dtype: Any) -> str:  # noqa: ANN401
    if ensemble.slope == 1.0:
        return sums
    return part.add("Mul", sums, part.constant(np.array([ensemble.slope], dtype)))


def _sigmoid(part: Part, sums: str, dtype: Any) -> str:  # noqa: ANN401
    one = part.constant(np.ones(1, dtype))
    return part.add("Div", one, _one_plus_exp(part, part.add("Neg", sums), dtype))


def _one_plus_exp(part: Part, sums: str, dtype: Any) -> str:  # noqa: ANN401
    return part.add("Add", part.add("Exp", sums), part.constant(np.ones(1, dtype)))


def _step(part: Part, sums: str, dtype: Any) -> str:  # noqa: ANN401
    above = part.add("Greater", sums, part.constant(np.zeros(1, dtype)))
    return part.add("Cast", above, to=_KINDS[dtype])


def _sums(part: Part, ensemble: Ensemble, x: str, dtype: Any) -> tuple[str, Any]:  # noqa: ANN401
    """The sums of the leaves, (N, T), and their type: float64 only where the library's is."""
    inner = np.dtype(np.float64 if ensemble.float64 and dtype == np.float64 else np.float32)
    if inner != dtype:
        x = part.add("Cast", x, to=_KINDS[inner])
    if ensemble.missing is not None:
        mark = part.add("Equal", x, part.constant(np.array([ensemble.missing], inner)))
        x = part.add("Where", mark, part.constant(np.array([np.nan], inner)), x)
    if ensemble.lookups is not None:
        x = add_lookups(part, ensemble.lookups, x)
    attributes = _attributes(ensemble, float64=inner == np.float64)
    sums = part.add("TreeEnsembleRegressor", x, domain=ML_DOMAIN, **attributes)
    # The operator gives float32 whatever it takes.
    return (part.add("Cast", sums, to=_KINDS[inner]) if inner == np.float64 else sums), inner


def _attributes(ensemble: Ensemble, *, float64: bool) -> dict[str, Any]:
    """The trees as attributes of a TreeEnsembleRegressor; unreached nodes are left out."""
    trees = [reached(tree) for tree in ensemble.trees] or [_nothing()]
    sizes = [len(tree.feature) for tree in trees]
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    leaf = feature == LEAF
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    inner_mode = "BRANCH_LT" if ensemble.strict else "BRANCH_LEQ"
    if not ensemble.strict and not float64:
        threshold[~leaf] = float32_thresholds(threshold[~leaf])
    weights, owner, targets = _weights(trees)
    numbers = {
        "nodes_values": threshold,
        "target_weights": weights,
        "base_values": ensemble.base,
    }
    return {
        "aggregate_function": "SUM",
        "n_targets": ensemble.targets,
        "nodes_treeids": tree_ids.tolist(),
        "nodes_nodeids": node_ids.tolist(),
        "nodes_featureids": np.where(leaf, 0, feature).tolist(),
        "nodes_modes": ["LEAF" if item else inner_mode for item in leaf.tolist()],
        "nodes_truenodeids": np.concatenate([tree.yes for tree in trees]).tolist(),
        "nodes_falsenodeids": np.concatenate([tree.no for tree in trees]).tolist(),
        "nodes_missing_value_tracks_true": np.concatenate([tree.missing_yes for tree in trees])
        .astype(np.int64)
        .tolist(),
        "target_treeids": tree_ids[owner].tolist(),
        "target_nodeids": node_ids[owner].tolist(),
        "target_ids": targets.tolist(),
        **_numbers(numbers, float64=float64),
    }


def _numbers(numbers: dict[str, Array], *, float64: bool) -> dict[str, Any]:
    if float64:
        return {
            f"{name}_as_tensor": numpy_helper.from_array(values, name)
            for name, values in numbers.items()
        }
    return {name: values.astype(np.float32).tolist() for name, values in numbers.items()}


def _weights(trees: Sequence[Tree]) -> tuple[Array, Array, Array]:
    """Weights of leaves, the node that each is of, and the sum that it is added to."""
    weights, owners, targets = [], [], []
    begin = 0
    for tree in trees:
        leaves = np.flatnonzero(tree.feature == LEAF)
        width = tree.value.shape[1]
        weights.append(tree.value[leaves].ravel())
        owners.append(np.repeat(leaves, width) + begin)
        targets.append(np.tile(np.arange(width) + tree.target, len(leaves)))
        begin += len(tree.feature)
    return np.concatenate(weights), np.concatenate(owners), np.concatenate(targets)


def reached(tree: Tree) -> Tree:
    """The tree without nodes that nothing leads to, which some libraries keep."""
    reached = np.zeros(len(tree.feature), dtype=bool)
    level = np.zeros(1, dtype=np.int64)
    while len(level):
        reached[level] = True
        level = level[tree.feature[level] != LEAF]
        level = np.unique(np.concatenate([tree.yes[level], tree.no[level]]))
    if reached.all():
        return tree
    place = np.cumsum(reached) - 1
    leaf = tree.feature[reached] == LEAF
    return Tree(
        feature=tree.feature[reached],
        threshold=tree.threshold[reached],
        yes=np.where(leaf, 0, place[tree.yes[reached]]),
        no=np.where(leaf, 0, place[tree.no[reached]]),
        missing_yes=tree.missing_yes[reached],
        value=tree.value[reached],
        target=tree.target,
    )


def _nothing() -> Tree:
    """A tree for a model without trees: one leaf that adds nothing."""
    zero = np.zeros(1, dtype=np.int64)
    return Tree(
        feature=np.array([LEAF]),
        threshold=np.zeros(1),
        yes=zero,
        no=zero,
        missing_yes=np.zeros(1, dtype=bool),
        value=np.zeros((1, 1)),
        target=0,
    )
