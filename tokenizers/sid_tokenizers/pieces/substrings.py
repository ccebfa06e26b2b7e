"""Runs of codes by how often they are seen: what a unigram model starts from.

SentencePiece 0.2.3 finds its own seeds in a suffix array; for words of one length over a large alphabet it
comes back with next to none (google/sentencepiece, issue 1068, is of an older one; 7 of 10,000 on the vectors
of our tests). Here all runs count, each as often as its SIDs are seen.
"""

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes

Counts = npt.NDArray[np.int64]
Run = tuple[int, int, int]  # a row that has it, its first level, the level after its last


def frequent_runs(sids: Codes, weight: Counts, most: int, *, least: int = 2) -> list[tuple[Run, int]]:
    """Give runs of two codes or more with how often they are seen, the largest count times length first.

    sids: (n, L) distinct, in order of their codes; weight: (n,). At most `most` of those seen `least` times;
    of equals the shorter, then the one of earlier levels, then of lower codes comes first.

    >>> frequent_runs(np.array([[0, 1], [0, 2], [3, 1]]), np.array([5, 1, 4]), 2)
    [((0, 0, 2), 5), ((2, 0, 2), 4)]
    """
    length = sids.shape[1]
    found = []
    for start in range(length):
        group = np.zeros(len(sids), dtype=np.int64)
        for stop in range(start + 1, length + 1):
            code = sids[:, stop - 1].astype(np.int64)
            group, row = _numbered(group * (int(code.max(initial=0)) + 1) + code)
            if stop - start > 1:
                total = np.zeros(len(row), dtype=np.int64)
                np.add.at(total, group, weight)
                often = np.flatnonzero(total >= least)
                span = np.broadcast_to([[start, stop]], (len(often), 2))
                found.append(np.column_stack([total[often], often, row[often], span]))
    runs = np.concatenate([np.empty((0, 5), dtype=np.int64), *found])
    total, number, row, start_of, stop_of = runs.T
    order = np.lexsort([number, start_of, stop_of - start_of, -total * (stop_of - start_of)])[:most]
    return [((a, b, c), n) for a, b, c, n in runs[order][:, [2, 3, 4, 0]].tolist()]


def _numbered(keys: Counts) -> tuple[Counts, Counts]:
    """Number distinct keys in ascending order: the number of each row, and a row of each number."""
    _, row, number = np.unique(keys, return_index=True, return_inverse=True)
    return number.reshape(-1).astype(np.int64), row.astype(np.int64)
