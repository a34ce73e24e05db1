"""Decision trees and forests as matrix products.

Each question's answer is 0 or 1. A leaf is reached when all questions on its path are answered
its way: the sum of the answers that must be 1, minus those that must be 0, then is its largest
possible, and never otherwise. So one product with 1, -1 and 0 finds the leaf (whole numbers, which
float32 adds exactly), and a second one adds up what the leaves hold. Thresholds are compared in
float32 as ONNX does.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgepack.converter.tflite_writer.draft import Tensor
from edgepack.converter.tflite_writer.graph import Graph, Step
from edgepack.converter.tflite_writer.operators.elementwise import (
    binary,
    cast,
    is_nan,
    scalar,
    unary,
)
from edgepack.converter.tflite_writer.operators.linear_models import as_float, post_transformed
from edgepack.converter.tflite_writer.operators.matrices import batch_product, fully_connected
from edgepack.converter.tflite_writer.operators.shaping import concatenated, gathered
from edgepack.converter.tflite_writer.operators.tree_nodes import QUESTIONS, Tree, read_trees
from edgepack.converter.tflite_writer.write_operator import Operators
from edgepack.runtime.tensors import Array

_MOST_NUMBERS: Final = 2_000_000  # 8 MB of float32 in the matrix that finds the leaves
_ONE_MATRIX: Final = 16_384  # up to here one matrix for all trees beats one for each


def _ensemble(graph: Graph, step: Step, trees: Sequence[Tree], outputs: int, name: str) -> Tensor:
    """The sum over all trees of what their leaves hold: float32 (N, outputs)."""
    deep = [tree for tree in trees if tree.questions]
    stumps = [tree for tree in trees if not tree.questions]
    if not deep:
        raise step.refuse("whose trees ask nothing")
    asked = max(len(tree.questions) for tree in deep)
    leaves = max(len(tree.leaves) for tree in deep)
    numbers = asked * leaves * len(deep)
    if numbers > _MOST_NUMBERS:
        raise step.refuse(
            f"of this size: {len(trees)} trees of up to {leaves} leaves need {numbers:,} numbers, "
            f"at most {_MOST_NUMBERS:,} are written"
        )
    held = np.zeros((outputs, len(deep), leaves), dtype=np.float32)
    for place, tree in enumerate(deep):
        for index, leaf in enumerate(tree.leaves):
            for target, weight in leaf.weights.items():
                held[target, place, index] = weight
    constant = np.zeros(outputs, dtype=np.float32)
    for tree in stumps:
        for target, weight in tree.leaves[0].weights.items():
            constant[target] += np.float32(weight)
    answers = _answers(graph, step, deep, asked, name)
    if len(deep) * numbers <= _ONE_MATRIX or len(deep) == 1:
        reached = _reached_at_once(graph, answers, deep, (asked, leaves), name)
    else:
        reached = _reached_by_tree(graph, answers, deep, (asked, leaves), name)
    return fully_connected(
        graph, reached, held.reshape(outputs, -1), constant if stumps else None, f"{name}_sum"
    )


def _answers(graph: Graph, step: Step, trees: Sequence[Tree], asked: int, name: str) -> Tensor:
    """0 or 1 for each question of each tree: float32 (N, trees x asked)."""
    size = len(trees) * asked
    features, thresholds = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.float32)
    missing = np.zeros(size, dtype=bool)
    modes: Array = np.full(size, "", dtype="U12")
    for place, tree in enumerate(trees):
        for index, question in enumerate(tree.questions, start=place * asked):
            features[index], thresholds[index] = question.feature, question.threshold
            missing[index], modes[index] = question.missing, question.mode
    values = gathered(graph, as_float(graph, step), features.tolist(), 1, f"{name}_asked")
    bounds = graph.draft.constant(thresholds, f"{name}_thresholds")
    used = sorted(set(modes.tolist()) - {""})
    yes: Tensor | None = None
    for mode in used:
        part = _both(graph, QUESTIONS[mode], [values, bounds], f"{name}_{mode.lower()}")
        if len(used) > 1:
            part = _both(
                graph, "LOGICAL_AND", [part, graph.draft.constant(modes == mode, "mode")], name
            )
        yes = part if yes is None else _both(graph, "LOGICAL_OR", [yes, part], name)
    if yes is None:
        raise step.refuse("whose trees ask nothing")
    if missing.any():
        absent = is_nan(graph, values, f"{name}_absent")
        held = graph.draft.constant(missing, f"{name}_missing")
        absent = _both(graph, "LOGICAL_AND", [absent, held], f"{name}_absent_yes")
        yes = _both(graph, "LOGICAL_OR", [yes, absent], f"{name}_yes")
    return cast(graph, yes, "float32", f"{name}_answers")


def _both(graph: Graph, code: str, operands: Sequence[Tensor], name: str) -> Tensor:
    return binary(graph, code, operands, operands[0].shape, name=name, dtype="bool")


def _paths(tree: Tree, asked: int, leaves: int) -> tuple[Array, Array]:
    """What finds the leaves of a tree: float32 (leaves, asked) and what is added to (leaves,)."""
    matrix = np.zeros((leaves, asked), dtype=np.float32)
    added = np.zeros(leaves, dtype=np.float32)
    for index, leaf in enumerate(tree.leaves):
        for place, answer in leaf.path.items():
            matrix[index, place] = 1.0 if answer else -1.0
        added[index] = 1.0 - sum(leaf.path.values())
    return matrix, added


def _reached_at_once(
    graph: Graph, answers: Tensor, trees: Sequence[Tree], sizes: tuple[int, int], name: str
) -> Tensor:
    asked, leaves = sizes
    matrix = np.zeros((len(trees) * leaves, len(trees) * asked), dtype=np.float32)
    added = np.zeros(len(trees) * leaves, dtype=np.float32)
    for place, tree in enumerate(trees):
        rows = slice(place * leaves, (place + 1) * leaves)
        columns = slice(place * asked, (place + 1) * asked)
        matrix[rows, columns], added[rows] = _paths(tree, asked, leaves)
    return fully_connected(graph, answers, matrix, added, f"{name}_leaves", relu=True)


def _reached_by_tree(
    graph: Graph, answers: Tensor, trees: Sequence[Tree], sizes: tuple[int, int], name: str
) -> Tensor:
    asked, leaves = sizes
    found = [_paths(tree, asked, leaves) for tree in trees]
    matrix = graph.draft.constant(
        np.stack([paths.T for paths, _ in found])[None], f"{name}_paths"
    )  # (1, trees, asked, leaves)
    added = graph.draft.constant(np.concatenate([extra for _, extra in found]), f"{name}_added")
    rows = answers.shape[0]
    split = graph.reshaped(answers, (rows, len(trees), 1, asked))
    sums = batch_product(graph, [split, matrix], (rows, len(trees), 1, leaves), f"{name}_paths_sum")
    flat = graph.reshaped(sums, (rows, len(trees) * leaves))
    total = binary(graph, "ADD", [flat, added], flat.shape, name=f"{name}_leaves_sum")
    return unary(graph, "RELU", total, f"{name}_leaves")


def _with_base(graph: Graph, step: Step, tensor: Tensor, name: str) -> Tensor:
    base = step.attribute("base_values")
    if not base or not np.any(base):
        return tensor
    constant = graph.draft.constant(np.array(base, dtype=np.float32), f"{name}_base")
    return binary(graph, "ADD", [tensor, constant], tensor.shape, name=f"{name}_based")


def _regressor(graph: Graph, step: Step) -> None:
    trees = read_trees(step, "target")
    name = step.output
    total = _ensemble(graph, step, trees, step.attribute("n_targets", 1), name)
    match step.attribute("aggregate_function", "SUM"):
        case "SUM":
            pass
        case "AVERAGE":
            share = scalar(graph, 1 / len(trees))
            total = binary(graph, "MUL", [total, share], total.shape, name=f"{name}_mean")
        case other:
            raise step.refuse(f"with the aggregate_function {other}")
    total = _with_base(graph, step, total, name)
    graph.put(name, post_transformed(graph, step, total, name))


def _classifier(graph: Graph, step: Step) -> None:
    trees = read_trees(step, "class")
    name = step.outputs[1]
    labels = step.attribute("classlabels_int64s") or step.attribute("classlabels_strings")
    used = {target for tree in trees for leaf in tree.leaves for target in leaf.weights}
    if len(labels) == 2 and len(used) == 1:
        graph.put(name, _binary(graph, step, trees, name))
        return
    total = _ensemble(graph, step, trees, len(labels), name)
    total = _with_base(graph, step, total, name)
    graph.put(name, post_transformed(graph, step, total, name))


def _binary(graph: Graph, step: Step, trees: Sequence[Tree], name: str) -> Tensor:
    """Two columns from the one score that the trees give, as onnxruntime makes them."""
    single = [
        Tree(
            questions=tree.questions,
            leaves=tuple(
                type(leaf)(path=leaf.path, weights=dict.fromkeys([0], sum(leaf.weights.values())))
                for leaf in tree.leaves
            ),
        )
        for tree in trees
    ]
    score = _ensemble(graph, step, single, 1, name)
    base = step.attribute("base_values")
    if base:
        constant = graph.draft.constant(np.array(base[-1:], dtype=np.float32), f"{name}_base")
        score = binary(graph, "ADD", [score, constant], score.shape, name=f"{name}_based")
    positive = all(w >= 0 for tree in trees for leaf in tree.leaves for w in leaf.weights.values())
    if positive:
        other = binary(graph, "SUB", [scalar(graph, 1.0), score], score.shape, name=f"{name}_other")
        return concatenated(graph, [other, score], 1, name)
    other = unary(graph, "NEG", score, f"{name}_other")
    both = concatenated(graph, [other, score], 1, f"{name}_scores")
    if step.attribute("post_transform", "NONE") == "LOGISTIC":
        return unary(graph, "LOGISTIC", both, name)
    return both


OPERATORS: Operators = {
    "ai.onnx.ml.TreeEnsembleClassifier": _classifier,
    "ai.onnx.ml.TreeEnsembleRegressor": _regressor,
}
