"""How many users had both of two items, as sparse rows: whole histories, or within a window of events."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_pipelines.collaborative.events import TrainEvents

PAIRS = 1 << 22  # events times window that are paired at a time
ENTRIES = 1 << 22  # of the rows of a block


def recent(events: TrainEvents, longest: int) -> TrainEvents:
    """Keep each user's last `longest` events; all of them for 0."""
    if not longest:
        return events
    ends = np.cumsum(np.bincount(events.users, minlength=events.n_users))
    kept = ends[events.users] - np.arange(len(events)) <= longest
    return TrainEvents(events.users[kept], events.items[kept], events.n_users, events.n_items)


def shared_rows(events: TrainEvents, window: int) -> Iterator[tuple[int, Any]]:
    """Give (first item, CSR (rows, n_items) float64) block by block: users who had both items.

    window: how many events apart they may stand; 0 for any. An item does not occur with itself. Without
    a window one block of rows is held at a time, with one the whole sparse matrix.
    """
    if window:
        whole = _within(events, window)
        yield 0, whole
        return
    seen = events.matrix().astype(np.float64)
    seen.data[:] = 1.0
    by_item = seen.T.tocsr()
    # What a row can have at most: the events of all users of the item.
    width = np.minimum(by_item @ np.diff(seen.indptr), events.n_items).astype(np.int64)
    for start, stop in blocks_of(width, ENTRIES):
        shared = (by_item[start:stop] @ seen).tocoo()
        other = shared.row + start != shared.col
        kept = (shared.data[other], (shared.row[other], shared.col[other]))
        yield start, _sorted(kept, (stop - start, events.n_items))


def shared(events: TrainEvents, window: int) -> Any:
    """Give all rows of `shared_rows` as one CSR matrix (n_items, n_items), symmetric."""
    from scipy.sparse import vstack

    return vstack([rows for _, rows in shared_rows(events, window)], format="csr")


def blocks_of(sizes: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Cut rows of some sizes into runs of about `most`, each of one row at least.

    >>> list(blocks_of(np.array([3, 3, 9, 1]), 6))
    [(0, 2), (2, 3), (3, 4)]
    """
    total = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        stop = max(int(np.searchsorted(total, total[start] + most, side="right")) - 1, start + 1)
        yield start, stop
        start = stop


def _within(events: TrainEvents, window: int) -> Any:
    from scipy.sparse import csr_matrix

    n = events.n_items
    edges = events.sequences().edges
    total = csr_matrix((n, n), dtype=np.float64)
    for first, last in blocks_of(np.diff(edges) * window, PAIRS):
        rows = slice(edges[first], edges[last])
        users, items = events.users[rows], events.items[rows]
        low, high, whose = [], [], []
        for apart in range(1, min(window, max(len(users) - 1, 0)) + 1):
            left, right = items[:-apart], items[apart:]
            paired = (users[:-apart] == users[apart:]) & (left != right)
            low.append(np.minimum(left, right)[paired])
            high.append(np.maximum(left, right)[paired])
            whose.append(users[apart:][paired])
        if not low:
            continue
        a, b, u = (np.concatenate(parts).astype(np.int64) for parts in (low, high, whose))
        keys = np.unique(np.stack([u, a * n + b], axis=1), axis=0)[:, 1]  # each user counts once
        ones = np.ones(len(keys))
        total = total + csr_matrix((ones, (keys // n, keys % n)), shape=(n, n))
    return _sorted_csr(total + total.T)


def _sorted(entries: Any, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix

    return _sorted_csr(csr_matrix(entries, shape=shape))


def _sorted_csr(matrix: Any) -> Any:
    matrix = matrix.tocsr()
    matrix.sum_duplicates()
    matrix.sort_indices()
    return matrix
