"""Pieces of unordered items: byte-pair encoding over sets of codes, and over sets that follow each other.

Unlike sentence_piece.py a piece may hold codes of places that are no neighbours, and of two items that are
often seen one after the other. Those show in `encode_sequence` alone; an item by itself never has them.
"""

from itertools import combinations, pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes
from sid_tokenizers.catalogue import Events
from sid_tokenizers.indexers.paths import padded
from sid_tokenizers.pieces.action_merges import Corpus, learn
from sid_tokenizers.pieces.base import Counts, Spelled, check_sids
from sid_tokenizers.scheme import Traits


class ActionPiece(Spelled):
    """The pair of the greatest weight becomes one piece, until the table is full or no two pieces meet.

    Weights are 2/M within an item of M pieces and 1/(M1 M2) between neighbours. What two neighbours are
    merged into stands between them, and meets both. As in the code read, except that there is no padding
    piece; that every code has a piece, seen or not; that an item whose last piece is gone never keeps its
    neighbours apart; and that a lone item is cut by the earliest rule first, not by the weight it once had.
    Without sequences, pairs within items count alone, as often as `weight` says. table_size: see `Pieces`;
    40,000 in the source. seed: without effect; `encode_sequence` has its own.
    Learns `rules_`: (r, 2) int32, the pieces that piece sum(levels) + r is made of.
    """

    name: ClassVar[str] = "actionpiece"
    paper: ClassVar[str] = "Hou et al. 2025, ActionPiece [C]; for what differs see the class [D]"
    traits: ClassVar[Traits] = Traits(inputs=())

    rules_: npt.NDArray[np.int32]

    def __init__(self, *, table_size: int = 0, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.table_size = table_size
        self.seed = seed

    def _fit(self, sids: Codes, weight: Counts, sequences: Events | None) -> None:
        first = sum(self.levels)
        if self.most < first:
            raise DataError(f"table_size: expected {first} or more, a row for each code, got {self.most}")
        tokens = sids + self.starts
        if sequences is None:
            corpus = Corpus(tokens, np.arange(len(sids)), weight)
        else:
            times = np.ones(len(sequences.items), dtype=np.int64)
            corpus = Corpus(tokens[sequences.items], sequences.users, times)
        rules = learn(corpus, first, self.most - first)
        self._restore({"rules": np.array(rules, dtype=np.int32).reshape(-1, 2)})

    @property
    def size(self) -> int:
        """Give the rows of the table."""
        return sum(self.levels) + len(self.rules_)

    def _pieces(self, sids: Codes) -> Codes:
        distinct, row = np.unique(sids, axis=0, return_inverse=True)
        cut = [self._cut(tokens) for tokens in (distinct + self.starts).tolist()]
        return padded(cut)[row.reshape(-1)]

    def _cut(self, tokens: list[int]) -> list[int]:
        """Merge tokens of one item, the earliest rule first; in order of their first place."""
        while True:
            known = [pair for pair in combinations(sorted(tokens), 2) if pair in self._rank]
            if not known:
                return sorted(tokens, key=lambda token: min(self._spelled[token]))
            first = min(known, key=self._rank.__getitem__)
            tokens = [*(token for token in tokens if token not in first), self._rank[first]]

    def encode_sequence(self, sids: npt.ArrayLike, *, seed: int = 0) -> npt.NDArray[np.int32]:
        """Give the pieces of items that follow each other: (t, L) -> (m,) int32, the codes of each shuffled.

        Neighbours in the shuffled line are merged, the earliest rule first. Another seed gives other pieces
        of the same codes, which the source trains on anew each epoch and averages over in inference.
        """
        self._fitted()
        draw = np.random.default_rng(seed)
        tokens = check_sids(sids, self.levels) + self.starts
        line: list[int] = draw.permuted(tokens, axis=1).ravel().tolist()
        while True:
            pairs = [(min(two), max(two)) for two in pairwise(line)]
            known = [(self._rank[pair], place) for place, pair in enumerate(pairs) if pair in self._rank]
            if not known:
                return np.array(line, dtype=np.int32)
            new, place = min(known)
            line[place : place + 2] = [new]

    def _spelling(self) -> list[tuple[int, ...]]:
        return self._spelled

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"rules": self.rules_}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.rules_ = arrays["rules"]
        first = sum(self.levels)
        rules: list[list[int]] = self.rules_.tolist()
        self._rank = {(one, other): first + number for number, (one, other) in enumerate(rules)}
        self._spelled: list[tuple[int, ...]] = [(code,) for code in range(first)]
        for one, other in rules:
            self._spelled.append(self._spelled[one] + self._spelled[other])
