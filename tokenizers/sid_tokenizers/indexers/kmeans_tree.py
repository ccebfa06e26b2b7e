"""A tree of k-means clusters: an ID is the way down to a leaf, and the item's place in it.

Unlike residual codes (rq_kmeans.py), a cluster is split by what its own rows are like, and one may lie
deeper than another. Unlike spectral.py, likeness is that of vectors.
"""

from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors, content_order
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.clusters import cluster_means, nearest
from sid_tokenizers.indexer import Indexer
from sid_tokenizers.indexers.by_item import ByItem
from sid_tokenizers.indexers.capped import capped_clusters
from sid_tokenizers.indexers.paths import Path, padded, unpadded
from sid_tokenizers.indexers.seats import ENDLESS, Seats
from sid_tokenizers.indexers.tree import Labels, Rows, Tree, even_blocks, grow
from sid_tokenizers.kmeans import kmeans
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

POSITIONS = ("shared", "aware")


class KMeansTree(Indexer):
    """Hierarchical k-means: clusters within clusters, then a place within the last.

    branching: clusters a node is split into (NCI's k). leaf: items at most in a leaf (NCI's c); has no effect
    with `depth`. depth: length of every ID, so that depth - 1 clusterings are followed by a place; None, as
    in NCI, goes on splitting while a cluster has more than `leaf` items.
    constrained: no cluster at level l has more than branching ** (depth - l) items, so that every digit is
    below `branching`; asks for `depth`.
    positions: "shared", digit 3 is one token wherever it stands; "aware", each place in the ID has tokens
    of its own. seed, n_init, max_iter, tol: of each k-means.

    Two papers' trees, [C] for both:
      NCI and DSI: branching 10, leaf 100 (its scripts: 30 and 30). A leaf with one item adds no place to the
        path. Digits of clusters and of places share their tokens; no node has both, so that no ID begins
        another. "aware" is NCI's two-dimensional ID [M]; Pradeep et al. found that it pays little at scale.
      ColaRec: branching 32, depth 3, constrained, on vectors of behaviour (set the recipe's `vectors`). The
        place is always there. It holds branching ** depth items. Its digits start at 1, and so do the
        token strings and docids here; codes start at 0.
    Different [D]: k-means is ours, not scikit-learn's (kmeans.py; constrained: capped.py, greedy where
    k-means-constrained is exact). Where k-means does not split a group, as where all vectors are equal, it is
    cut into even blocks; NCI's code recurses forever. Places follow the order of item ids.

    Items of the fit are in their leaf whatever their vector is now; others go down to the nearest centroids.
    Where a leaf is full, or holds one item whose ID is its path, an item goes to the nearest branch that has
    room, so that what was published stays; when none has, it is refused, and the catalogue is retokenized.

    Learns `parents_` (nodes,) int32 (tree.py), `centroids_` (nodes, d) float32, and the leaf of each item.
    """

    name: ClassVar[str] = "kmeans-tree"
    paper: ClassVar[str] = "NCI and DSI (hierarchical k-means), ColaRec (constrained) [C; k-means D]"
    traits: ClassVar[Traits] = Traits(fixed_length=False, unique=True)

    parents_: Labels
    centroids_: Vectors
    items_: ByItem

    def __init__(
        self,
        *,
        branching: int = 10,
        leaf: int = 100,
        depth: int | None = None,
        constrained: bool = False,
        positions: str = "shared",
        seed: int = 0,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.branching = branching
        self.leaf = leaf
        self.depth = depth
        self.constrained = constrained
        self.positions = positions
        self.seed = seed
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, branching=2, leaf=1, seed=0, n_init=1, max_iter=1, tol=0)
        if self.depth is not None and (type(self.depth) is not int or self.depth < 2):
            raise DataError(f"depth: expected a whole number from 2 on, or none, got {self.depth!r}")
        if self.constrained and self.depth is None:
            raise DataError("constrained: it bounds clusters by their depth; set depth, as to ColaRec's 3")
        if self.positions not in POSITIONS:
            raise DataError(f"positions: expected one of {', '.join(POSITIONS)}, got {self.positions!r}")
        if self.positions == "aware" and self._capacity == ENDLESS:
            raise DataError("positions: 'aware' asks for bounded digits; with depth, set constrained too")

    @property
    def _capacity(self) -> int:
        """Give how many places a leaf has."""
        if self.depth is None:
            return self.leaf
        return self.branching if self.constrained else ENDLESS

    @property
    def _width(self) -> int:
        """Give how many digits there are."""
        return max(self.branching, self._capacity)

    def _fit(self, X: Vectors, about: Catalogue) -> None:
        if self.constrained and self.depth is not None and len(X) > self.branching**self.depth:
            raise DataError(
                f"{self.name}: {len(X)} items to fit on, but branching {self.branching} and depth "
                f"{self.depth} hold {self.branching**self.depth}; raise one of them"
            )
        order = content_order(X)
        rows = X[order]
        tree, leaves = grow(len(rows), partial(self._split, rows))
        self.parents_ = tree.parents
        self.centroids_ = _centroids(rows, tree, leaves)
        self.items_ = ByItem.of([about.item_ids[row] for row in order], leaves)

    def _split(self, X: Vectors, rows: Rows, depth: int) -> Labels | None:
        """Give the rows of a group their clusters, or None where it is a leaf."""
        n = len(rows)
        if n <= self.leaf if self.depth is None else depth == self.depth - 1:
            return None
        k = min(self.branching, n)
        learn = partial(
            kmeans, k=k, seed=self.seed, n_init=self.n_init, max_iter=self.max_iter, tol=self.tol, exchanges=0
        )
        if self.depth is not None and self.constrained:
            most = self.branching ** (self.depth - 1 - depth)
            return capped_clusters(X[rows], learn(X[rows]), most, max_iter=self.max_iter, tol=self.tol)
        labels, _ = nearest(X[rows], learn(X[rows]))
        if self.depth is None and (labels == labels[0]).all():
            return even_blocks(n, self.leaf, self.branching)
        return labels

    def _index(self, X: Vectors, about: Catalogue, taken: Codes) -> Codes:
        tree = Tree(self.parents_)
        seats = Seats(tree, self._capacity)
        published = [self._digits(path) for path in unpadded(taken)]
        try:
            seats.keep(published)
        except KeyError as error:
            raise DataError(f"{self.name}: taken: {error.args[0]} is no ID of this tree") from None
        fresh = np.array(seats.following) == 0
        leaves = self.items_.get(about.item_ids)
        new = leaves < 0
        leaves[new] = self._nearest_leaves(tree, X[new])
        places = np.empty(len(X), dtype=np.int64)
        for row in np.argsort(new, kind="stable"):  # items of the fit come first: their leaves are theirs
            if not seats.room[leaves[row]]:
                leaves[row] = self._nearest_open(seats, X[row], about.item_ids[row])
            places[row] = seats.take(leaves[row])
        bare = self._bare(leaves, fresh)
        above = tree.paths()
        return padded(
            [
                self._codes(above[leaf] if alone else (*above[leaf], place))
                for leaf, place, alone in zip(leaves.tolist(), places.tolist(), bare.tolist(), strict=True)
            ]
        )

    def _bare(self, leaves: Rows, fresh: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Say of each item whether its leaf's path is its ID: it is alone there, and always was."""
        if self.depth is not None or len(fresh) == 1:
            return np.zeros(len(leaves), dtype=bool)
        alone: npt.NDArray[np.bool_] = (np.bincount(leaves, minlength=len(fresh)) == 1) & fresh
        return alone[leaves]

    def _nearest_leaves(self, tree: Tree, X: Vectors) -> Rows:
        """Give the leaf that each row comes to by the nearest of a node's children: (n, d) -> (n,)."""
        nodes = np.zeros(len(X), dtype=np.int64)
        inner = ~tree.is_leaf()
        while len(moving := np.flatnonzero(inner[nodes])):
            for node in np.unique(nodes[moving]):
                rows = moving[nodes[moving] == node]
                children = tree.children(node)
                nodes[rows] = children.start + nearest(X[rows], self.centroids_[children])[0]
        return nodes

    def _nearest_open(self, seats: Seats, x: npt.NDArray[np.float32], item_id: str) -> int:
        """Give the leaf that a row comes to by the nearest of a node's children that have room."""
        if not seats.room[0]:
            raise DataError(
                f"{self.name}: item {item_id!r}: expected a free place in some leaf, got a full tree; "
                "fit on more items, or retokenize with more branching or larger leaves"
            )
        node = 0
        while len(children := seats.open_children(node)):
            node = int(children[nearest(x[None], self.centroids_[children])[0][0]])
        return node

    def _codes(self, digits: Path) -> Path:
        if self.positions == "shared":
            return digits
        return tuple(place * self._width + digit for place, digit in enumerate(digits))

    def _digits(self, codes: Path) -> Path:
        return codes if self.positions == "shared" else tuple(code % self._width for code in codes)

    def _shown(self, digit: int) -> int:
        """Give a digit as its paper writes it: ColaRec's start at 1."""
        return digit + (self.depth is not None)

    def token(self, code: int) -> str:
        """Give `<digit>`, or `<place_digit>` where tokens know their place."""
        if self.positions == "shared":
            return f"<{self._shown(code)}>"
        return f"<{code // self._width}_{self._shown(code % self._width)}>"

    def docids(self, ids: Codes, about: Catalogue) -> list[str]:
        """Give the naive string of each ID, its digits in decimal, such as "3-12-5"."""
        return ["-".join(str(self._shown(digit)) for digit in self._digits(path)) for path in unpadded(ids)]

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "parents": self.parents_,
            "centroids": self.centroids_,
            "items": self.items_.hashes,
            "leaves": self.items_.values,
        }

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.parents_, self.centroids_ = Tree(arrays["parents"]).parents, arrays["centroids"]
        self.items_ = ByItem(arrays["items"], arrays["leaves"])


def _centroids(X: Vectors, tree: Tree, leaves: Labels) -> Vectors:
    """Give the mean of the rows below each node: (nodes, d) float32."""
    means, counts = cluster_means(X, leaves, len(tree.parents), None)
    sums = means.astype(np.float64) * counts[:, None]
    for node in range(len(tree.parents) - 1, 0, -1):
        sums[tree.parents[node]] += sums[node]
        counts[tree.parents[node]] += counts[node]
    return (sums / counts[:, None]).astype(np.float32)
