"""From SIDs back to items, for whole batches: all items that share a SID, in slot order, and ranked lists.

A model cannot tell items of one SID apart, so their order is declared: the lowest slot first. Unlike
`Trie.item`, which names one item of one SID, this gives all items of many.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sid_tokenizers.trie import Trie
from sid_tokenizers.trie_mask import TrieMask

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """The items of n SIDs, end to end: those of SID i are items[offsets[i]:offsets[i + 1]], in slot order."""

    items: I32
    offsets: I64

    def lists(self) -> list[list[int]]:
        """Give the items of each SID as a list."""
        return [part.tolist() for part in np.split(self.items, self.offsets[1:-1])] if len(self) else []

    def __len__(self) -> int:
        """Give the number of SIDs."""
        return len(self.offsets) - 1


class SidItems:
    """All SIDs with their items, the table `sid_to_items` in arrays.

    sids: (n, W) distinct SIDs, -1 at the end where they are shorter. items: all their items in slot order,
    SID after SID. counts: (n,) how many each has. sizes: how many codes may stand at each place.

    >>> way = SidItems(np.array([[0, 1], [1, 0]]), np.array([4, 2, 7]), np.array([2, 1]), (2, 2))
    >>> way.of([[1, 0], [0, 1], [1, 1]]).lists()
    [[7], [4, 2], []]
    >>> way.ranked([[[1, 0], [0, 1]]], top=4).tolist()
    [[7, 4, 2, -1]]
    """

    def __init__(
        self, sids: npt.ArrayLike, items: npt.ArrayLike, counts: npt.ArrayLike, sizes: tuple[int, ...]
    ) -> None:
        """Index the SIDs."""
        rows, self._items = np.asarray(sids, dtype=np.int32), np.asarray(items, dtype=np.int32)
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        # A node names the row of the SID that ends there, as nodes of other trees name items.
        self._mask = TrieMask(Trie.build(rows), sizes)

    def of(self, sids: npt.ArrayLike) -> Found:
        """Give the items of SIDs (n, W), -1 after the end of shorter ones; none for what is no SID.

        Raises ValueError for another shape.
        """
        given = np.asarray(sids, dtype=np.int32)
        if given.ndim != 2:
            raise ValueError(f"expected SIDs of shape (n, {self._mask.length}), got {given.shape}")
        nodes = self._mask.find(given)
        rows = np.where(nodes < 0, -1, self._mask.trie.items[nodes])
        first = self._starts[rows]
        counts = np.where(rows < 0, 0, self._starts[rows + 1] - first)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        steps = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - first, counts)
        return Found(self._items[steps], offsets)

    def ranked(
        self, beams: npt.ArrayLike, *, top: int, exclude: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.int32]:
        """Give the items of ranked SIDs as one ranked list for each row: (B, k, W) -> (B, top) item_index.

        A SID that several items share takes as many ranks, by slot; what comes again, or is no SID, takes
        none. exclude: (B, m) items that are left out, such as a user's history, filled with -1. Where there
        are fewer than `top`, -1 fills the rest.
        """
        given = np.asarray(beams)
        batch, width, length = given.shape
        found = self.of(given.reshape(batch * width, length))
        rows = np.repeat(np.arange(batch * width) // max(width, 1), np.diff(found.offsets))
        span = int(self._items.max(initial=0)) + 1
        keys = rows * span + found.items
        keep = np.zeros(len(keys), dtype=bool)
        keep[np.unique(keys, return_index=True)[1]] = True
        if exclude is not None:
            left_out = np.asarray(exclude, dtype=np.int64)
            real = (left_out >= 0) & (left_out < span)
            keep &= ~np.isin(keys, (left_out + np.arange(batch)[:, None] * span)[real])
        rows, items = rows[keep], found.items[keep]
        ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
        out = np.full((batch, top), -1, dtype=np.int32)
        shown = ranks < top
        out[rows[shown], ranks[shown]] = items[shown]
        return out
