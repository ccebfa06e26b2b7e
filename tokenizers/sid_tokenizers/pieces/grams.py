"""Pieces of a fixed cut: groups of neighbouring codes, or everything up to a code. Nothing is learned.

Where a group has more combinations than its share of the table, they are hashed to its rows, and several
share one: `report` counts them. sentence_piece.py spends the same rows on what is seen often.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes
from sid_tokenizers.catalogue import Events
from sid_tokenizers.collisions.hashed import mix_rows
from sid_tokenizers.pieces.base import Counts, Pieces
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits


class Grams(Pieces):
    """Every group of codes has an equal share of the table, and there a row for each of its combinations.

    Learns `known_`: the SIDs seen, by which `decode` undoes what was hashed.
    """

    known_: Codes

    @abstractmethod
    def _groups(self) -> list[slice]:
        """Give the levels of each group."""

    def _fit(self, sids: Codes, weight: Counts, sequences: Events | None) -> None:
        groups = len(self._groups())
        if self.most < groups:
            raise DataError(f"table_size: expected {groups} or more, a row for each group, got {self.most}")
        self.known_ = sids

    def _combinations(self) -> list[int]:
        return [math.prod(self.levels[group]) for group in self._groups()]

    def _rows(self) -> list[int]:
        """Give the rows of each group: its combinations, or its share where that is less."""
        share = self.most // len(self._groups())
        return [min(combinations, share) for combinations in self._combinations()]

    @property
    def size(self) -> int:
        """Give the rows of the table."""
        return sum(self._rows())

    @property
    def _hashed(self) -> list[bool]:
        return [rows < all_of for rows, all_of in zip(self._rows(), self._combinations(), strict=True)]

    def _pieces(self, sids: Codes) -> Codes:
        columns, offset = [], 0
        for number, (group, rows, hashed) in enumerate(
            zip(self._groups(), self._rows(), self._hashed, strict=True)
        ):
            codes = sids[:, group]
            if hashed:
                row = (mix_rows(codes, self.seed + number) % np.uint64(rows)).astype(np.int64)
            else:
                row = np.ravel_multi_index(tuple(codes.T), self.levels[group])
            columns.append(row + offset)
            offset += rows
        return np.stack(columns, axis=1).astype(np.int32)

    def decode(self, pieces: npt.ArrayLike) -> Codes:
        """Give the SIDs that pieces (n, groups) make: (n, L) int32.

        What was hashed is looked up among the SIDs of fit. Raises DataError for pieces that are none of
        theirs, or of two.
        """
        self._fitted()
        ids = self._checked_pieces(pieces)
        if ids.shape[1] != len(self._groups()):
            raise DataError(f"pieces: expected shape (n, {len(self._groups())}), got {ids.shape}")
        sids = self._looked_up(ids) if any(self._hashed) else self._computed(ids)
        wrong = np.flatnonzero((sids < 0).any(axis=1))
        if len(wrong):
            raise DataError(
                f"pieces, row {wrong[0]}: are those of no SID that was fitted on, or of several; "
                "where they are of several, raise table_size"
            )
        return sids

    def _computed(self, ids: Codes) -> Codes:
        sids = np.full((len(ids), len(self.levels)), -1, dtype=np.int32)
        offset = 0
        for number, (group, rows) in enumerate(zip(self._groups(), self._rows(), strict=True)):
            row = ids[:, number] - offset
            fits = (row >= 0) & (row < rows)
            found = np.stack(np.unravel_index(np.where(fits, row, 0), self.levels[group]), axis=1)
            sids[:, group] = np.where(fits[:, None], found, -1)
            offset += rows
        return np.where((self._pieces(np.maximum(sids, 0)) == ids).all(axis=1)[:, None], sids, -1)

    def _looked_up(self, ids: Codes) -> Codes:
        known = len(self.known_)
        pieces = np.concatenate([self._pieces(self.known_), ids])
        group = np.unique(pieces, axis=0, return_inverse=True)[1].reshape(-1)
        sharing = np.bincount(group[:known], minlength=group.max(initial=-1) + 1)
        owner = np.full(len(sharing), -1)
        owner[group[:known]] = np.arange(known)
        owner[sharing != 1] = -1
        found = owner[group[known:]]
        return np.where(found[:, None] < 0, np.int32(-1), self.known_[found])

    def report(self) -> dict[str, Any]:
        """Give the collision table: for each group of levels how many combinations seen share a row."""
        pieces = self._pieces(self.known_)
        groups = []
        for number, group in enumerate(self._groups()):
            pairs = np.unique(
                np.concatenate([pieces[:, number : number + 1], self.known_[:, group]], axis=1), axis=0
            )
            used = np.unique(pairs[:, 0], return_counts=True)[1]
            groups.append(
                {
                    "levels": [group.start + 1, group.stop],
                    "rows": self._rows()[number],
                    "hashed": self._hashed[number],
                    "distinct": len(pairs),
                    "sharing": int(used[used > 1].sum()),
                }
            )
        alike = np.unique(pieces, axis=0, return_counts=True)[1]
        return {"groups": groups, "sids_sharing_all_pieces": int(alike[alike > 1].sum())}

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"known": self.known_}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.known_ = arrays["known"]


class NGram(Grams):
    """Consecutive groups of n codes, the last one shorter where n does not divide the length.

    A group's row is its offset and sum_j c_j K^(n-1-j), or a hash of its codes where K^n is more than its
    share of the table. n: codes of a group; 1 is one row for each code. table_size: see `Pieces`; the groups
    share it evenly. seed: of the hash.
    """

    name: ClassVar[str] = "ngram"
    paper: ClassVar[str] = "Singh et al. 2023, Better Generalization with Semantic IDs [S]; the hash [D]"
    traits: ClassVar[Traits] = Traits(inputs=())

    def __init__(self, *, n: int = 2, table_size: int = 0, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.n = n
        self.table_size = table_size
        self.seed = seed

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        super().check_params()
        check_at_least(self, n=1)

    def _groups(self) -> list[slice]:
        length = len(self.levels)
        return [slice(start, min(start + self.n, length)) for start in range(0, length, self.n)]


class PrefixNGram(Grams):
    """A piece for every prefix, as long as the SID: its first code, its first two, and so on to all.

    table_size: see `Pieces`; prefixes of each length have an equal share. seed: of the hash.
    """

    name: ClassVar[str] = "prefix-ngram"
    paper: ClassVar[str] = "Singh et al. 2023, Better Generalization with Semantic IDs [S]; the hash [D]"
    traits: ClassVar[Traits] = Traits(inputs=())

    def __init__(self, *, table_size: int = 0, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.table_size = table_size
        self.seed = seed

    def _groups(self) -> list[slice]:
        return [slice(0, stop) for stop in range(1, len(self.levels) + 1)]
