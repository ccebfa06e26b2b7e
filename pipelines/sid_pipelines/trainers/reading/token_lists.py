"""Lists of items as lists of their SIDs' token ids, as Parquet columns; SIDs may differ in length."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.trainers.feed import Feed


class TokenLists:
    """The token ids of every item, held, to be gathered by item number."""

    def __init__(self, feed: Feed) -> None:
        """Read the SIDs."""
        given = feed.sids >= 0
        self.lengths = given.sum(axis=1)
        self._flat = feed.vocabulary.token_ids(feed.sids)[given]
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])

    def of(self, items: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> pa.ListArray:
        """Give lists of int32 token ids for lists of items: list i is of items[offsets[i]:offsets[i + 1]]."""
        sizes = self.lengths[items]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(ends[-1]) - np.repeat(ends[:-1] - self._starts[items], sizes)
        return pa.ListArray.from_arrays(ends[offsets].astype(np.int32), self._flat[places])

    def each(self, items: npt.NDArray[Any]) -> pa.ListArray:
        """Give the token ids of each item, one list for each."""
        return self.of(items, np.arange(len(items) + 1))
