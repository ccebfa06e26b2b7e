"""How good vectors are, on data whose answers are known: next items, co-consumption, labels.

quality.py judges codes against the vectors they were made of; this file judges the vectors themselves.
Everything is exact and counted in blocks of rows. Ties go to the lower item, so equal vectors in another
order of users give equal numbers. An item whose vector is zero has no direction and is never recommended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors
from sid_tokenizers.products import product

BLOCK = 1 << 22  # scores that are held at a time
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """Items of many users, one after another. edges: (users + 1,) int64; items: (edges[-1],) int."""

    edges: Rows
    items: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """Give the number of users."""
        return len(self.edges) - 1

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Lists":
        """Put lists one after another.

        >>> Lists.of([[3, 1], [], [2]]).edges
        array([0, 2, 2, 3])
        """
        edges = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return cls(edges, np.array([item for own in lists for item in own], dtype=np.int32))

    @classmethod
    def by_user(cls, users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], n_users: int) -> "Lists":
        """Take events that stand user by user; a user without any has an empty list."""
        return cls(np.searchsorted(users, np.arange(n_users + 1)), items)

    def __getitem__(self, users: slice) -> "Lists":
        """Give neighbouring users' lists."""
        edges = self.edges[users.start : users.stop + 1]
        return Lists(edges - edges[0], self.items[edges[0] : edges[-1]])

    @property
    def sizes(self) -> Rows:
        """Give the length of each list."""
        return np.diff(self.edges)

    @property
    def owners(self) -> Rows:
        """Give each item's user."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def last(self, k: int) -> "Lists":
        """Give the last k items of each list; all of them for 0.

        >>> Lists.of([[3, 1, 4], [5]]).last(2).items
        array([1, 4, 5], dtype=int32)
        """
        if not k:
            return self
        from_end = self.edges[1:][self.owners] - np.arange(len(self.items))
        sizes = np.minimum(self.sizes, k)
        return Lists(np.concatenate([[0], np.cumsum(sizes)]), self.items[from_end <= k])


def recall_at(
    vectors: npt.ArrayLike, histories: Lists, targets: Lists, *, top: int = 20, last: int = 10
) -> float:
    """Give the share of held-out targets among the `top` items nearest to their user's history.

    vectors: (n, d) of all items. histories, targets: of the same users in the same order. A user is the
    mean of the unit vectors of the last `last` items of the history (1: the last item alone, 0: all),
    items are scored by the cosine to it, and items of the history are left out. A target without a
    vector, or that stands in the history, is missed. NaN where there is no target.
    """
    unit = unit_rows(vectors)
    there = np.asarray(unit.any(axis=1))

    def scores(users: slice) -> Vectors:
        recent = histories[users].last(last)
        queries = np.zeros((len(recent), unit.shape[1]), dtype=np.float32)
        np.add.at(queries, recent.owners, unit[recent.items])
        found = product(unit_rows(queries), unit.T)
        found[:, ~there] = -np.inf
        return found

    return _recall(scores, len(unit), histories, targets, top)


def popularity_recall_at(
    popularity: npt.ArrayLike, histories: Lists, targets: Lists, *, top: int = 20
) -> float:
    """Give what `recall_at` gives where all users are recommended the most popular items.

    popularity: (n,) train events of each item.
    """
    counts = np.asarray(popularity, dtype=np.float64)

    def scores(users: slice) -> npt.NDArray[np.float64]:
        return np.tile(counts, (users.stop - users.start, 1))

    return _recall(scores, len(counts), histories, targets, top)


def cooccurrence_recall_at(vectors: npt.ArrayLike, pairs: npt.ArrayLike, *, top: int = 20) -> float:
    """Give the share of pairs (i, j) with j among the `top` items nearest to i by cosine.

    pairs: (m, 2) item numbers, such as `pairs_of` gives of held-out events. By chance it is about
    top / (n - 1). NaN where there are no pairs.
    """
    unit = unit_rows(vectors)
    there = np.asarray(unit.any(axis=1))
    wanted = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    items, own = np.unique(wanted[:, 0], return_inverse=True)
    order = np.argsort(own, kind="stable")
    targets = Lists(np.searchsorted(own[order], np.arange(len(items) + 1)), wanted[order, 1].astype(np.int32))
    selves = Lists(np.arange(len(items) + 1), items.astype(np.int32))

    def scores(rows: slice) -> Vectors:
        found = product(unit[items[rows]], unit.T)
        found[:, ~there] = -np.inf
        found[~there[items[rows]]] = -np.inf
        return found

    return _recall(scores, len(unit), selves, targets, top)


def pairs_of(lists: Lists, *, longest: int = 200) -> Rows:
    """Give (m, 2): all (i, j), both ways and each once, of different items that stand in one list.

    longest: of a longer list the first so many items count, because pairs grow with the square.

    >>> pairs_of(Lists.of([[3, 1], [1, 3]])).tolist()
    [[1, 3], [3, 1]]
    """
    found = []
    for user in np.flatnonzero(lists.sizes > 1):
        own = lists.items[lists.edges[user] : lists.edges[user + 1]][:longest]
        left, right = np.meshgrid(own, own, indexing="ij")
        found.append(np.stack([left.ravel(), right.ravel()], axis=1)[left.ravel() != right.ravel()])
    if not found:
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(np.concatenate(found), axis=0).astype(np.int64)


def label_agreement(
    vectors: npt.ArrayLike, labels: npt.ArrayLike, *, top: int = 10, seed: int = 0
) -> tuple[float, float]:
    """Give the share of nearest neighbours that share a label with their item, and the same by chance.

    vectors: (n, d); labels: (n, labels) bool, several per item where there are several. Items without a
    vector or a label are neither asked nor counted as neighbours. Chance is the same neighbours among
    labels that a seeded shuffle gave to other items. NaN where no two items are left.
    """
    given = np.asarray(labels, dtype=bool)
    unit = unit_rows(vectors)
    rows = np.flatnonzero(unit.any(axis=1) & given.any(axis=1))
    top = min(top, len(rows) - 1)
    if top < 1:
        return float("nan"), float("nan")
    neighbours = nearest(unit[rows], top=top)
    own = given[rows]
    shuffled = own[np.random.default_rng(seed).permutation(len(rows))]
    return _agreement(own, neighbours), _agreement(shuffled, neighbours)


def _agreement(labels: Mask, neighbours: Rows) -> float:
    shared = [
        (labels[neighbours[:, place]] & labels).any(axis=1).mean() for place in range(neighbours.shape[1])
    ]
    return float(np.mean(shared))


def nearest(vectors: npt.ArrayLike, *, top: int) -> Rows:
    """Give the `top` nearest other rows by cosine of every row: (n, top), best first, ties to the lower."""
    unit = unit_rows(vectors)
    found = np.empty((len(unit), top), dtype=np.int64)
    for rows in _slices(len(unit), len(unit)):
        scores = product(unit[rows], unit.T)
        scores[np.arange(len(scores)), np.arange(len(unit))[rows]] = -np.inf
        cut = np.partition(scores, -top, axis=1)[:, -top]
        for place, row in enumerate(scores):
            candidates = np.flatnonzero(row >= cut[place])
            best = np.argsort(-row[candidates], kind="stable")[:top]
            found[rows.start + place] = candidates[best]
    return found


def unit_rows(vectors: npt.ArrayLike) -> Vectors:
    """Give rows of length 1 as float32; a row of zeros stays one. (n, d) -> (n, d)."""
    X = np.asarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))
    return np.asarray(X / np.where(lengths > 0, lengths, 1.0)[:, None], dtype=np.float32)


def _recall(
    scores: Callable[[slice], npt.NDArray[Any]], n: int, histories: Lists, targets: Lists, top: int
) -> float:
    """Rank each target among the items that its user has not seen. scores: users -> (users, n)."""
    if len(histories) != len(targets):
        raise ValueError(f"histories are of {len(histories)} users, targets of {len(targets)}")
    hits = 0
    for users in _slices(len(targets), n):
        wanted, seen = targets[users], histories[users]
        if not len(wanted.items):
            continue
        table = scores(users)
        table[seen.owners, seen.items] = -np.inf
        for owner, target in zip(wanted.owners, wanted.items, strict=True):
            row = table[owner]
            own = row[target]
            before = (row > own).sum() + (row[:target] == own).sum()
            hits += bool(np.isfinite(own)) and int(before) < top
    return hits / len(targets.items) if len(targets.items) else float("nan")


def _slices(rows: int, columns: int) -> list[slice]:
    step = max(BLOCK // max(columns, 1), 1)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
