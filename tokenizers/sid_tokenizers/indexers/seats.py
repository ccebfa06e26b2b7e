"""Places in the leaves of a tree: which come next, and which branches have one left.

Items take places one after another. What was published keeps its own, so that counting goes on after it.
"""

from collections.abc import Iterable

import numpy as np

from sid_tokenizers.indexers.paths import Path
from sid_tokenizers.indexers.tree import Rows, Tree

ENDLESS = 2**31 - 1


class Seats:
    """Places in leaves that have at most `capacity` each.

    following: of each leaf, the place that is given next. room: of each node, how many are left below it.
    """

    def __init__(self, tree: Tree, capacity: int) -> None:
        """Start with every place free."""
        self.tree, self.capacity = tree, capacity
        self.parents: list[int] = tree.parents.tolist()
        self.following = [0] * len(self.parents)
        self.room = [capacity if leaf else 0 for leaf in tree.is_leaf()]
        for node in range(len(self.parents) - 1, 0, -1):
            self.room[self.parents[node]] += self.room[node]

    def keep(self, taken: Iterable[Path]) -> None:
        """Count places as given that IDs of this tree have; an ID that is a leaf's whole path fills it.

        Raises KeyError with the path of an ID of another tree.
        """
        paths, ends = self.tree.paths(), self.tree.is_leaf()
        leaves = {path: node for node, path in enumerate(paths) if ends[node]}
        for path in taken:
            if path in leaves:
                self._give(leaves[path], self.capacity)
            elif path[:-1] in leaves:
                self._give(leaves[path[:-1]], path[-1] + 1)
            else:
                raise KeyError(path)

    def take(self, leaf: int) -> int:
        """Give the next place of a leaf that has one."""
        place = self.following[leaf]
        self._give(leaf, place + 1)
        return place

    def open_children(self, node: int) -> Rows:
        """Give the children of a node that have room."""
        children = self.tree.children(node)
        open_ones: Rows = children.start + np.flatnonzero(self.room[children])
        return open_ones

    def _give(self, leaf: int, following: int) -> None:
        """Let a leaf go on at a place, unless it is beyond it already."""
        fewer = min(following, self.capacity) - min(self.following[leaf], self.capacity)
        if fewer <= 0:
            return
        self.following[leaf] = following
        node = leaf
        while node >= 0:
            self.room[node] -= fewer
            node = self.parents[node]
