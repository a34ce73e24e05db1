"""Boosted trees as plain arrays, the same for every library. Values only."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from edgepack.converter.errors import ModelFileError
from edgepack.converter.gbm_model.lookups import Lookups
from edgepack.runtime.tensors import Array

LEAF: Final = -1


class Link(StrEnum):
    """What becomes of the sums of leaves."""

    NONE = "none"
    EXP = "exp"
    SIGMOID = "sigmoid"  # each column for itself
    SOFTMAX = "softmax"
    STEP = "step"  # 1 where the sum is above 0
    SIGNED_SQUARE = "signed square"
    LOG1P_EXP = "log1p exp"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """One tree; node 0 is its root.

    Attributes:
        feature: int64 (M,), column that a node looks at, or LEAF.
        threshold: float64 (M,).
        yes, no: int64 (M,), the next node where the value is at or below the threshold (below,
            if the ensemble is strict), and where it is not. Two nodes may lead to the same one.
        missing_yes: bool (M,), whether NaN goes the way of yes.
        value: float64 (M, W), what a leaf adds to W neighbouring sums.
        target: The first of those sums.
    """

    feature: Array
    threshold: Array
    yes: Array
    no: Array
    missing_yes: Array
    value: Array
    target: int

    def check(self, features: int) -> None:
        """Refuse what would lead a reader outside the tree, or round in it.

        Raises:
            ModelFileError: A node or a column does not exist, or a node leads back.
        """
        nodes = len(self.feature)
        if not nodes or (self.feature < LEAF).any() or (self.feature >= features).any():
            raise ModelFileError("a tree looks at a column that the model does not have")
        inner = self.feature != LEAF
        children = np.concatenate([self.yes[inner], self.no[inner]])
        if (children <= 0).any() or (children >= nodes).any():
            raise ModelFileError("a tree leads to a node that it does not have")
        level, depth = np.zeros(1, dtype=np.int64), 0
        while len(level):
            level = level[inner[level]]
            level = np.unique(np.concatenate([self.yes[level], self.no[level]]))
            depth += 1
            if depth > nodes:
                raise ModelFileError("a tree leads back to one of its own nodes")

    def scaled(self, factor: float) -> "Tree":
        """The same tree with other leaves."""
        return Tree(
            feature=self.feature,
            threshold=self.threshold,
            yes=self.yes,
            no=self.no,
            missing_yes=self.missing_yes,
            value=self.value * factor,
            target=self.target,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """Trees whose leaves are added up.

    Attributes:
        trees: In their order.
        base: float64 (T,), what the sums begin with.
        features: Number of columns.
        link: What becomes of the sums.
        strict: A threshold itself goes the way of no.
        float64: The library compares float64; otherwise it casts to float32 first.
        complement: Of two classes the first has 1 - p, as the library computes it in float32.
        border: Of two classes: the sum above which it is the second.
        slope: What the sums are multiplied by before a sigmoid.
        missing: A number that stands for a missing value as NaN does, or None.
        lookups: Columns that are made of the caller's and stand behind those, or None.
    """

    trees: tuple[Tree, ...]
    base: Array
    features: int
    link: Link
    strict: bool = False
    float64: bool = False
    complement: bool = False
    border: float = 0.0
    slope: float = 1.0
    missing: float | None = None
    lookups: Lookups | None = None

    @property
    def targets(self) -> int:
        """How many sums there are."""
        return len(self.base)

    def check(self) -> None:
        """Refuse trees that lead nowhere.

        Raises:
            ModelFileError: See `Tree.check`; or a leaf adds to a sum that there is not.
        """
        columns = self.features + len(self.lookups.tables if self.lookups else ())
        for tree in self.trees:
            tree.check(columns)
            if not 0 <= tree.target <= self.targets - tree.value.shape[1]:
                raise ModelFileError("a tree adds to an output that the model does not have")
