"""The nodes of an ai.onnx.ml tree ensemble, as paths from the root to each leaf."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgepack.converter.tflite_writer.graph import Step

_LEAF = "LEAF"
# The opposite question, where only the opposite is one that is asked below.
_SWAPPED = {"BRANCH_GT": "BRANCH_LEQ", "BRANCH_GTE": "BRANCH_LT", "BRANCH_NEQ": "BRANCH_EQ"}
QUESTIONS = {"BRANCH_LEQ": "LESS_EQUAL", "BRANCH_LT": "LESS", "BRANCH_EQ": "EQUAL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an inner node asks.

    Attributes:
        feature: Column of the input.
        threshold: float32.
        mode: One of `QUESTIONS`.
        missing: The answer for NaN.
    """

    feature: int
    threshold: float
    mode: str
    missing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What a leaf adds, and the answers that lead to it.

    Attributes:
        path: Place of the question in `Tree.questions` → the answer.
        weights: Class or target → what is added to it.
    """

    path: Mapping[int, bool]
    weights: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One tree."""

    questions: tuple[Question, ...]
    leaves: tuple[Leaf, ...]


def read_trees(step: Step, kind: str) -> list[Tree]:
    """Read an ensemble's attributes.

    Args:
        step: The node.
        kind: "class" or "target": what its weights' attributes are called by.

    Raises:
        UnsupportedModelError: Its thresholds are float64, or it asks a question of a newer kind.
    """
    modes = [item.decode() for item in step.attribute("nodes_modes", [])]
    thresholds = step.attribute("nodes_values")
    if thresholds is None or step.attribute(f"{kind}_weights") is None:
        raise step.refuse("with float64 thresholds")
    unknown = {_SWAPPED.get(mode, mode) for mode in modes} - {_LEAF, *QUESTIONS}
    if unknown:
        raise step.refuse(f"with {sorted(unknown)[0]}")
    names = list(zip(step.attribute("nodes_treeids"), step.attribute("nodes_nodeids"), strict=True))
    tracks = step.attribute("nodes_missing_value_tracks_true") or [0] * len(names)
    children = {
        name: ((name[0], yes), (name[0], no))
        for name, yes, no, mode in zip(
            names,
            step.attribute("nodes_truenodeids"),
            step.attribute("nodes_falsenodeids"),
            modes,
            strict=True,
        )
        if mode != _LEAF
    }
    questions = {
        name: Question(feature=feature, threshold=threshold, mode=mode, missing=bool(track))
        for name, feature, threshold, mode, track in zip(
            names, step.attribute("nodes_featureids"), thresholds, modes, tracks, strict=True
        )
        if mode != _LEAF
    }
    weights: dict[tuple[int, int], dict[int, float]] = {}
    for tree, node, target, weight in zip(
        *(step.attribute(f"{kind}_{part}") for part in ("treeids", "nodeids", "ids", "weights")),
        strict=True,
    ):
        held = weights.setdefault((tree, node), {})
        held[target] = held.get(target, 0.0) + weight
    inner = {child for pair in children.values() for child in pair}
    roots = [name for name in names if name not in inner]
    return [_tree(root, children, questions, weights) for root in roots]


def _tree(
    root: tuple[int, int],
    children: Mapping[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]],
    questions: Mapping[tuple[int, int], Question],
    weights: Mapping[tuple[int, int], Mapping[int, float]],
) -> Tree:
    asked: list[Question] = []
    leaves: list[Leaf] = []
    waiting: list[tuple[tuple[int, int], dict[int, bool]]] = [(root, {})]
    while waiting:
        name, path = waiting.pop()
        if name not in children:
            leaves.append(Leaf(path=path, weights=weights.get(name, {})))
            continue
        question = questions[name]
        yes, no = children[name]
        if question.mode in _SWAPPED:
            yes, no = no, yes
            question = Question(
                feature=question.feature,
                threshold=question.threshold,
                mode=_SWAPPED[question.mode],
                # NaN differs from every number: no to the opposite of "differs".
                missing=question.mode != "BRANCH_NEQ" and not question.missing,
            )
        place = len(asked)
        asked.append(question)
        waiting.append((no, {**path, place: False}))
        waiting.append((yes, {**path, place: True}))
    return Tree(questions=tuple(asked), leaves=tuple(leaves))
