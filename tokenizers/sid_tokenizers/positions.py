"""Where a code stands inside its item, and who may look at whom: DiscRec's item-level positions (code read).

Not a tokenizer: it needs no fit and changes no ID. All of it is for SIDs of one length; where suffixes make
some longer, position 4 of one item would be position 1 of the next.
"""

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def code_positions(n_items: int, length: int, *, eos: bool = True) -> Positions:
    """Give the place of every code inside its item, from 1; the end of the sequence has a place of its own.

    (n_items * length,), one more with eos, whose place is length + 1. Place 0 is left for padding.

    >>> code_positions(2, 3)
    array([1, 2, 3, 1, 2, 3, 4])
    """
    positions = np.arange(n_items * length + eos, dtype=np.int64) % length + 1
    positions[n_items * length :] = length + 1
    return positions


def decoder_positions(length: int) -> Positions:
    """Give the places of what a decoder reads to write one item: 0 for the start, then its codes.

    >>> decoder_positions(3)
    array([0, 1, 2, 3])
    """
    return np.arange(length + 1, dtype=np.int64)


def block_mask(n_items: int, length: int, *, eos: bool = True) -> Mask:
    """Give which token (row) may look at which (column): the codes of an item at each other, at none beside.

    (t, t) bool, t as in `code_positions`. The end of the sequence looks at itself and at the last item; no
    code looks at it.

    >>> block_mask(2, 2).astype(int)
    array([[1, 1, 0, 0, 0],
           [1, 1, 0, 0, 0],
           [0, 0, 1, 1, 0],
           [0, 0, 1, 1, 0],
           [0, 0, 1, 1, 1]])
    """
    tokens = n_items * length
    mask = np.zeros((tokens + eos, tokens + eos), dtype=np.bool_)
    mask[:tokens, :tokens] = np.kron(np.eye(n_items, dtype=np.bool_), np.ones((length, length), np.bool_))
    mask[tokens:, max(tokens - length, 0) :] = True
    return mask


def one_length(lengths: npt.ArrayLike) -> int:
    """Give the length that all SIDs have, or raise DataError naming the first that has another.

    >>> one_length([3, 3, 3])
    3
    """
    given = np.asarray(lengths, dtype=np.int64)
    if not len(given):
        raise DataError("SIDs: expected some, got none")
    other = np.flatnonzero(given != given[0])
    if len(other):
        raise DataError(
            f"SIDs, row {other[0]}: has {given[other[0]]} codes, row 0 has {given[0]}; expected one length. "
            "Choose a tokenizer of codes, and a collision policy that gives all as many, such as suffix"
        )
    return int(given[0])
