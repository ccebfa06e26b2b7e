"""IDs as paths of codes: items counted within equal paths, ragged paths in a matrix, no ID begins another.

Schemes of indexer.py end here. Codes of paths are fixed at fit and lie below `first`; counters are `first`
and up. So an ID ends where its counter stands, and a catalogue that grows only adds codes at the end.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from sid_tokenizers.base import Codes

Path = tuple[int, ...]

NONE: Codes = np.empty((0, 1), dtype=np.int32)  # no IDs are taken


def counted(paths: Iterable[Path], *, first: int, taken: Codes = NONE) -> list[Path]:
    """Give each path its counter as last code: `first` for the first item of a path, then one more each.

    Items count in the order given. Where a path has IDs among `taken`, counting goes on after the largest.

    >>> counted([(0, 1), (2,), (0, 1)], first=5, taken=np.array([[2, 7, -1]]))
    [(0, 1, 5), (2, 8), (0, 1, 6)]
    """
    following: dict[Path, int] = {}
    for one in unpadded(taken):
        following[one[:-1]] = max(following.get(one[:-1], first), one[-1] + 1)
    ids = []
    for one in paths:
        counter = following.get(one, first)
        following[one] = counter + 1
        ids.append((*one, counter))
    return ids


def padded(paths: Sequence[Sequence[int]]) -> Codes:
    """Give ragged paths as one matrix: (n, W) int32, -1 in the last places of a shorter one.

    >>> padded([(3,), (1, 2)]).tolist()
    [[3, -1], [1, 2]]
    """
    width = max(1, *map(len, paths), 0)
    ids = np.full((len(paths), width), -1, dtype=np.int32)
    for row, path in enumerate(paths):
        ids[row, : len(path)] = path
    return ids


def unpadded(ids: Codes) -> list[Path]:
    """Give the paths in a matrix, as `padded` takes them."""
    lengths = (ids >= 0).sum(axis=1).tolist()
    return [tuple(row[:length]) for row, length in zip(ids.tolist(), lengths, strict=True)]


def beginning(ids: Codes) -> tuple[int, int] | None:
    """Give two rows of which the first begins the second, or equals it; None where there are none.

    >>> beginning(np.array([[1, 2], [3, -1], [1, -1]]))
    (2, 0)
    """
    order = np.lexsort(ids.T[::-1])
    rows = ids[order]  # -1 sorts first, so that what begins others stands right before one of them
    begins = ((rows[:-1] == rows[1:]) | (rows[:-1] < 0)).all(axis=1)
    if not begins.any():
        return None
    place = int(begins.argmax())
    return int(order[place]), int(order[place + 1])


def stacked(above: Codes, below: Codes) -> Codes:
    """Give the rows of two matrices of IDs in one, as wide as the wider of them."""
    width = max(above.shape[1], below.shape[1])
    wide = [np.pad(ids, ((0, 0), (0, width - ids.shape[1])), constant_values=-1) for ids in (above, below)]
    return np.concatenate(wide)
