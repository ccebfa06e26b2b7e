"""Do items that are alike keep SIDs that are alike? Neighbours by cosine or by shared users, against SIDs.

Exact neighbours, not an index's: a measure must not depend on another approximation.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.collisions import group_sizes
from sid_tokenizers.residual import unit_rows

Neighbours = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # (q,) queries, (q, top) their nearest
NONE = -1  # stands where an item has fewer neighbours than asked for
QUERIES = 256  # rows multiplied with all others at once


def cosine_neighbours(
    blocks: Iterable[tuple[int, Vectors]], queries: npt.NDArray[np.int64], wanted: Vectors, *, top: int = 10
) -> Neighbours:
    """Give the nearest rows by cosine of some rows, without themselves; exact.

    blocks: (first row, vectors) over all rows. queries: (q,) row numbers; wanted: (q, d) their vectors.
    """
    import faiss

    scores = np.full((len(queries), top), -np.inf, dtype=np.float32)
    nearest = np.full((len(queries), top), NONE, dtype=np.int64)
    unit = np.ascontiguousarray(unit_rows(wanted))
    for start, block in blocks:
        count = min(top + 1, len(block))
        near, found = faiss.knn(unit, unit_rows(block), count, metric=faiss.METRIC_INNER_PRODUCT)
        found = found + start
        near[found == queries[:, None]] = -np.inf
        scores = np.concatenate([scores, near], axis=1)
        nearest = np.concatenate([nearest, found], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        scores = np.take_along_axis(scores, best, axis=1)
        nearest = np.take_along_axis(nearest, best, axis=1)
    nearest[~np.isfinite(scores)] = NONE
    return queries, nearest


def cooccurrence_neighbours(
    users: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
    n: int,
    queries: npt.NDArray[np.int64],
    *,
    top: int = 10,
) -> Neighbours:
    """Give the items that share most users with some items: cosine of their columns of users.

    users, items: (e,) the two ends of every train event; n: items there are. Repeated events count once;
    ties go to the lower item. Items that share no user with any other have no neighbours.
    """
    from scipy.sparse import coo_array

    ones = np.ones(len(items), dtype=np.float32)
    seen = coo_array((ones, (items, users)), shape=(n, int(users.max(initial=-1)) + 1)).tocsr()
    seen.data[:] = 1.0
    norms = np.sqrt(np.maximum(np.diff(seen.indptr), 1)).astype(np.float32)
    nearest = np.full((len(queries), top), NONE, dtype=np.int64)
    by_user = seen.T.tocsr()
    for start in range(0, len(queries), QUERIES):
        shared = (seen[queries[start : start + QUERIES]] @ by_user).tocsr()
        for place in range(shared.shape[0]):
            query = queries[start + place]
            row = slice(shared.indptr[place], shared.indptr[place + 1])
            others = shared.indices[row].astype(np.int64)
            likeness = np.round(shared.data[row] / norms[others], 6)
            others, likeness = others[others != query], likeness[others != query]
            best = np.lexsort([others, -likeness])[:top]
            nearest[start + place, : len(best)] = others[best]
    return queries, nearest


def overlap(sids: Codes, neighbours: Neighbours, *, ordered: bool = True) -> float | None:
    """Give the share of true neighbours that are also among the nearest by SID; None where there are none.

    Nearness by SID is the length of the common prefix, or, where codes have no order, the number of
    equal codes. Where it ties across the cut, a neighbour counts with the chance that a random choice
    among the tied would take it.
    """
    return mean_share(overlap_by_query(sids, neighbours, ordered=ordered))


def mean_share(shares: npt.NDArray[np.float64]) -> float | None:
    """Give the mean of the queries that have neighbours, or None where none has."""
    known = shares[~np.isnan(shares)]
    return float(np.mean(known)) if len(known) else None


def overlap_by_query(sids: Codes, neighbours: Neighbours, *, ordered: bool) -> npt.NDArray[np.float64]:
    """Give what `overlap` averages: (q,), NaN for a query without neighbours."""
    queries, nearest = neighbours
    n, length = sids.shape
    # under[r, j]: how many items share the first j codes of row r, itself included.
    under = np.full((n, length + 1), n) if ordered else None
    if under is not None:
        for depth in range(1, length + 1):
            under[:, depth] = group_sizes(sids[:, :depth])[1]
    shares = np.full(len(queries), np.nan)
    for place, (query, row) in enumerate(zip(queries, nearest, strict=True)):
        row = row[row != NONE]
        if not len(row):
            continue
        equal = sids[row] == sids[query]
        if under is not None:
            common = equal.cumprod(axis=1).sum(axis=1)
            at_least = under[query] - 1
        else:
            common = equal.sum(axis=1)
            sizes = np.bincount((sids == sids[query]).sum(axis=1), minlength=length + 1)
            at_least = sizes[::-1].cumsum()[::-1] - 1
        above = np.append(at_least[1:], 0)
        chance = np.clip((len(row) - above) / np.maximum(at_least - above, 1), 0.0, 1.0)
        shares[place] = chance[common].mean()
    return shares


def sample_rows(n: int, sample: int = 2000, seed: int = 0) -> npt.NDArray[np.int64]:
    """Give rows to judge by: all of them, or a seeded sample in ascending order."""
    if n <= sample:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))


def neighbour_overlap(
    X: Vectors, sids: Codes, *, top: int = 10, sample: int = 2000, seed: int = 0, ordered: bool = True
) -> float:
    """Give the share of each item's `top` cosine neighbours that are also among its nearest by SID.

    See `overlap`. `sample` items are judged, seeded; a single item has nothing to lose and gives 1.
    """
    queries = sample_rows(len(sids), sample, seed)
    neighbours = cosine_neighbours([(0, X)], queries, X[queries], top=top)
    found = overlap(sids, neighbours, ordered=ordered)
    return 1.0 if found is None else found
