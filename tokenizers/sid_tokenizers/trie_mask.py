"""Which codes may follow, for many beams at once: the tree of trie.py as arrays that take whole batches.

`Trie.allowed` answers for one prefix and is the slow twin. Here a beam is the number of its node, -1 where no
SID goes on as it did; all beams look for their next code at once, each among those of its node, and logits of
a place are masked as one block. Where few codes follow a node they are scattered, elsewhere a table has all.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sid_tokenizers.trie import Trie

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Logits = npt.NDArray[np.floating]

SMALL = 2**20  # cells of a table that is made whatever it holds
FULL = 32  # else one cell in so many has to be a code that may follow


class TrieMask:
    """All SIDs as masks over logits. Nodes are (n,) int64, one for each beam; places count from 0.

    trie: over the SIDs. sizes: how many codes may stand at each place, as `vocabulary.sizes` has them.

    >>> mask = TrieMask(Trie.build([[0, 1], [0, 2], [1, 0]]), (2, 3))
    >>> nodes = mask.step(mask.start(2), np.array([0, 1]))
    >>> mask.allowed(nodes, place=1).astype(int).tolist()
    [[0, 1, 1], [1, 0, 0]]
    """

    def __init__(self, trie: Trie, sizes: Sequence[int]) -> None:
        """Look at the tree; raises ValueError where it has codes or places that `sizes` does not."""
        self.trie, self.sizes = trie, tuple(sizes)
        self._offsets = trie.offsets.astype(np.int64)
        self._levels = self._check(_levels(self._offsets))
        self._tables: dict[int, Bools] = {}

    @property
    def length(self) -> int:
        """Give the codes of the longest SID that may be."""
        return len(self.sizes)

    def start(self, n: int) -> I64:
        """Give n beams that have no code yet."""
        return np.zeros(n, dtype=np.int64)

    def step(self, nodes: npt.ArrayLike, codes: npt.ArrayLike) -> I64:
        """Take every beam one code further: (n,), (n,) -> (n,); -1 where no SID goes on so."""
        at, code = np.asarray(nodes, dtype=np.int64), np.asarray(codes, dtype=np.int64)
        low, high = (
            self._offsets[at],
            self._offsets[at + 1],
        )  # of -1: from the end to 0
        end, last = high, len(self.trie.codes) - 1
        if last < 0:
            return np.full(len(at), -1, dtype=np.int64)
        while (low < high).any():
            middle = np.minimum((low + high) >> 1, last)
            less = (self.trie.codes[middle] < code) & (low < high)
            low, high = np.where(less, middle + 1, low), np.where(less, high, np.minimum(middle, high))
        found = (low < end) & (self.trie.codes[np.minimum(low, last)] == code)
        return np.where(found, low + 1, -1)

    def walk(self, prefixes: npt.ArrayLike) -> I64:
        """Give where prefixes (n, p) lead, p from 0 on, from the root: (n,); -1 where to no SID."""
        rows = np.asarray(prefixes)
        nodes = self.start(len(rows))
        for place in range(rows.shape[1]):
            nodes = self.step(nodes, rows[:, place])
        return nodes

    def find(self, sids: npt.ArrayLike) -> I64:
        """Give where SIDs (n, W) end, filled with -1 where they are shorter: (n,); -1 where none ends so."""
        rows = np.asarray(sids)
        nodes = self.start(len(rows))
        for place in range(rows.shape[1]):
            nodes = np.where(rows[:, place] < 0, nodes, self.step(nodes, rows[:, place]))
        holed = ((rows[:, 1:] >= 0) & (rows[:, :-1] < 0)).any(axis=1)
        return np.where(self.ends(nodes) & ~holed, nodes, -1)

    def ends(self, nodes: npt.ArrayLike) -> Bools:
        """Say where a SID is complete: (n,). One that is may still begin a longer one."""
        at = np.asarray(nodes, dtype=np.int64)
        return (at >= 0) & (self.trie.items[at] >= 0)

    def allowed(self, nodes: npt.ArrayLike, *, place: int) -> Bools:
        """Say which codes may stand at a place, beam by beam: (n, sizes[place]); none for a beam at -1."""
        at = np.asarray(nodes, dtype=np.int64)
        if self.has_table(place):
            return np.broadcast_to(self.rows(at, place=place), (len(at), self.sizes[place]))
        out = np.zeros((len(at), self.sizes[place]), dtype=bool)
        out[self.pairs(at)] = True
        return out

    def pairs(self, nodes: npt.ArrayLike) -> tuple[I64, I32]:
        """Give the same as (rows, codes) of all that is allowed, row by row, codes ascending."""
        at = np.asarray(nodes, dtype=np.int64)
        first = self._offsets[at]
        counts = np.where(at >= 0, self._offsets[at + 1] - first, 0)
        rows = np.repeat(np.arange(len(at)), counts)
        edges = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts - first, counts)
        return rows, self.trie.codes[edges]

    def mask(self, logits: Logits, nodes: npt.ArrayLike, *, place: int) -> Logits:
        """Give logits (n, sizes[place]) of a place's codes with -inf where a code may not stand.

        Slice the logits to the codes of the place first: a mask of the whole vocabulary costs several times
        as much, nearly all of it for codes that cannot stand there anyway.
        """
        at = np.asarray(nodes, dtype=np.int64)
        nothing = logits.dtype.type(-np.inf)
        if self.has_table(place):
            return np.where(self.rows(at, place=place), logits, nothing)
        out = np.full_like(logits, nothing)
        rows, codes = self.pairs(at)
        out[rows, codes] = logits[rows, codes]
        return out

    def rows(self, nodes: npt.ArrayLike, *, place: int) -> Bools:
        """Give the same from a place's table; one row where all beams are at one node, as at the root."""
        at = np.asarray(nodes, dtype=np.int64)
        if len(at) and (at == at[0]).all():
            at = at[:1]
        return self._table(place)[np.where(at < 0, -1, at - self._levels[place])]

    def has_table(self, place: int) -> bool:
        """Say whether a place has a table of all its nodes and codes; where not, `pairs` is the quick way."""
        first, last = self._levels[place : place + 2]
        edges = int(self._offsets[last] - self._offsets[first])
        return (last - first) * self.sizes[place] <= max(SMALL, FULL * edges)

    def _table(self, place: int) -> Bools:
        """Give (nodes of the place + 1, sizes[place]); the last row, which -1 finds, is empty."""
        if place not in self._tables:
            first, last = self._levels[place : place + 2]
            table = np.zeros((last - first + 1, self.sizes[place]), dtype=bool)
            table[self.pairs(np.arange(first, last))] = True
            self._tables[place] = table
        return self._tables[place]

    def _check(self, levels: list[int]) -> list[int]:
        """Give the bounds of every place's nodes, those of places that no SID reaches included."""
        reached = len(levels) - 2
        if reached > self.length:
            raise ValueError(f"expected SIDs of up to {self.length} codes, got {reached}")
        for place in range(reached):
            codes = self.trie.codes[self._offsets[levels[place]] : self._offsets[levels[place + 1]]]
            if int(codes.max()) >= self.sizes[place]:
                raise ValueError(
                    f"place {place}: expected codes below {self.sizes[place]}, got {int(codes.max())}"
                )
        return levels + levels[-1:] * (self.length - reached)


def _levels(offsets: I64) -> list[int]:
    """Give where the nodes of each place begin, and one past the last: nodes are numbered place by place."""
    bounds = [0, 1]
    while offsets[bounds[-1]] > offsets[bounds[-2]]:
        bounds.append(int(offsets[bounds[-1]]) + 1)
    return bounds
