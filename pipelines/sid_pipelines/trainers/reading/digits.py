"""Digits that tell items apart which share their codes, for trainers that need a row of its own for each.

sid_tokenizers/collisions has them as policies, which settle a release's SIDs for good; here they are added on
the way out, to releases whose policy lets items share an SID.
"""

import numpy as np
import numpy.typing as npt

from sid_pipelines.trainers.feed import Feed
from sid_tokenizers.collisions.groups import group_sizes, places, row_keys

I64 = npt.NDArray[np.int64]


def grid_digit(codes: npt.ArrayLike) -> I64:
    """Give GRID's digit of each row: 0 where no other is equal, else 1 to k in row order: (n,) int64.

    >>> grid_digit([[5, 1], [5, 2], [5, 1]]).tolist()
    [1, 0, 2]
    """
    _, sizes = group_sizes(codes)
    return np.where(sizes > 1, places(row_keys(codes)) + 1, 0)


def popularity_digit(codes: npt.ArrayLike, popularity: npt.ArrayLike) -> I64:
    """Give MMGRec's digit of each row: 1 to k among equal rows, the most popular first, ties in row order.

    >>> popularity_digit([[5, 1], [5, 2], [5, 1]], [3, 1, 8]).tolist()
    [2, 1, 1]
    """
    keys, order = row_keys(codes), np.argsort(-np.asarray(popularity), kind="stable")
    digits = np.empty(len(keys), dtype=np.int64)
    digits[order] = places(keys[order]) + 1
    return digits


def told_apart(feed: Feed, reader: str) -> tuple[I64, bool]:
    """Give SIDs of one length, all different: (n_items, L) int64, and whether a digit was added for that.

    The release's own, and where items share one GRID's digit behind them. Raises RecipeError where SIDs
    differ in length.
    """
    length = feed.require_length(reader)
    sids = feed.sids[:, :length].astype(np.int64)
    digit = grid_digit(sids)
    return (np.column_stack([sids, digit]), True) if digit.any() else (sids, False)
