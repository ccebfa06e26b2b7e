"""Make every SID unique, or say plainly that it is not: the policies that follow a tokenizer.

A policy sees all codes at once and a ranking of alternatives (`Tokenizer.distances`), never row
order: ties are settled by item order, which the caller makes meaningful.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError, RecipeError
from sid_tokenizers.base import Codes, Vectors

Prefix = tuple[int, ...]


class Ranker(Protocol):
    """What a policy needs of a tokenizer."""

    levels: Sequence[int]

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give how far each vector is from every code that may follow its prefix."""


@dataclass(frozen=True)
class Resolution:
    """The outcome: sids (n, L) int32, slots (n,) int32, and which rows were moved, (n,) bool."""

    sids: Codes
    slots: npt.NDArray[np.int32]
    moved: npt.NDArray[np.bool_]


def resolve(codes: Codes, X: Vectors, ranker: Ranker, *, policy: str) -> Resolution:
    """Apply a policy by its recipe name.

    codes: (n, L), as the tokenizer gave them; X: (n, d), the vectors they were made from. Row order
    settles ties, so pass rows in an order that means something (sidmill: by item_id).
    Raises RecipeError for an unknown policy, DataError where n items cannot all be unique.
    """
    if policy not in POLICIES:
        raise RecipeError(f"no collision policy is called {policy!r}; there are: {', '.join(POLICIES)}")
    sids = POLICIES[policy](codes, X, ranker)
    return Resolution(sids=sids, slots=slots_of(sids), moved=(sids != codes).any(axis=1))


def keep(codes: Codes, X: Vectors, ranker: Ranker) -> Codes:
    """Leave collisions as they are; items that share a SID get slots. (OpenOneRec, RecGPT)."""
    return codes.copy()


def next_nearest(codes: Codes, X: Vectors, ranker: Ranker) -> Codes:
    """Move each colliding item to the nearest free SID, deepest level first; the length stays L.

    In every group of equal codes the item closest to its codes keeps them (ties: the earlier row).
    The others, largest group first, take the nearest free last code under their prefix; where the
    prefix is full, the nearest code with room one level up, and so on to the root. Items that do not
    collide never move. Our own design; MSCGRec's empty-leaf rule is its nearest relative.
    """
    n, length = codes.shape
    capacity = [math.prod(ranker.levels[level:]) for level in range(length + 1)]
    if n > capacity[0]:
        raise DataError(
            f"{n} items do not fit into {capacity[0]} SIDs of levels {list(ranker.levels)}: "
            "add a level or enlarge one"
        )
    sids = codes.copy()
    losers = _losers(codes, _distance_to_own(codes, X, ranker))
    if not len(losers):
        return sids
    occupied: Counter[Prefix] = Counter()  # taken leaves under every prefix, the root included
    stays = np.ones(n, dtype=bool)
    stays[losers] = False
    for row in codes[stays].tolist():
        _occupy(occupied, tuple(row))
    # One product ranks the last level for all losers at once; it settles all but the full prefixes.
    ranked = np.argsort(ranker.distances(X[losers], codes[losers, :-1]), axis=1, kind="stable")
    for candidates, row in zip(ranked, losers, strict=True):
        prefix: Prefix = tuple(codes[row, :-1].tolist())
        if occupied[prefix] < capacity[length - 1]:
            leaf = next(leaf for code in candidates.tolist() if (leaf := (*prefix, code)) not in occupied)
        else:
            leaf = _descend(prefix, X[row], ranker, occupied, capacity)
        _occupy(occupied, leaf)
        sids[row] = leaf
    return sids


def _descend(
    prefix: Prefix, x: Vectors, ranker: Ranker, occupied: Counter[Prefix], capacity: list[int]
) -> Prefix:
    """Give the nearest free leaf: up to the deepest prefix with room, then down by distance."""
    while occupied[prefix] >= capacity[len(prefix)]:
        prefix = prefix[:-1]
    while len(prefix) < len(capacity) - 1:
        distances = ranker.distances(x[None], np.asarray([prefix], dtype=np.int32).reshape(1, -1))
        room = capacity[len(prefix) + 1]
        prefix = next(
            child
            for code in np.argsort(distances[0], kind="stable").tolist()
            if occupied[child := (*prefix, code)] < room
        )
    return prefix


def _occupy(occupied: Counter[Prefix], leaf: Prefix) -> None:
    for length in range(len(leaf) + 1):
        occupied[leaf[:length]] += 1


def _distance_to_own(codes: Codes, X: Vectors, ranker: Ranker) -> npt.NDArray[np.float32]:
    collides = group_sizes(codes)[1] > 1
    own = np.zeros(len(codes), dtype=np.float32)
    rows = np.flatnonzero(collides)
    if len(rows):
        distances = ranker.distances(X[rows], codes[rows, :-1])
        own[rows] = distances[np.arange(len(rows)), codes[rows, -1]]
    return own


def _losers(codes: Codes, own: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Give the rows that must move: by group size descending, earliest row of the group, distance."""
    group, size = group_sizes(codes)
    rows = np.arange(len(codes))
    first = np.full(int(group.max()) + 1, len(codes))
    np.minimum.at(first, group, rows)
    order = np.lexsort((rows, own, first[group], -size))
    winner = np.ones(len(order), dtype=bool)
    winner[1:] = group[order][1:] != group[order][:-1]
    return order[~winner]


def group_sizes(codes: Codes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give each row's group number among equal rows, and that group's size."""
    _, group, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    return group, counts[group]


def slots_of(sids: Codes) -> npt.NDArray[np.int32]:
    """Give each row's place among the rows with the same SID, from 0, in row order."""
    group, _ = group_sizes(sids)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) > 0])
    slots = np.empty(len(sids), dtype=np.int32)
    slots[order] = np.arange(len(sids)) - np.repeat(starts, np.diff(np.r_[starts, len(sids)]))
    return slots


POLICIES: dict[str, Callable[[Codes, Vectors, Ranker], Codes]] = {
    "next-nearest": next_nearest,
    "none": keep,
}
