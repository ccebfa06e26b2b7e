"""Which rows of a code matrix are equal: groups, their sizes, and each row's place in its group.

Rows are packed into one integer each, because `np.unique(axis=0)` takes a minute where this takes a
fraction of a second. Unlike leaves.py the packing follows the codes found, not the levels, so it takes any.
"""

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes

Rows = npt.NDArray[np.int64]

LARGEST = 2**63 - 1


def row_keys(codes: npt.ArrayLike) -> Rows:
    """Give one integer per row, in the order of the rows: equal for equal rows, and only for them.

    codes: (n, L), any integers. Where the columns' ranges multiply past 63 bits, what is packed so far is
    replaced by its rank among the rows.
    """
    table = np.asarray(codes)
    keys = np.zeros(len(table), dtype=np.int64)
    if not len(table):
        return keys
    limit = 1
    for column in table.T:
        low = int(column.min())
        span = int(column.max()) - low + 1
        if limit * span > LARGEST:
            keys, column, low = _ranks(keys), _ranks(column), 0
            limit, span = int(keys.max()) + 1, int(column.max()) + 1
        keys *= span
        keys += column.astype(np.int64) - low
        limit *= span
    return keys


def group_sizes(codes: npt.ArrayLike) -> tuple[Rows, Rows]:
    """Give each row's group number among equal rows, and that group's size."""
    _, group, counts = np.unique(row_keys(codes), return_inverse=True, return_counts=True)
    return group, counts[group]


def places(keys: Rows) -> Rows:
    """Give each row's place among the rows with the same key, from 0, in row order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(fresh)
    out = np.empty(len(keys), dtype=np.int64)
    out[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))
    return out


def slots_of(sids: Codes) -> npt.NDArray[np.int32]:
    """Give each row's place among the rows with the same SID, from 0, in row order."""
    return places(row_keys(sids)).astype(np.int32)


def _ranks(column: npt.NDArray[np.integer]) -> Rows:
    _, ranks = np.unique(column, return_inverse=True)
    return np.asarray(ranks, dtype=np.int64)
