"""Trees whose splits one comparison cannot make: sets of categories, and zeros that are missing.

Such a split is a function of one column that changes sides at a few points. It becomes a chain of
comparisons with these, from the left, whose branches meet again in the two subtrees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.converter.errors import ModelFileError
from edgepack.converter.gbm_model.ensemble import LEAF, Tree
from edgepack.runtime.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Which way a value of one column goes.

    Attributes:
        feature: The column.
        points: Thresholds with the next node for values up to there, ascending.
        otherwise: The next node for values beyond the last.
        missing: The next node for NaN.
    """

    feature: int
    points: tuple[tuple[float, int], ...]
    otherwise: int
    missing: int


def runs(categories: Sequence[int]) -> list[tuple[int, int]]:
    """Categories as runs of neighbours, first and last of each.

    >>> runs([7, 0, 1, 2])
    [(0, 2), (7, 7)]
    """
    found: list[tuple[int, int]] = []
    for category in sorted(set(categories)):
        if found and found[-1][1] == category - 1:
            found[-1] = (found[-1][0], category)
        else:
            found.append((category, category))
    return found


def grow(forks: Mapping[int, Fork], leaves: Mapping[int, float], *, root: int, target: int) -> Tree:
    """Make a tree of forks and leaves, which are named by any numbers.

    Raises:
        ModelFileError: A fork leads to a node that there is not, or back.
    """
    rows: list[tuple[int, float, int, int, bool, float]] = []
    place: dict[int, int] = {}
    todo = [root]
    while todo:
        name = todo.pop()
        if name in place:
            raise ModelFileError("a tree leads to one of its nodes twice")
        place[name] = len(rows)
        fork = forks.get(name)
        if fork is not None:
            rows += _chain(fork, len(rows))
            ends = {node for _, node in fork.points} | {fork.otherwise}
            todo += sorted(ends, reverse=True)
        elif name in leaves:
            rows.append((LEAF, 0.0, 0, 0, False, leaves[name]))
        else:
            raise ModelFileError("a tree leads to a node that it does not have")
    return _tree(rows, place, target)


def _chain(fork: Fork, begin: int) -> list[tuple[int, float, int, int, bool, float]]:
    """A fork's comparisons; a subtree's name n stands as ~n until its place is known."""
    found = []
    missing_left = False
    for index, (threshold, node) in enumerate(fork.points):
        last = index == len(fork.points) - 1
        following = ~fork.otherwise if last else begin + index + 1
        missing_yes = node == fork.missing and not missing_left
        missing_left = missing_left or missing_yes
        found.append((fork.feature, threshold, ~node, following, missing_yes, 0.0))
    return found


def _tree(
    rows: list[tuple[int, float, int, int, bool, float]], place: Mapping[int, int], target: int
) -> Tree:
    def found(child: int) -> int:
        return child if child >= 0 else place[~child]

    feature, threshold, yes, no, missing_yes, value = zip(*rows, strict=True)
    return Tree(
        feature=np.array(feature, dtype=np.int64),
        threshold=np.array(threshold, dtype=np.float64),
        yes=_int64([found(child) for child in yes]),
        no=_int64([found(child) for child in no]),
        missing_yes=np.array(missing_yes, dtype=bool),
        value=np.array(value, dtype=np.float64).reshape(-1, 1),
        target=target,
    )


def _int64(values: list[int]) -> Array:
    return np.array(values, dtype=np.int64)
