"""min-cost: under every prefix that holds a collision the last codes are dealt out anew, at least cost.

Unlike next-nearest it weighs all items of a prefix at once, so an item that did not collide may move too.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_tokenizers.collisions import greedy
from sid_tokenizers.collisions.base import Apart, Policy, Settled, Task, check_room
from sid_tokenizers.collisions.groups import Rows
from sid_tokenizers.collisions.leaves import Numbers, numbers_of


@dataclass(frozen=True)
class MinCost(Policy):
    """Give the items of a prefix its free last codes so that their distances add up to the least.

    Only prefixes that hold a collision are touched. Where more items share a prefix than it has free
    codes, those left out go on by the greedy rule of next-nearest; the outcome is then no longer the best.

    Where codes have no order (pq, opq, fsq) it is the last piece that is dealt out anew, and those left out
    move the piece before it as well; any other piece would be as legitimate.
    """

    name: ClassVar[str] = "min-cost"
    source: ClassVar[str] = "our own design; assignment by SciPy (Crouse 2016)"
    unique: ClassVar[bool] = True
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L"
    apart: ClassVar[Apart] = "prefix"

    def settle(self, task: Task) -> Settled:
        """Solve one assignment per crowded prefix, then place what is left over."""
        check_room(task)
        sids = task.codes.copy()
        group, size = task.groups[0][len(task.taken) :], task.groups[1][len(task.taken) :]
        k = task.levels[-1]
        under = numbers_of(task.codes[:, :-1], task.levels)
        crowded = np.unique(under[size > 1])
        rows = np.flatnonzero(np.isin(under, crowded))
        rows = rows[np.argsort(under[rows], kind="stable")]
        taken = np.sort(numbers_of(task.taken, task.levels))
        left: list[Rows] = []
        apart: list[npt.NDArray[np.float32]] = []
        for block in _blocks(rows, under[rows], greedy.rows_at_once(k)):
            distances = task.tokenizer.distances(task.vectors(block), task.codes[block, :-1])
            prefixes = under[block]
            ends = (np.flatnonzero(prefixes[1:] != prefixes[:-1]) + 1).tolist()
            for start, end in pairwise([0, *ends, len(block)]):
                free = _free(taken, prefixes[start], k)
                codes = _assign(distances[start:end, free])
                inside = block[start:end]
                sids[inside[codes >= 0], -1] = free[codes[codes >= 0]]
                out = np.flatnonzero(codes < 0)
                left.append(inside[out])
                apart.append(distances[start + out, task.codes[inside[out], -1]])
        if sum(map(len, left)):
            over = np.concatenate(left)
            over = over[greedy.in_turn(over, group, size, np.concatenate(apart))]
            sids = greedy.settle(sids, task.taken, over, task.vectors, task.tokenizer)
        return Settled(sids, task.levels)


def _assign(distances: npt.NDArray[np.float32]) -> Rows:
    """Give each row its own column at least total distance: (r, c) -> (r,), -1 where columns ran out."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(distances)
    out = np.full(len(distances), -1, dtype=np.int64)
    out[rows] = columns
    return out


def _free(taken: Numbers, prefix: int, k: int) -> Rows:
    """Give the last codes under a prefix that are not taken, ascending. taken: sorted."""
    low, high = np.searchsorted(taken, np.array([prefix * k, (prefix + 1) * k], dtype=taken.dtype))
    free = np.ones(k, dtype=bool)
    free[(taken[low:high] - prefix * k).astype(np.int64)] = False
    return np.flatnonzero(free)


def _blocks(rows: Rows, under: Numbers, size: int) -> list[Rows]:
    """Cut rows, which stand prefix by prefix, into blocks of about `size` that split no prefix."""
    starts = np.append(np.flatnonzero(np.append(True, under[1:] != under[:-1])), len(rows))
    cuts = [0]
    while cuts[-1] < len(rows):
        reach = int(starts[np.searchsorted(starts, cuts[-1] + size, side="right") - 1])
        beyond = int(starts[np.searchsorted(starts, cuts[-1], side="right")])
        cuts.append(max(reach, beyond))
    return [rows[start:end] for start, end in pairwise(cuts)]
