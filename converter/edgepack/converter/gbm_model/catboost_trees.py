"""CatBoost's trees, from the flatbuffer that a .cbm file and a pickle hold.

CatBoost casts to float32 and goes right where `value > border`. A symmetric tree asks the same
question on a whole level: its leaves are numbered by the answers, the first one being the lowest
bit. The field numbers are those of the library's published schema (libs/model/flatbuffers).
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.gbm_model.catboost_categories import (
    CategoryColumns,
    CategoryReader,
    FloatFeature,
)
from edgepack.converter.gbm_model.ensemble import LEAF, Ensemble, Link, Tree
from edgepack.converter.gbm_model.flat_table import FlatTable
from edgepack.runtime.tensors import Array

MAGIC: Final = b"CBM1"
_HEADER_BYTES: Final = 8
_TREES, _INFO = 1, 2
_DIMENSION, _SPLITS, _SIZES, _STARTS = 0, 1, 2, 3
_CATEGORIES, _FLOATS, _ONE_HOTS, _CTRS = 4, 5, 6, 7
_LEAVES, _STEPS, _LEAF_OF_NODE, _TEXTS, _ESTIMATED = 8, 10, 11, 12, 13
_SCALE, _BIAS, _BIASES, _EMBEDDINGS = 14, 15, 16, 18
_FLAT_INDEX, _BORDERS, _NAME, _NAN_TREATMENT = 2, 3, 4, 5
_INDEX, _CATEGORY_FLAT_INDEX, _CATEGORY_NAME = 0, 1, 2
_NAN_IS_LARGE: Final = 2
_CLASSIFIERS: Final[Mapping[str, Link]] = {
    "Logloss": Link.SIGMOID,
    "CrossEntropy": Link.SIGMOID,
    "Focal": Link.SIGMOID,
    "MultiClass": Link.SOFTMAX,
    "MultiClassOneVsAll": Link.SIGMOID,
}
_EXPONENTS: Final = ("Poisson", "Tweedie")
_REFUSED: Final = ("RMSEWithUncertainty", "MultiLogloss", "MultiCrossEntropy", "Cox", "SurvivalAft")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatboostModel:
    """What is in a model.

    Attributes:
        ensemble: The trees.
        loss: "Logloss".
        is_classifier: Whether the loss is a classifier's.
        feature_names: As the file has them, or empty.
        categories: The columns that hold categories.
        unseen: How many entries of its tables of categories no category leads to, and how many
            there are.
    """

    ensemble: Ensemble
    loss: str
    is_classifier: bool
    feature_names: tuple[str, ...]
    categories: tuple[int, ...] = ()
    unseen: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Questions:
    """All that trees may ask: column, border, and the answer of NaN."""

    feature: Array
    border: Array
    nan_yes: Array


def read_catboost(
    data: bytes, categories: Mapping[int, tuple[str, ...]] = MappingProxyType({})
) -> CatboostModel:
    """Read a model.

    Args:
        data: As the library stores it.
        categories: Column → texts of categories, in the order of the numbers that the trees get
            for them: the file has only hashes. Of other columns every category is unknown.

    Raises:
        UnsupportedModelError: It has no exact form here: texts, embeddings, a loss whose answers
            are not one number or one class, tables of categories that are too large.
        ModelFileError: It is damaged.
    """
    try:
        return _read(data, categories)
    except (struct.error, ValueError, IndexError, KeyError, TypeError) as exc:
        raise ModelFileError(f"the CatBoost model is damaged: {str(exc)[:80]}") from exc


def _read(data: bytes, categories: Mapping[int, tuple[str, ...]]) -> CatboostModel:
    if data[:4] != MAGIC:
        raise ModelFileError("the CatBoost model is damaged: it does not begin with CBM1")
    end = _HEADER_BYTES + int.from_bytes(data[4:_HEADER_BYTES], "little")
    core = FlatTable.root(data[_HEADER_BYTES:end])
    trees = core.table(_TREES)
    if trees is None:
        raise ModelFileError("the CatBoost model has no trees")
    for slot, kind in (
        (_TEXTS, "text features"),
        (_EMBEDDINGS, "embeddings"),
        (_ESTIMATED, "estimated features"),
    ):
        if trees.length(slot):
            raise UnsupportedModelError(
                f"CatBoost's own {kind} have no ONNX form here: encode such columns in a "
                "scikit-learn pipeline before the model (OrdinalEncoder, OneHotEncoder)"
            )
    info = {item.text(0): item.text(1) for item in core.tables(_INFO)}
    loss = _loss(json.loads(info.get("params", "{}")))
    if loss in _REFUSED or not loss:
        raise UnsupportedModelError(f"CatBoost's loss {loss[:40]!r} has no ONNX form here")
    floats = trees.tables(_FLOATS)
    names = {item.int32(_FLAT_INDEX, -1): item.text(_NAME) for item in floats}
    own = trees.tables(_CATEGORIES)
    places = {item.int32(_INDEX, -1): item.int32(_CATEGORY_FLAT_INDEX, -1) for item in own}
    names |= {item.int32(_CATEGORY_FLAT_INDEX, -1): item.text(_CATEGORY_NAME) for item in own}
    width = max(trees.int32(_DIMENSION), 1)
    features = max(names, default=-1) + 1
    found = None
    if trees.length(_ONE_HOTS) or trees.length(_CTRS):
        numbers = [
            FloatFeature(
                column=item.int32(_FLAT_INDEX, -1),
                nan_above=item.int8(_NAN_TREATMENT) == _NAN_IS_LARGE,
            )
            for item in floats
        ]
        reader = CategoryReader(places, numbers, categories)
        found = reader.read(trees.tables(_ONE_HOTS), trees.tables(_CTRS), data[end:])
    threshold = info.get("binclass_probability_threshold")
    ensemble = Ensemble(
        trees=_all_trees(trees, _questions(floats, features, found), width),
        base=_bias(trees, width),
        features=features,
        link=_CLASSIFIERS.get(loss, Link.EXP if loss in _EXPONENTS else Link.NONE),
        border=_logit(float(threshold)) if threshold else 0.0,
        lookups=None if found is None else found.lookups,
    )
    ensemble.check()
    return CatboostModel(
        ensemble=ensemble,
        loss=loss,
        is_classifier=loss in _CLASSIFIERS,
        feature_names=tuple(names[i] for i in sorted(names)) if all(names.values()) else (),
        categories=tuple(sorted(places.values())),
        unseen=(0, 0) if found is None else found.unseen,
    )


def _loss(params: Mapping[str, Any]) -> str:
    return str(params.get("loss_function", {}).get("type", ""))


def _logit(p: float) -> float:
    if not 0 < p < 1:
        raise UnsupportedModelError(f"the probability threshold must be between 0 and 1, got {p:g}")
    return float(np.log(p / (1 - p)))


def _bias(trees: FlatTable, width: int) -> Array:
    several = trees.array(_BIASES, np.float64)
    if len(several):
        return several.copy()
    return np.full(width, trees.float64(_BIAS, 0.0))


def _questions(floats: list[FlatTable], features: int, made: CategoryColumns | None) -> _Questions:
    feature, border, nan_yes = [], [], []
    for item in floats:
        borders = item.array(_BORDERS, np.float32)
        border.append(borders.astype(np.float64))
        feature.append(np.full(len(borders), item.int32(_FLAT_INDEX, -1), dtype=np.int64))
        large = item.int8(_NAN_TREATMENT) == _NAN_IS_LARGE
        nan_yes.append(np.full(len(borders), not large))
    for place, borders in enumerate(() if made is None else made.borders):
        border.append(borders.astype(np.float64))
        feature.append(np.full(len(borders), features + place, dtype=np.int64))
        nan_yes.append(np.zeros(len(borders), dtype=bool))
    return _Questions(
        feature=np.concatenate(feature) if feature else np.zeros(0, np.int64),
        border=np.concatenate(border) if border else np.zeros(0),
        nan_yes=np.concatenate(nan_yes) if nan_yes else np.zeros(0, bool),
    )


def _all_trees(trees: FlatTable, asked: _Questions, width: int) -> tuple[Tree, ...]:
    splits = trees.array(_SPLITS, np.int32).astype(np.int64)
    sizes = trees.array(_SIZES, np.int32).tolist()
    starts = trees.array(_STARTS, np.int32).tolist()
    values = trees.array(_LEAVES, np.float64) * trees.float64(_SCALE, 1.0)
    steps = trees.array(_STEPS, np.uint32)
    if len(splits) and not 0 <= int(splits.min()) <= int(splits.max()) < len(asked.border):
        raise ModelFileError("a CatBoost tree asks a question that the model does not have")
    found = []
    if len(steps):
        leaf_of_node = trees.array(_LEAF_OF_NODE, np.uint32).astype(np.int64)
        for start, size in zip(starts, sizes, strict=True):
            own = slice(start, start + size)
            found.append(
                _by_steps(splits[own], steps[own], leaf_of_node[own], asked, (values, width))
            )
        return tuple(found)
    begin = 0
    for start, size in zip(starts, sizes, strict=True):
        end = begin + (width << size)
        leaves = values[begin:end].reshape(1 << size, width)
        found.append(_symmetric(splits[start : start + size], leaves, asked))
        begin = end
    return tuple(found)


def _symmetric(splits: Array, leaves: Array, asked: _Questions) -> Tree:
    """A tree that asks one question a level: the last one first, for it is the highest bit."""
    depth = len(splits)
    inner = (1 << depth) - 1
    nodes = np.arange(inner)
    level = np.floor(np.log2(nodes + 1)).astype(np.int64)
    question = splits[depth - 1 - level] if depth else np.zeros(0, np.int64)
    count = inner + len(leaves)
    value = np.zeros((count, leaves.shape[1]))
    value[inner:] = leaves
    return Tree(
        feature=_padded(asked.feature[question], count, LEAF),
        threshold=_padded(asked.border[question], count, 0.0),
        yes=_padded(2 * nodes + 1, count, 0),
        no=_padded(2 * nodes + 2, count, 0),
        missing_yes=_padded(asked.nan_yes[question], count, False),
        value=value,
        target=0,
    )


def _padded(values: Array, count: int, filler: float) -> Array:
    return np.concatenate([values, np.full(count - len(values), filler, dtype=values.dtype)])


def _by_steps(
    splits: Array, steps: Array, leaf_of_node: Array, asked: _Questions, leaves: tuple[Array, int]
) -> Tree:
    """A tree of any shape: each node says how many nodes further its two children are."""
    values, width = leaves
    nodes = np.arange(len(splits))
    to_left = (steps & 0xFFFF).astype(np.int64)
    to_right = (steps >> 16).astype(np.int64)
    leaf = (to_left == 0) & (to_right == 0)
    # Of a node with one child only, the other way ends in the node's own value.
    half = np.flatnonzero((to_left == 0) != (to_right == 0))
    own_leaf = np.zeros(len(splits), dtype=np.int64)
    own_leaf[half] = len(splits) + np.arange(len(half))
    count = len(splits) + len(half)
    value = np.zeros((count, width))
    for place, node in [*_pairs(np.flatnonzero(leaf)), *zip(own_leaf[half], half, strict=True)]:
        begin = int(leaf_of_node[node])
        value[place] = values[begin : begin + width]
    return Tree(
        feature=_padded(np.where(leaf, LEAF, asked.feature[splits]), count, LEAF),
        threshold=_padded(np.where(leaf, 0.0, asked.border[splits]), count, 0.0),
        yes=_padded(_next(nodes, to_left, own_leaf, leaf), count, 0),
        no=_padded(_next(nodes, to_right, own_leaf, leaf), count, 0),
        missing_yes=_padded(asked.nan_yes[splits] & ~leaf, count, False),
        value=value,
        target=0,
    )


def _next(nodes: Array, step: Array, own_leaf: Array, leaf: Array) -> Array:
    return np.where(leaf, 0, np.where(step == 0, own_leaf, nodes + step))


def _pairs(nodes: Array) -> list[tuple[int, int]]:
    return [(int(node), int(node)) for node in nodes]
