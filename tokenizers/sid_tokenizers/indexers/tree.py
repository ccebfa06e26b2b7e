"""A tree over items, grown breadth first by a rule that splits groups; its leaves hold the items.

A node's number says its place: the root is 0, children stand together after all nodes before them. So the
tree is its array of parents, and an item's leaf is one number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.indexers.paths import Path

Rows = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]
Split = Callable[[Rows, int], Labels | None]  # rows of a group, its depth -> their children, None for a leaf


@dataclass(frozen=True)
class Tree:
    """Nodes in order of breadth. parents: (nodes,) int32, ascending; -1 at the root.

    >>> Tree(np.array([-1, 0, 0, 1, 1])).paths()
    [(), (0,), (1,), (0, 0), (0, 1)]
    """

    parents: Labels

    def __post_init__(self) -> None:
        """Raise DataError where these are not the parents of a tree: a walk down must end."""
        nodes = np.arange(len(self.parents))
        root = self.parents[:1].tolist() == [-1]
        if not root or (self.parents[1:] < 0).any() or (self.parents >= nodes).any():
            raise DataError("tree: parents: expected -1, then for each node one before it; it is damaged")
        if (np.diff(self.parents) < 0).any():
            raise DataError("tree: parents: expected ascending numbers; it is damaged")

    @cached_property
    def starts(self) -> Rows:
        """Give each node's first child, and one number more: children of v are starts[v] to starts[v + 1]."""
        return np.searchsorted(self.parents, np.arange(len(self.parents) + 1)).astype(np.int64)

    def children(self, node: int) -> slice:
        """Give the nodes below one node."""
        return slice(int(self.starts[node]), int(self.starts[node + 1]))

    def is_leaf(self) -> npt.NDArray[np.bool_]:
        """Say of each node whether nothing is below it."""
        leaf: npt.NDArray[np.bool_] = np.diff(self.starts) == 0
        return leaf

    def paths(self, digits: Rows | None = None) -> list[Path]:
        """Give each node's path from the root: its digit and those of the nodes above.

        digits: (nodes,); left out, a node's digit is its place among its siblings.
        """
        if digits is None:
            digits = np.arange(len(self.parents)) - self.starts[np.maximum(self.parents, 0)]
        paths: list[Path] = [()]
        for parent, digit in zip(self.parents[1:].tolist(), digits[1:].tolist(), strict=True):
            paths.append((*paths[parent], digit))
        return paths


def grow(n: int, split: Split) -> tuple[Tree, Labels]:
    """Grow a tree over n rows; give it and the leaf of each row, (n,) int32.

    A group keeps the order of its rows; children come in the order of their labels.
    """
    groups = [np.arange(n)]
    parents, depths = [-1], [0]
    leaves = np.zeros(n, dtype=np.int32)
    for node, rows in enumerate(groups):  # it grows as we go
        labels = split(rows, depths[node])
        if labels is None:
            leaves[rows] = node
            continue
        for label in np.unique(labels):
            groups.append(rows[labels == label])
            parents.append(node)
            depths.append(depths[node] + 1)
    return Tree(np.array(parents, dtype=np.int32)), leaves


def even_blocks(n: int, size: int, most: int) -> Labels:
    """Cut n rows that nothing tells apart into n / size blocks, but not more than `most`: (n,) their numbers.

    >>> even_blocks(5, 2, 10).tolist()
    [0, 0, 1, 1, 2]
    """
    blocks = min(-(-n // size), most)
    return (np.arange(n) * blocks // n).astype(np.int32)
