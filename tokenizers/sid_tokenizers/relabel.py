"""Give a new codebook the labels of the old one it resembles, so that as few items as can be change codes.

Two fits of one scheme number their clusters by chance: the same items stand together, under other numbers.
Which number is which is found by the items that both have coded, one level after the other.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Labels

LARGEST = 16_384  # codes of a level: 2 GiB of counts


def matching(
    new: npt.ArrayLike, old: npt.ArrayLike, levels: Sequence[int], *, ordered: bool = True
) -> list[Labels]:
    """Give labels for the codes of a new tokenizer under which most items keep the codes of an old one.

    new: (n, L) codes and old: (n, M) codes of the same items, row by row. levels: how many codes each new
    level to be matched has; at most L. Returns for each of the first M of these levels (K,) int32, what
    `Tokenizer.relabelled` takes. Old codes that the new level is too small for can be nobody's label.

    Level by level the assignment is the best there is (Hungarian method): where codes run from coarse to
    fine (ordered), first by the items whose codes before agree too, since only those keep a longer prefix,
    then by all; without order by all. Of equally good ones it is one that leaves most labels alone. A
    (K, K) matrix of float64 is held, and 4096 codes take half a second; beyond LARGEST labels stay.

    >>> [labels.tolist() for labels in matching([[0], [0], [1], [2]], [[2], [2], [2], [0]], [3])]
    [[2, 1, 0]]
    """
    fresh, known = _codes("new", new), _codes("old", old)
    if len(fresh) != len(known):
        raise DataError(f"matching: expected codes of the same items, got {len(fresh)} and {len(known)} rows")
    agree = np.ones(len(fresh), dtype=bool)
    labels = []
    for level, k in enumerate(levels[: known.shape[1]]):
        if k > LARGEST:
            labels.append(np.arange(k, dtype=np.int32))
        else:
            labels.append(best(_counts(fresh[:, level], known[:, level], k, agree & ordered)))
        agree &= labels[-1][fresh[:, level]] == known[:, level]
    return labels


def best(counts: npt.NDArray[np.float64]) -> Labels:
    """Give the label of each code for which the counts add up to most: (K, K) -> (K,) int32.

    counts[i, j]: what it is worth that code i is labelled j, a whole number.
    """
    from scipy.optimize import linear_sum_assignment

    k = len(counts)
    worth = counts * (k + 1)
    worth[np.diag_indices(k)] += 1  # less than one item, and K of them still are
    _, labels = linear_sum_assignment(worth, maximize=True)
    return np.asarray(labels, dtype=np.int32)


def _counts(
    new: npt.NDArray[np.int32], old: npt.NDArray[np.int32], k: int, first: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Give how many items have new code i and old code j: (K, K); those of `first` outweigh all others."""
    there = (old >= 0) & (old < k)
    weight = np.where(first[there], len(new) + 1.0, 1.0)
    pairs = new[there].astype(np.int64) * k + old[there]
    counts: npt.NDArray[np.float64] = np.bincount(pairs, weights=weight, minlength=k * k).astype(np.float64)
    return counts.reshape(k, k)


def _codes(what: str, codes: npt.ArrayLike) -> Codes:
    array = np.asarray(codes)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise DataError(f"matching: {what}: expected codes (n, levels), got {array.dtype} {array.shape}")
    return array.astype(np.int32, copy=False)
