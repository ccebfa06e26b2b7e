"""The k-core of a bipartite graph: the largest set of events in which all users and items have enough.

Semi-external: only the degrees of users and items are held in memory; the events stream by in chunks,
so the arrays may be mapped from disk. The fixed point is the same in whatever order events come. A pass
looks at all events; real data takes a dozen passes, a chain made to be bad takes as many as it is long.
"""

import numpy as np
import numpy.typing as npt

Indexes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
CHUNK = 2 << 20  # events at a time


def k_core(
    users: Indexes,
    items: Indexes,
    k_user: int,
    k_item: int,
    alive: Mask | None = None,
    *,
    held: tuple[Indexes, Indexes] | None = None,
) -> Mask:
    """Give which events survive when users below k_user and items below k_item go, again and again.

    users, items: (n,) dense indexes of each event. alive: (n,) bool, events to begin with, all if None;
    it is changed in place. held: events that each user and each item has besides, and that never go, by
    index. Returns (n,) bool: the largest set in which every user has at least k_user events and every item
    k_item. It does not depend on row order.
    """
    alive = np.ones(len(users), dtype=bool) if alive is None else alive
    of_user, of_item = _degrees_with(users, items, alive, held)
    removed = 1
    while removed:
        removed = 0
        for start in range(0, len(users), CHUNK):
            part = slice(start, start + CHUNK)
            here = np.flatnonzero(alive[part])
            u, i = users[part][here], items[part][here]
            gone = (of_user[u] < k_user) | (of_item[i] < k_item)
            if gone.any():
                alive[start + here[gone]] = False
                # What goes lowers the degrees at once: later chunks see it in the same pass.
                np.subtract.at(of_user, u[gone], 1)
                np.subtract.at(of_item, i[gone], 1)
                removed += int(np.count_nonzero(gone))
    return alive


def single_pass(
    users: Indexes,
    items: Indexes,
    k_user: int,
    k_item: int,
    alive: Mask | None = None,
    *,
    held: tuple[Indexes, Indexes] | None = None,
) -> Mask:
    """Give which events have a user with k_user events and an item with k_item, counted once.

    This is no k-core: users and items below k are left. Only for parity with scripts that stop here
    (TRAINER_FORMATS 3.4: HSTU's books). `alive` is changed in place. held: as for `k_core`.
    """
    alive = np.ones(len(users), dtype=bool) if alive is None else alive
    of_user, of_item = _degrees_with(users, items, alive, held)
    for start in range(0, len(users), CHUNK):
        part = slice(start, start + CHUNK)
        alive[part] &= (of_user[users[part]] >= k_user) & (of_item[items[part]] >= k_item)
    return alive


def _degrees_with(
    users: Indexes, items: Indexes, alive: Mask, held: tuple[Indexes, Indexes] | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    found = []
    for indexes, besides in zip((users, items), held or (None, None), strict=True):
        counts = degrees(indexes, alive)
        if besides is not None:
            counts = np.concatenate([counts, np.zeros(max(len(besides) - len(counts), 0), dtype=np.int32)])
            counts[: len(besides)] += besides
        found.append(counts)
    return found[0], found[1]


def degrees(indexes: Indexes, alive: Mask) -> npt.NDArray[np.int32]:
    """Give how many of the alive events each index has: (largest + 1,) int32."""
    size = 1 + max(
        (int(indexes[start : start + CHUNK].max()) for start in range(0, len(indexes), CHUNK)), default=-1
    )
    counts = np.zeros(size, dtype=np.int32)
    for start in range(0, len(indexes), CHUNK):
        part = slice(start, start + CHUNK)
        found = np.bincount(indexes[part][alive[part]], minlength=1)
        counts[: len(found)] += found.astype(np.int32)
    return counts


def largest_k(users: Indexes, items: Indexes, alive: Mask | None = None) -> int:
    """Give the largest k whose k/k-core is not empty: doubled until it is, then halved."""
    alive = np.ones(len(users), dtype=bool) if alive is None else alive
    low, high = 1, 2
    while k_core(users, items, high, high, alive.copy()).any():
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if k_core(users, items, middle, middle, alive.copy()).any():
            low = middle
        else:
            high = middle
    return low
