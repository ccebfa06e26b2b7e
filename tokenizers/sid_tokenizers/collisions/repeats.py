"""Which colliding items repeat the vector of an earlier one: no tokenizer can tell such items apart.

Unlike `metrics.duplicate_vectors` it reads the vectors of colliding items alone, a chunk at a time: equal
vectors have equal codes, so a repeat always collides.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes, Vectors, content_hashes
from sid_tokenizers.collisions.groups import Rows, group_sizes

CHUNK = 65_536


def repeated(codes: Codes, vectors: Callable[[Rows], Vectors]) -> npt.NDArray[np.bool_]:
    """Say which rows have exactly the vector of an earlier row: (n,) bool.

    Rows are matched by a 64-bit hash of their vector, then compared number by number.
    """
    out = np.zeros(len(codes), dtype=bool)
    group, size = group_sizes(codes)
    rows = np.flatnonzero(size > 1)
    if not len(rows):
        return out
    hashes = np.concatenate([content_hashes(vectors(chunk)) for chunk in chunks(rows, CHUNK)])
    order = np.lexsort((rows, hashes, group[rows]))
    rows, hashes = rows[order], hashes[order]
    alike = np.flatnonzero((hashes[1:] == hashes[:-1]) & (group[rows][1:] == group[rows][:-1]))
    for chunk in chunks(alike, CHUNK):
        out[rows[chunk + 1]] = (vectors(rows[chunk + 1]) == vectors(rows[chunk])).all(axis=1)
    return out


def chunks(rows: Rows, size: int) -> list[Rows]:
    """Cut rows into pieces of at most `size`, in order."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
