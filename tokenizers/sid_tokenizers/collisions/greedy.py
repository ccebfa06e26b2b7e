"""Place items one after the other on the nearest SID with room, deepest level first.

Who must move, and in what order, is decided by `losers`; where they go by `place`. next-nearest, capacity
and fsq-level are no more than this; min-cost and sinkhorn end with it.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.blocks import over_blocks
from sid_tokenizers.collisions.base import Ranker
from sid_tokenizers.collisions.groups import Rows, places
from sid_tokenizers.collisions.leaves import Leaves, codes_of, numbers_of
from sid_tokenizers.collisions.repeats import chunks

Reader = Callable[[Rows], Vectors]

CHOICES = 24  # nearest codes looked at before a whole level is ranked
CELLS = 2**24  # distances held at a time (64 MB)


def losers(
    groups: tuple[Rows, Rows], taken: int, key: Callable[[Rows], npt.ArrayLike], *, room: int = 1
) -> Rows:
    """Give the rows that must move, in the order in which they do.

    groups: group number and size of `taken` rows that never move, then of all others. key: gives numbers
    for rows; in a group the `room` rows of the lowest keep their codes, taken rows first of all. Ties go
    to the earlier row.
    """
    group, size = groups[0][taken:], groups[1][taken:]
    rows = np.flatnonzero(size > room)
    if not len(rows):
        return rows
    rows = rows[in_turn(rows, group, size, key(rows))]
    held = np.bincount(groups[0][:taken], minlength=int(group.max()) + 1)
    return rows[places(group[rows]) >= room - held[group[rows]]]


def in_turn(rows: Rows, group: Rows, size: Rows, key: npt.ArrayLike) -> Rows:
    """Give the order of rows: by group size descending, earliest row of the group, key, row.

    group, size: of all rows; key: of `rows` alone.
    """
    first = np.full(int(group.max()) + 1, len(group))
    np.minimum.at(first, group[rows], rows)
    return np.lexsort((rows, np.asarray(key), first[group[rows]], -size[rows]))


def own_distances(codes: Codes, rows: Rows, vectors: Reader, ranker: Ranker) -> npt.NDArray[np.float32]:
    """Give how far rows are from their own last code, under the codes before it: (len(rows),)."""
    own = [np.empty(0, dtype=np.float32)]
    for chunk in chunks(rows, rows_at_once(ranker.levels[-1])):
        distances = ranker.distances(vectors(chunk), codes[chunk, :-1])
        own.append(distances[np.arange(len(chunk)), codes[chunk, -1]])
    return np.concatenate(own)


def settle(
    codes: Codes, occupied: Codes, moving: Rows, vectors: Reader, ranker: Ranker, *, room: int = 1
) -> Codes:
    """Give codes (n, L) with the moving rows placed in turn.

    The other rows and `occupied` (m, L) hold their SIDs from the start. Each moving row takes the nearest
    last code with room under its prefix; where the prefix is full, the nearest code with room one level
    up, and so on to the root.
    """
    sids = codes.copy()
    if not len(moving):
        return sids
    levels = tuple(ranker.levels)
    stays = np.ones(len(codes), dtype=bool)
    stays[moving] = False
    held = np.concatenate([numbers_of(occupied, levels), numbers_of(codes[stays], levels)])
    leaves = Leaves(levels, held, room=room)
    for chunk in chunks(moving, rows_at_once(max(levels))):
        sids[chunk] = codes_of(_place(leaves, chunk, codes[chunk, :-1], vectors, ranker), levels)
    return sids


def rows_at_once(k: int) -> int:
    """Give how many rows may have their distances to k codes held at a time."""
    return max(1, CELLS // k)


def _place(
    leaves: Leaves, rows: Rows, prefixes: Codes, vectors: Reader, ranker: Ranker
) -> npt.NDArray[np.generic]:
    """Place a chunk of rows in turn, and give the numbers of their SIDs."""
    depth = prefixes.shape[1]
    k, full = leaves.levels[depth], leaves.under[depth] * leaves.room
    X = vectors(rows)
    distances = ranker.distances(X, prefixes)
    under = numbers_of(prefixes, leaves.levels)
    choices, sure = _first_choices(distances)
    candidates = under[:, None] * k + choices
    room = np.where(sure, leaves.room - leaves.at_start(depth + 1, candidates), 0)
    at_prefix, at_leaf = leaves.added[depth], leaves.added[depth + 1]
    held = leaves.at_start(depth, under)
    now = held + np.array([at_prefix.get(prefix, 0) for prefix in under.tolist()])
    # Rows that are sure to find their prefix full are ranked one level up all at once.
    above: dict[int, npt.NDArray[np.float32]] = {}
    ahead = np.flatnonzero(now + places(under) >= full)
    if depth and len(ahead):
        above = dict(zip(ahead.tolist(), ranker.distances(X[ahead], prefixes[ahead, :-1]), strict=True))
    held = held.tolist()
    found = []
    for row, (prefix, nearest, left) in enumerate(
        zip(under.tolist(), candidates.tolist(), room.tolist(), strict=True)
    ):
        if held[row] + at_prefix.get(prefix, 0) >= full:
            leaf = _descend(leaves, prefixes[row], prefix, X[row], ranker, above.get(row))
        else:
            for leaf, free in zip(nearest, left, strict=True):
                if at_leaf.get(leaf, 0) < free:
                    break
            else:
                leaf = leaves.nearest_child(depth, prefix, distances[row])
        leaves.add(leaf)
        found.append(leaf)
    return np.array(found, dtype=under.dtype)


def _first_choices(
    distances: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Give each row's nearest codes, nearest first and of equals the lower, and which are surely those.

    (n, K) -> (n, C), (n, C). Of codes as far as the last one some may be missing, so they are not sure.
    """
    n, k = distances.shape
    width = min(CHOICES, k)
    choices = np.empty((n, width), dtype=np.int64)
    sure = np.ones((n, width), dtype=bool)

    def work(rows: slice) -> None:
        block = distances[rows]
        if k <= CHOICES:
            choices[rows] = np.argsort(block, axis=1, kind="stable")
            return
        few = np.sort(np.argpartition(block, width - 1, axis=1)[:, :width], axis=1)
        far = np.take_along_axis(block, few, axis=1)
        order = np.argsort(far, axis=1, kind="stable")
        far = np.take_along_axis(far, order, axis=1)
        choices[rows] = np.take_along_axis(few, order, axis=1)
        sure[rows] = far < far[:, -1:]

    over_blocks(n, work)
    return choices, sure


def _descend(
    leaves: Leaves,
    codes: Codes,
    number: int,
    x: Vectors,
    ranker: Ranker,
    above: npt.NDArray[np.float32] | None,
) -> int:
    """Give the nearest SID with room outside a full prefix: up to the first with room, then down.

    above: the distances one level up, where they are known.
    """
    depth = len(codes)
    while leaves.is_full(depth, number):
        depth -= 1
        number //= leaves.levels[depth]
    prefix = codes[:depth].tolist()
    distances = above if depth == len(codes) - 1 else None
    while depth < len(leaves.levels):
        if distances is None:
            distances = ranker.distances(x[None], np.array([prefix], dtype=np.int32).reshape(1, depth))[0]
        number, distances = leaves.nearest_child(depth, number, distances), None
        prefix.append(number % leaves.levels[depth])
        depth += 1
    return number
