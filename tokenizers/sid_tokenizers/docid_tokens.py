"""PQ codes as token ids past a language model's own: DDRO's docids (code read).

Not a tokenizer: pq.py gives the codes, 24 pieces of 256 in the source. Unlike vocabulary.py, whose vocabulary
is the SIDs' own, tokens begin where the model's vocabulary ends.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes

T5_TOKENS = 32_128
Docids = npt.NDArray[np.int64]


def pq_docids(codes: npt.ArrayLike, levels: Sequence[int], vocab_size: int = T5_TOKENS) -> Docids:
    """Give codes (n, M) as token ids (n, M) int64: vocab_size + m * 256 + code, where each piece has 256.

    levels: codes per piece; pieces of other sizes stand one after another. Raises DataError for another
    number of pieces, or a code that is none.

    >>> pq_docids([[0, 5, 255]], [256, 256, 256])
    array([[32128, 32389, 32895]])
    """
    given = np.asarray(codes, dtype=np.int64)
    _check(given, levels)
    return given + vocab_size + _starts(levels)


def pq_codes(docids: npt.ArrayLike, levels: Sequence[int], vocab_size: int = T5_TOKENS) -> Codes:
    """Give back the codes (n, M) int32 of token ids (n, M), or raise DataError where they are none.

    >>> pq_codes([[32128, 32389, 32895]], [256, 256, 256])
    array([[  0,   5, 255]], dtype=int32)
    """
    given = np.asarray(docids, dtype=np.int64)
    if given.ndim == 2 and given.shape[1] == len(levels):
        given = given - (vocab_size + _starts(levels))
    _check(given, levels)
    return given.astype(np.int32)


def _starts(levels: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(levels)[:-1]]).astype(np.int64)


def _check(codes: Docids, levels: Sequence[int]) -> None:
    if codes.ndim != 2 or codes.shape[1] != len(levels):
        raise DataError(f"docids: expected shape (n, {len(levels)}), got {codes.shape}")
    wrong = np.argwhere((codes < 0) | (codes >= np.asarray(levels)))
    if len(wrong):
        row, piece = wrong[0]
        expected = f"codes 0 to {levels[piece] - 1}"
        raise DataError(f"docids, row {row}: piece {piece + 1} has {expected}, got {codes[row, piece]}")
