"""What every way of cutting SIDs is: `fit` on SIDs and how often they are seen, `pieces` and `decode`.

Unlike a tokenizer it changes no SID. A trainer that has one row of embeddings for each code may have rows for
runs of codes instead; a piece's id is its row in that one table.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes
from sid_tokenizers.catalogue import Events
from sid_tokenizers.positions import one_length
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Scheme

Counts = npt.NDArray[np.int64]


class Pieces(Scheme):
    """A way to cut SIDs of one length into pieces.

    table_size: the most rows the table of embeddings may have; 0 for twice as many as there are codes. seed:
    of what is drawn or hashed.
    """

    table_size: int

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, table_size=0, seed=0)

    def fit(
        self,
        sids: npt.ArrayLike,
        *,
        levels: Sequence[int],
        weight: npt.ArrayLike | None = None,
        sequences: Events | None = None,
    ) -> Self:
        """Learn from SIDs (n, L), whose codes at place l are below levels[l]. Row order does not matter.

        weight: (n,) how often each was seen in training, whole numbers; 1 for each where left out.
        sequences: train events whose items are rows of sids, for schemes that look at what follows what.
        Raises DataError for SIDs of several lengths and codes that are none.
        """
        self.check_params()
        self.check_package()
        given = check_sids(sids, levels)
        seen = _check_weight(weight, len(given))
        distinct, own = np.unique(given, axis=0, return_inverse=True)
        rows = own.reshape(-1)
        totals = np.zeros(len(distinct), dtype=np.int64)
        np.add.at(totals, rows, seen)
        if sequences is not None:
            sequences = Events(sequences.users, rows[sequences.items])
        sha256 = hashlib.sha256(np.ascontiguousarray(distinct).data).hexdigest()
        of = {"rows": len(distinct), "dim": len(levels), "levels": [int(k) for k in levels]}
        self.fit_ = {**of, "sha256": sha256}
        self._fit(distinct, totals, sequences)
        return self

    @abstractmethod
    def _fit(self, sids: Codes, weight: Counts, sequences: Events | None) -> None:
        """Learn from distinct SIDs in order of their codes; `levels` is there already."""

    def pieces(self, sids: npt.ArrayLike) -> Codes:
        """Give the pieces of SIDs (n, L), seen in fit or not: (n, W) int32, -1 in the last places."""
        self._fitted()
        return self._pieces(check_sids(sids, self.levels))

    @abstractmethod
    def _pieces(self, sids: Codes) -> Codes:
        """Give the pieces of SIDs."""

    @abstractmethod
    def decode(self, pieces: npt.ArrayLike) -> Codes:
        """Give the SIDs that pieces (n, W) make: (n, L) int32; raises DataError where they make none."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Give the rows of the table: one more than the largest id of a piece."""

    def report(self) -> dict[str, Any]:
        """Give what a scheme has to say of itself, for the record."""
        return {}

    @property
    def levels(self) -> tuple[int, ...]:
        """Give the codes of each place."""
        self._fitted()
        return tuple(self.fit_["levels"])

    @property
    def starts(self) -> Counts:
        """Give where each place's codes begin when all are numbered on: (L,)."""
        return np.concatenate([[0], np.cumsum(self.levels)[:-1]]).astype(np.int64)

    @property
    def most(self) -> int:
        """Give the most rows the table may have."""
        return self.table_size or 2 * sum(self.levels)

    def _checked_pieces(self, pieces: npt.ArrayLike) -> Codes:
        """Give ids of pieces as int32, or raise DataError where they are none of this table's."""
        ids = np.asarray(pieces)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise DataError(f"pieces: expected whole numbers (n, W), got {ids.dtype} {ids.shape}")
        if ids.size and not -1 <= ids.min() <= ids.max() < self.size:
            raise DataError(f"pieces: expected 0 to {self.size - 1}, got {ids.min()} to {ids.max()}")
        return ids.astype(np.int32, copy=False)


class Spelled(Pieces):
    """A way whose every piece stands for codes that are written out, so that `decode` puts them together."""

    @abstractmethod
    def _spelling(self) -> list[tuple[int, ...]]:
        """Give the codes of every piece, numbered on from place to place."""

    def decode(self, pieces: npt.ArrayLike) -> Codes:
        """Give the SIDs that pieces (n, W) make: (n, L) int32; raises DataError where they make none."""
        self._fitted()
        ids = self._checked_pieces(pieces)
        spelling = self._spelling()
        rows, places = np.nonzero(ids >= 0)
        found = [spelling[piece] for piece in ids[rows, places].tolist()]
        owners = np.repeat(rows, [len(codes) for codes in found])
        codes = np.fromiter((code for codes in found for code in codes), np.int64, len(owners))
        level = np.searchsorted(self.starts, codes, side="right") - 1
        sids = np.full((len(ids), len(self.levels)), -1, dtype=np.int32)
        sids[owners, level] = codes - self.starts[level]
        wrong = np.flatnonzero((np.bincount(owners, minlength=len(ids)) != sids.shape[1]) | (sids < 0).any(1))
        if len(wrong):
            raise DataError(f"pieces, row {wrong[0]}: make no SID; expected one code of each level")
        return sids


def check_sids(sids: npt.ArrayLike, levels: Sequence[int]) -> Codes:
    """Give SIDs as (n, L) int32, or raise DataError where lengths differ or a code is none of its level."""
    codes = np.asarray(sids)
    if codes.ndim != 2 or codes.dtype.kind not in "iu":
        raise DataError(f"SIDs: expected whole numbers (n, {len(levels)}), got {codes.dtype} {codes.shape}")
    if not len(codes) and codes.shape[1] == len(levels):
        return codes.astype(np.int32)
    length = one_length((codes >= 0).sum(axis=1))
    if length != len(levels) or codes.shape[1] != length:
        raise DataError(f"SIDs: expected {len(levels)} codes, as there are levels, got {length}")
    wrong = np.argwhere(codes >= np.asarray(levels))
    if len(wrong):
        row, level = wrong[0]
        expected = f"codes 0 to {levels[level] - 1}"
        raise DataError(f"SIDs, row {row}: level {level + 1} has {expected}, got {codes[row, level]}")
    return codes.astype(np.int32, copy=False)


def _check_weight(weight: npt.ArrayLike | None, n: int) -> Counts:
    counts = np.ones(n, dtype=np.int64) if weight is None else np.asarray(weight)
    if counts.shape != (n,) or counts.dtype.kind not in "iu" or (n and counts.min() < 0) or not counts.any():
        raise DataError(f"weight: expected {n} whole numbers >= 0, not all zero")
    return counts.astype(np.int64)
