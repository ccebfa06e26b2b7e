"""All SIDs of a release as a prefix tree in compressed rows: what may follow a prefix, and whose SID it is.

Node 0 is the root. The edges of node v stand at offsets[v]:offsets[v + 1] of `codes`, ascending; edge e
leads to node e + 1. `items` gives the lowest item_index whose SID ends at a node, or -1. Where SIDs differ in
length, one may end at a node that has edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Trie:
    """A read-only prefix tree over SIDs."""

    offsets: I32
    codes: I32
    items: I32

    @classmethod
    def build(cls, sids: npt.ArrayLike) -> "Trie":
        """Build from (n, W) codes, row i being item i; of equal SIDs the lowest row is named.

        A SID shorter than W has -1 in its last places.
        """
        rows = np.asarray(sids, dtype=np.int32)
        order = np.lexsort(rows.T[::-1])
        rows = rows[order]
        n, length = rows.shape
        # A node per distinct prefix, numbered level by level in ascending order.
        parent = np.zeros(n, dtype=np.int64)
        edges: list[tuple[npt.NDArray[np.int64], I32]] = []
        nodes = 1
        fresh = np.zeros(n, dtype=bool)
        fresh[:1] = True
        for level in range(length):
            goes_on = rows[:, level] >= 0
            fresh[1:] |= rows[1:, level] != rows[:-1, level]
            new = fresh & goes_on
            edges.append((parent[new], rows[new, level]))
            parent = np.where(goes_on, nodes + np.cumsum(new) - 1, parent)
            nodes += int(new.sum())
        parents = np.concatenate([edge[0] for edge in edges])
        codes = np.concatenate([edge[1] for edge in edges])
        counts = np.bincount(parents, minlength=nodes)
        items = np.full(nodes, -1, dtype=np.int32)
        items[parent[fresh]] = order[fresh]
        return cls(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            codes=codes,
            items=items,
        )

    def allowed(self, prefix: Sequence[int]) -> I32:
        """Give the codes that may follow a prefix, ascending; none where nothing goes on."""
        node = self._walk(prefix)
        return self.codes[:0] if node is None else self.codes[self._edges(node)]

    def item(self, sid: Sequence[int]) -> int | None:
        """Give the lowest item_index that has a SID, or None where no item has it."""
        node = self._walk(sid)
        return None if node is None or self.items[node] < 0 else int(self.items[node])

    def save(self, path: Path) -> None:
        """Write `trie.safetensors`."""
        from safetensors.numpy import save_file

        save_file({name: getattr(self, name) for name in self.__dataclass_fields__}, path)

    @classmethod
    def load(cls, path: Path) -> "Trie":
        """Read `trie.safetensors`; raises DataError where that is no tree."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            trie = cls(**load_file(path))
        except (SafetensorError, OSError, TypeError) as error:
            raise DataError(f"{path}: cannot be read as a trie ({error}); it is damaged") from error
        arrays = (trie.offsets, trie.codes, trie.items)
        nodes = len(trie.codes) + 1  # each but the root at the end of an edge
        whole = all(one.dtype == np.int32 and one.ndim == 1 for one in arrays)
        if not whole or (len(trie.offsets), len(trie.items)) != (nodes + 1, nodes):
            shapes = ", ".join(f"{one.dtype} {one.shape}" for one in arrays)
            raise DataError(f"{path}: expected offsets, codes and items of one tree, got {shapes}")
        return trie

    def _edges(self, node: int) -> slice:
        return slice(int(self.offsets[node]), int(self.offsets[node + 1]))

    def _walk(self, prefix: Sequence[int]) -> int | None:
        node = 0
        for code in prefix:
            edges = self._edges(node)
            at = edges.start + int(np.searchsorted(self.codes[edges], code))
            if at >= edges.stop or self.codes[at] != code:
                return None
            node = at + 1
        return node
