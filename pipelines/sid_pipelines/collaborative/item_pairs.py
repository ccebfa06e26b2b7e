"""Pairs of items that train events give: Swing, co-occurrence, and a target with its likest predecessor.

Each function gives (items, others, scores) block by block, items in ascending order, at most `top` others of
an item, best first, ties to the lower; a pair's other direction may be missing where it is not among the top.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sid_pipelines.collaborative.cooccurrence import shared_rows
from sid_pipelines.collaborative.events import TrainEvents

Measure = Literal["count", "cosine", "jaccard", "pmi"]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Scored = tuple[Rows, Rows, Scores]
BLOCK = 1 << 24  # entries of a dense product


def cooccurrence_pairs(events: TrainEvents, *, top: int, window: int, measure: Measure) -> Iterator[Scored]:
    """Pair items that users share, by how many users do.

    window: events apart at most, 0 for any. measure: of c users with both of n_i, n_j and N in all:
    "count" c, "cosine" c / sqrt(n_i n_j), "jaccard" c / (n_i + n_j - c), "pmi" log(c N / (n_i n_j)), of
    which only pairs above 0 are kept.
    """
    users_of = _users_of(events)
    for start, counts in shared_rows(events, window):
        items, others = _places(counts, start)
        scores = _measured(counts.data, users_of[items], users_of[others], events.n_users, measure)
        kept = scores > 0
        yield best(items[kept], others[kept], scores[kept], top)


def u2i_pairs(events: TrainEvents, *, top: int, history: int) -> Iterator[Scored]:
    """Pair each event's item with the likest of the user's last `history` items before it (OneRec).

    Likeness is the cosine of the items' columns of users, over all train events; ties go to the later
    event. The score is how many events gave the pair. OneRec takes the likeness from its own
    collaborative model, so this is ours.
    """
    n, users, items = events.n_items, events.users, events.items.astype(np.int64)
    users_of = _users_of(events).astype(np.float64)
    order = np.argsort(items, kind="stable")
    by_item = items[order]
    for start, counts in shared_rows(events, 0):
        first, end = np.searchsorted(by_item, [start, start + counts.shape[0]])
        rows = order[first:end]
        keys = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)) * n + counts.indices
        likest, chosen = np.zeros(len(rows)), np.full(len(rows), -1, dtype=np.int64)
        for back in range(1, history + 1):
            before = np.maximum(rows - back, 0)
            same = (rows >= back) & (users[before] == users[rows]) & (items[before] != items[rows])
            wanted = (items[rows] - start) * n + items[before]
            place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
            found = same & (len(keys) > 0)
            found[found] = keys[place[found]] == wanted[found]
            likeness = np.zeros(len(rows))
            likeness[found] = counts.data[place[found]] / np.sqrt(users_of[items[before[found]]])
            nearer = likeness > likest
            likest[nearer], chosen[nearer] = likeness[nearer], items[before[nearer]]
        there = chosen >= 0
        pairs, times = np.unique(items[rows[there]] * n + chosen[there], return_counts=True)
        yield best(pairs // n, pairs % n, times.astype(np.float64), top)


def swing_pairs(
    events: TrainEvents,
    *,
    top: int,
    alpha: float,
    max_users_per_item: int,
    max_items_per_user: int,
    seed: int,
) -> Iterator[Scored]:
    """Pair items that many users share who have little else in common (Swing).

    The sum over pairs of different users u, v that have both items, of w_u w_v / (alpha + |I_u and I_v|),
    with w = 1 / sqrt(|I_u|). Source: Yang et al. 2020 (Large Scale Product Graph Construction for
    Recommendation in E-commerce), alpha and w as commonly told. An item is judged by at most
    max_users_per_item of its users, and a user counts for at most max_items_per_user items, both drawn by
    the seed (0: all); the sum over a draw is scaled up to all pairs of users.
    """
    draw = np.random.default_rng(seed)
    seen = events.matrix().astype(np.float64)
    seen.data[:] = 1.0
    weight = 1 / np.sqrt(np.maximum(np.diff(seen.indptr), 1))
    seen = _drawn(seen, max_items_per_user, draw)
    by_item = _sorted_csr(seen.T)
    n_users = np.diff(by_item.indptr)
    by_item = _drawn(by_item, max_users_per_item, draw)
    parts: list[Scored] = []
    for item in range(events.n_items):
        users = by_item.indices[by_item.indptr[item] : by_item.indptr[item + 1]]
        if len(users) < 2:
            continue
        others, scores = _swing(seen[users], weight[users], alpha)
        real, taken = int(n_users[item]), len(users)
        scores *= real * (real - 1) / (taken * (taken - 1))
        kept = others != item
        parts.append(best(np.full(kept.sum(), item), others[kept], scores[kept], top))
        if len(parts) == 4096:
            yield _joined(parts)
            parts = []
    if parts:
        yield _joined(parts)


def best(items: Rows, others: Rows, scores: Scores, top: int) -> Scored:
    """Keep each item's `top` others: best first, ties to the lower.

    >>> best(np.array([0, 0, 0]), np.array([7, 8, 9]), np.array([1.0, 2.0, 1.0]), 2)[1]
    array([8, 7])
    """
    order = np.lexsort((others, -scores, items))
    items, others, scores = items[order], others[order], scores[order]
    starts = np.flatnonzero(np.diff(items, prepend=-1))
    nth = np.arange(len(items)) - np.repeat(starts, np.diff(starts, append=len(items)))
    kept = nth < top
    return items[kept], others[kept], scores[kept]


def _swing(rows: Any, weight: Scores, alpha: float) -> tuple[Rows, Scores]:
    """Give the items that two or more of some users have, and the sum over their pairs of users.

    rows: (users, n_items) CSR of 0 and 1.
    """
    together = (rows @ rows.T).toarray()
    pair = np.outer(weight, weight) / (alpha + together)
    np.fill_diagonal(pair, 0.0)
    columns = rows.tocsc()
    others = np.flatnonzero(np.diff(columns.indptr) > 1)
    scores = np.empty(len(others))
    step = max(BLOCK // len(weight), 1)
    for start in range(0, len(others), step):
        shared = columns[:, others[start : start + step]].T.tocsr()
        sums = np.asarray(shared.multiply(shared @ pair).sum(axis=1)).ravel()
        scores[start : start + step] = sums / 2
    return others, scores


def _drawn(matrix: Any, most: int, draw: np.random.Generator) -> Any:
    """Keep at most so many entries of each row of a CSR matrix of 0 and 1, drawn; all for 0."""
    sizes = np.diff(matrix.indptr)
    if not most or sizes.max(initial=0) <= most:
        return matrix
    owners = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((draw.random(len(owners)), owners))
    nth = np.arange(len(owners)) - matrix.indptr[:-1][owners]
    kept = np.sort(order[nth < most])
    from scipy.sparse import csr_matrix

    entries = (matrix.data[kept], (owners[kept], matrix.indices[kept]))
    return _sorted_csr(csr_matrix(entries, shape=matrix.shape))


def _sorted_csr(matrix: Any) -> Any:
    found = matrix.tocsr()
    found.sort_indices()
    return found


def _measured(c: Scores, left: Rows, right: Rows, users: int, measure: Measure) -> Scores:
    match measure:
        case "cosine":
            return np.asarray(c / np.sqrt(left.astype(np.float64) * right))
        case "jaccard":
            return np.asarray(c / (left + right - c))
        case "pmi":
            return np.asarray(np.log(c * users / (left.astype(np.float64) * right)))
    return c


def _users_of(events: TrainEvents) -> Rows:
    """Give how many users had each item: (n_items,)."""
    return np.asarray(np.diff(events.matrix().tocsc().indptr), dtype=np.int64)


def _places(counts: Any, start: int) -> tuple[Rows, Rows]:
    items = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)) + start
    return items.astype(np.int64), counts.indices.astype(np.int64)


def _joined(parts: list[Scored]) -> Scored:
    items, others, scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return items, others, scores
