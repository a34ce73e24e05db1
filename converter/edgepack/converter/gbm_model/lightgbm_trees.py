"""LightGBM's trees, from the text that is its model format.

LightGBM compares float64 and goes left where `value <= threshold`. A feature's missing type says
what NaN is: none (0 then), zero (and zero is missing too) or NaN, which goes the default way. A
split on categories goes left for those of its set; all other numbers and NaN go right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.gbm_model.ensemble import LEAF, Ensemble, Link, Tree
from edgepack.converter.gbm_model.grow import Fork, grow, runs
from edgepack.runtime.tensors import Array

_LINKS: Final[Mapping[str, Link]] = {
    **dict.fromkeys(("poisson", "gamma", "tweedie"), Link.EXP),
    **dict.fromkeys(("binary", "cross_entropy", "multiclassova"), Link.SIGMOID),
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile"), Link.NONE),
    **dict.fromkeys(("mape", "lambdarank", "rank_xendcg"), Link.NONE),
    "multiclass": Link.SOFTMAX,
    "cross_entropy_lambda": Link.LOG1P_EXP,
}
_CATEGORICAL_BIT, _DEFAULT_LEFT_BIT = 1, 2
_MISSING_NONE, _MISSING_ZERO, _MISSING_NAN = 0, 1, 2
_ZERO: Final = float(np.float32(1e-35))  # what is as near to 0 counts as 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LightgbmModel:
    """What is in a model text.

    Attributes:
        ensemble: The trees.
        objective: "binary", or "" for one of the user's own.
        feature_names: As the text has them.
    """

    ensemble: Ensemble
    objective: str
    feature_names: tuple[str, ...]


def read_lightgbm(text: str) -> LightgbmModel:
    """Read a model.

    Raises:
        UnsupportedModelError: It has no exact form here: linear leaves, an objective of the
            user's own.
        ModelFileError: It is damaged.
    """
    try:
        return _read(text)
    except (KeyError, ValueError, IndexError, OverflowError) as exc:
        raise ModelFileError(f"the LightGBM model is damaged: {str(exc)[:80]}") from exc


def _read(text: str) -> LightgbmModel:
    if "\nend of trees" not in text:
        raise ModelFileError("the LightGBM model is truncated: it has no end of trees")
    head, *stored = text[: text.index("\nend of trees")].split("\nTree=")
    header = _fields(head)
    words = header.get("objective", "").split()
    objective = words[0] if words else ""
    if objective not in _LINKS:
        raise UnsupportedModelError(
            f"LightGBM's objective {objective[:40]!r} has no ONNX form here"
            if objective
            else "the LightGBM model was trained with an objective of the user's own"
        )
    options = dict(word.partition(":")[::2] for word in words[1:])
    targets = int(header["num_tree_per_iteration"])
    factor = 1 / max(len(stored) // targets, 1) if "average_output" in header else 1.0
    trees = [_tree(_fields(part), index % targets) for index, part in enumerate(stored)]
    if len(trees) != len(header.get("tree_sizes", "").split()):
        raise ModelFileError("the LightGBM model has not as many trees as it says")
    ensemble = Ensemble(
        trees=tuple(trees if factor == 1.0 else [tree.scaled(factor) for tree in trees]),
        base=np.zeros(targets),
        features=int(header["max_feature_idx"]) + 1,
        link=Link.SIGNED_SQUARE if "sqrt" in words[1:] else _LINKS[objective],
        float64=True,
        slope=float(options.get("sigmoid", 1.0)),
    )
    ensemble.check()
    return LightgbmModel(
        ensemble=ensemble,
        objective=objective,
        feature_names=tuple(header["feature_names"].split()),
    )


def _fields(part: str) -> dict[str, str]:
    return {
        key: value for key, _, value in (line.partition("=") for line in part.splitlines()) if key
    }


def _tree(fields: Mapping[str, str], target: int) -> Tree:
    if fields.get("is_linear", "0") != "0":
        raise UnsupportedModelError("LightGBM's trees with linear leaves have no ONNX form here")
    leaves = int(fields["num_leaves"])
    value = _numbers(fields["leaf_value"], leaves, np.float64)
    inner = leaves - 1
    feature = _numbers(fields.get("split_feature", ""), inner, np.int64)
    threshold = _as_if_zero(_numbers(fields.get("threshold", ""), inner, np.float64))
    kinds = _numbers(fields.get("decision_type", ""), inner, np.int64)
    left = _numbers(fields.get("left_child", ""), inner, np.int64)
    right = _numbers(fields.get("right_child", ""), inner, np.int64)
    # A leaf n is called ~n; here the leaves come after the inner nodes.
    left = np.where(left < 0, inner + ~left, left)
    right = np.where(right < 0, inner + ~right, right)
    missing = (kinds >> 2) & 3
    default_left = (kinds & _DEFAULT_LEFT_BIT) > 0
    # A set's number stands where a number's threshold does.
    categorical = (kinds & _CATEGORICAL_BIT) > 0
    if categorical.any() or (missing == _MISSING_ZERO).any():
        sets = _category_sets(fields)
        forks = {}
        for node in range(inner):
            sides = (int(left[node]), int(right[node]))
            if kinds[node] & _CATEGORICAL_BIT:
                chosen = sets[int(threshold[node])]
                fork = _by_category(int(feature[node]), chosen, sides)
            else:
                fork = _by_number(
                    int(feature[node]),
                    float(threshold[node]),
                    int(missing[node]),
                    bool(default_left[node]),
                    sides,
                )
            forks[node] = fork
        named = {inner + index: float(item) for index, item in enumerate(value)}
        return grow(forks, named, root=0, target=target)
    zeros = np.zeros(leaves)
    nowhere = np.zeros(leaves, dtype=np.int64)
    missing_yes = np.where(missing == _MISSING_NAN, default_left, threshold >= 0)
    return Tree(
        feature=np.concatenate([feature, np.full(leaves, LEAF)]),
        threshold=np.concatenate([threshold, zeros]),
        yes=np.concatenate([left, nowhere]),
        no=np.concatenate([right, nowhere]),
        missing_yes=np.concatenate([missing_yes, zeros.astype(bool)]),
        value=np.concatenate([np.zeros(inner), value])[:, None],
        target=target,
    )


def _numbers(text: str, count: int, dtype: type) -> Array:
    found: Array = np.array(text.split(), dtype=dtype)
    if len(found) != count:
        raise ModelFileError(f"a LightGBM tree must have {count} of each number, got {len(found)}")
    return found


def _as_if_zero(threshold: Array) -> Array:
    """Thresholds that send all that counts as 0 the way of 0, as the library does."""
    below = float(np.nextafter(-_ZERO, -np.inf))
    found: Array = np.where((threshold >= -_ZERO) & (threshold < 0), below, threshold)
    return np.where((found >= 0) & (found < _ZERO), _ZERO, found)


def _category_sets(fields: Mapping[str, str]) -> list[list[int]]:
    """The sets of categories, which are stored as bits of 32-bit words."""
    count = int(fields.get("num_cat", "0"))
    if not count:
        return []
    begins = _numbers(fields["cat_boundaries"], count + 1, np.int64)
    words = _numbers(fields["cat_threshold"], int(begins[-1]), np.int64)
    return [
        [
            32 * place + bit
            for place, word in enumerate(words[begin:end].tolist())
            for bit in range(32)
            if word >> bit & 1
        ]
        for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True)
    ]


def _by_category(feature: int, chosen: list[int], sides: tuple[int, int]) -> Fork:
    left, right = sides
    points: list[tuple[float, int]] = []
    for first, last in runs(chosen):
        # A fraction is cut towards 0, so that all above -1 is category 0.
        before = -1.0 if first == 0 else float(np.nextafter(float(first), -np.inf))
        points += [(before, right), (float(np.nextafter(float(last + 1), -np.inf)), left)]
    return Fork(feature=feature, points=tuple(points), otherwise=right, missing=right)


def _by_number(
    feature: int, threshold: float, missing: int, default_left: bool, sides: tuple[int, int]
) -> Fork:
    left, right = sides
    if missing != _MISSING_ZERO:
        goes_left = default_left if missing == _MISSING_NAN else threshold >= 0
        return Fork(
            feature=feature,
            points=((threshold, left),),
            otherwise=right,
            missing=left if goes_left else right,
        )
    below_zero = float(np.nextafter(-_ZERO, -np.inf))
    default = left if default_left else right
    points = [(min(threshold, below_zero), left)]
    if threshold < below_zero:
        points.append((below_zero, right))
    points.append((_ZERO, default))
    if threshold > _ZERO:
        points.append((threshold, left))
    return Fork(feature=feature, points=tuple(points), otherwise=right, missing=default)
