"""A tree of spectral clusters of items that share users: an ID is the way down to a leaf, and a last token.

Unlike kmeans_tree.py, no vector is read: likeness is to be had by the same users.
"""

from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.indexer import Indexer
from sid_tokenizers.indexers.by_item import ByItem
from sid_tokenizers.indexers.paths import Path, counted, padded, unpadded
from sid_tokenizers.indexers.tree import Labels, Tree, grow
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

LAST = ("sequential", "random", "item")


class Spectral(Indexer):
    """Collaborative indexing: spectral clusters within clusters, by train events, then a token of the item's.

    n_clusters: clusters a node is split into (the paper: 10 or 20). token_size: items at most in a leaf, and
    how many tokens there are for clusters (200 or 500). Nodes are counted breadth first, and node t has the
    token `<CI t>` with t modulo token_size: tokens are shared, but never by siblings.
    last: the token `<n>` that ends an ID.
      sequential: 0, 1, ... within a leaf, in order of item ids.
      random: drawn from token_size numbers within a leaf.
      item: `<0n>`, n being the item's own in the catalogue (CID+IID).
    seed: of where eigenvectors start, which moves few items, and of what is drawn.

    "How to Index Item IDs" in the form of OpenP5 [C]: every pair of a user's train events adds 1 to the graph
    in both directions; SpectralClustering with cluster_qr. Different [D]: the graph is never made
    (spectral_clusters.py), so that long histories cost no more than short ones; parts of it that are not
    connected are told apart first, small ones packed together; a group that is not split is cut into even
    blocks. As there, an item without train events has a last token alone; so has every item that fit has not
    seen, whatever its events are now. Where users show no communities, clusters are uneven and IDs long.

    Learns `parents_` (nodes,) int32 (tree.py) and the leaf of each item that has events.
    """

    name: ClassVar[str] = "spectral"
    paper: ClassVar[str] = "How to Index Item IDs (CID, and CID+IID with last = item) [C; clusters D]"
    traits: ClassVar[Traits] = Traits(fixed_length=False, unique=True, inputs=("events",))

    parents_: Labels
    items_: ByItem

    def __init__(
        self, *, n_clusters: int = 20, token_size: int = 200, last: str = "sequential", seed: int = 0
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.n_clusters = n_clusters
        self.token_size = token_size
        self.last = last
        self.seed = seed

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, n_clusters=2, token_size=2, seed=0)
        if self.n_clusters > self.token_size:
            raise DataError(
                f"n_clusters: expected at most token_size, {self.token_size}, siblings share none; "
                f"got {self.n_clusters}"
            )
        if self.last not in LAST:
            raise DataError(f"last: expected one of {', '.join(LAST)}, got {self.last!r}")

    def _fit(self, X: Vectors, about: Catalogue) -> None:
        from sid_tokenizers.indexers.spectral_clusters import divide, histories

        assert about.events is not None
        there = np.unique(about.events.items)
        seen = histories(about.events.of(there, len(about)), len(there))
        split = partial(divide, seen, k=self.n_clusters, most=self.token_size, seed=self.seed)
        tree, leaves = grow(len(there), split)
        self.parents_ = tree.parents
        self.items_ = ByItem.of([about.item_ids[row] for row in there], leaves)

    def _index(self, X: Vectors, about: Catalogue, taken: Codes) -> Codes:
        paths = self._paths(about)
        if self.last == "sequential":
            return padded(counted(paths, first=self._first, taken=taken))
        if self.last == "item":
            start = max(self._first, int(taken.max(initial=-1)) + 1)
            return padded([(*path, start + row) for row, path in enumerate(paths)])
        return padded(self._drawn(paths, taken))

    @property
    def _first(self) -> int:
        """Give the code of the first last token."""
        return self.token_size

    def _paths(self, about: Catalogue) -> list[Path]:
        """Give the tokens of the clusters that each item is in; none where fit has not seen it."""
        tree = Tree(self.parents_)
        paths = tree.paths((np.arange(len(self.parents_)) - 1) % self.token_size)
        return [paths[leaf] if leaf >= 0 else () for leaf in self.items_.get(about.item_ids).tolist()]

    def _drawn(self, paths: list[Path], taken: Codes) -> list[Path]:
        """End each path with a number drawn among those free in its leaf; count on where none is."""
        used: dict[Path, set[int]] = {path: set() for path in paths}
        for one in unpadded(taken):
            used.setdefault(one[:-1], set()).add(one[-1])
        free: dict[Path, list[int]] = {}
        for path, gone in used.items():
            drawn = np.random.default_rng([self.seed, *path]).permutation(self.token_size) + self._first
            free[path] = [number for number in drawn.tolist()[::-1] if number not in gone]
        ids = []
        for path in paths:
            beyond = max(self._first + self.token_size, max(used[path], default=0) + 1)
            number = free[path].pop() if free[path] else beyond
            used[path].add(number)
            ids.append((*path, number))
        return ids

    def token(self, code: int) -> str:
        """Give `<CI3>` for a cluster; `<3>` for a last token, or `<03>` where it is the item's own."""
        if code < self.token_size:
            return f"<CI{code}>"
        return self._last_token(code)

    def _last_token(self, code: int) -> str:
        own = "0" if self.last == "item" else ""
        return f"<{own}{code - self._first}>"

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"parents": self.parents_, "items": self.items_.hashes, "leaves": self.items_.values}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.parents_ = Tree(arrays["parents"]).parents
        self.items_ = ByItem(arrays["items"], arrays["leaves"])
