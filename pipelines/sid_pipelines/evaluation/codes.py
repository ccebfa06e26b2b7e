"""SIDs as a model over tokens takes them: one row of codes an item, all rows of one width.

A SID that is shorter than the longest is followed by an `end`, and that by filling that costs nothing. Token
0 begins every history, token 1 is the end, the codes of all places come after.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.sid_items import SidItems
from sid_tokenizers.trie import Trie
from sid_tokenizers.trie_mask import TrieMask
from sid_warehouse.arrays import padded_matrix
from sid_warehouse.reader import Release

I32 = npt.NDArray[np.int32]
START, END, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Codes:
    """The SIDs of all items. sids: (n_items, W) int32, -1 after the end of shorter ones.

    slots: (n_items,) the order of items that share a SID. sizes: how many codes may stand at each place.
    offsets: (W,) the token of code 0 at each place.
    """

    sids: I32
    slots: I32
    sizes: tuple[int, ...]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, release: Release) -> "Codes":
        """Read a release; raises DataError, with what it has instead, where items have no discrete SIDs."""
        if release.metrics["tokenizer"]["gives"] == "vectors":
            raise DataError("an item is a set of vectors, and a model over tokens has nothing to write")
        table = release.table("sids", ["item_index", "sid", "slot"]).sort_by("item_index")
        vocabulary = release.vocabulary
        sids = padded_matrix(table["sid"], vocabulary.length, -1)
        offsets = np.array(vocabulary.offsets) - min(vocabulary.offsets) + FIRST
        slots = table["slot"].to_numpy().astype(np.int32)
        return cls(sids, slots, vocabulary.sizes, tuple(offsets.tolist())).trimmed()

    def trimmed(self) -> "Codes":
        """Give them without places that no SID reaches."""
        width = int((self.sids >= 0).sum(axis=1).max(initial=1))
        return replace(
            self, sids=self.sids[:, :width], sizes=self.sizes[:width], offsets=self.offsets[:width]
        )

    def dealt(self, seed: int) -> "Codes":
        """Give the same SIDs to other items: what they say about their items is gone, all else stays."""
        order = np.random.default_rng(seed).permutation(len(self.sids))
        return replace(self, sids=self.sids[order], slots=self.slots[order])

    @property
    def width(self) -> int:
        """Give the codes of the longest SID."""
        return len(self.sizes)

    @property
    def n_tokens(self) -> int:
        """Give how many tokens there are, start and end among them."""
        return max(offset + size for offset, size in zip(self.offsets, self.sizes, strict=True))

    @property
    def ends(self) -> bool:
        """Say whether SIDs differ in length, so that they need an end."""
        return bool((self.sids < 0).any())

    @cached_property
    def tokens(self) -> npt.NDArray[np.int64]:
        """Give each item's tokens: (n_items, W), END from where a SID has ended."""
        return np.where(self.sids < 0, END, self.sids + np.array(self.offsets))

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Give what is to be learned at each place: a code, sizes[place] for the end, -1 where it is past."""
        past = np.zeros(self.sids.shape, dtype=bool)
        past[:, 1:] = self.sids[:, :-1] < 0
        return np.where(past, -1, np.where(self.sids < 0, self.sizes, self.sids)).astype(np.int64)

    @cached_property
    def tree(self) -> TrieMask:
        """Give all SIDs as masks."""
        return TrieMask(Trie.build(self.sids), self.sizes)

    @cached_property
    def items(self) -> SidItems:
        """Give the way back from SIDs to items, those of one SID in slot order."""
        order = np.lexsort((np.arange(len(self.sids)), self.slots, *self.sids.T[::-1]))
        rows = self.sids[order]
        fresh = np.ones(len(rows), dtype=bool)
        fresh[1:] = (rows[1:] != rows[:-1]).any(axis=1)
        counts = np.diff(np.append(np.flatnonzero(fresh), len(rows)))
        return SidItems(rows[fresh], order.astype(np.int32), counts, self.sizes)
