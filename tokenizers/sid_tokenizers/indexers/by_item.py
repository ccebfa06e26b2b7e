"""What a scheme learned of single items, kept by item id; and strings, kept in arrays of bytes.

Tokenizers remember by the values of a vector (rq_kmeans_balanced.py). Indexers know ids, and equal vectors of
two items must not be confused.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ByItem:
    """A number for every item seen. hashes: (n,) uint64, ascending; values: (n,) int32, in their order.

    64 bits stand for an id: among a million, two are equal with a chance of one in 37 million.

    >>> ByItem.of(["a", "b"], np.array([3, 4])).get(["b", "c"]).tolist()
    [4, -1]
    """

    hashes: npt.NDArray[np.uint64]
    values: npt.NDArray[np.int32]

    @classmethod
    def of(cls, item_ids: Sequence[str], values: npt.ArrayLike) -> Self:
        """Keep a number of each item."""
        hashes = id_hashes(item_ids)
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], np.asarray(values, dtype=np.int32)[order])

    def get(self, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Give the numbers of items, -1 for those not seen."""
        wanted = id_hashes(item_ids)
        place = np.searchsorted(self.hashes, wanted)
        place[place == len(self.hashes)] = 0
        seen = self.hashes[place] == wanted if len(self.hashes) else np.zeros(len(wanted), dtype=bool)
        found = np.full(len(wanted), -1, dtype=np.int64)
        found[seen] = self.values[place[seen]]
        return found


def id_hashes(item_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Give 64 bits for each id: (n,) uint64, the same on every machine."""
    digests = b"".join(blake2b(item.encode(), digest_size=8).digest() for item in item_ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def bytes_of(strings: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Give strings as an array, for `Scheme._arrays`.

    >>> strings_of(bytes_of(["Sci-Fi", ""]))
    ['Sci-Fi', '']
    """
    return np.frombuffer(json.dumps(list(strings)).encode(), dtype=np.uint8)


def strings_of(array: npt.NDArray[np.uint8]) -> list[str]:
    """Give the strings back."""
    strings: list[str] = json.loads(array.tobytes())
    return strings
