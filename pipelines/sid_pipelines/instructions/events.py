"""What the events behind samples say: their own split and query, as samples stream by in order of users.

Samples come from `train.arrow` and its like, events from `interactions`: so what a sample says of its target
can be held against the event itself. Both are sorted by user; one chunk of events is held at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sid_pipelines.chunks import TEST, VALID, Chunk

if TYPE_CHECKING:
    from sid_pipelines.trainers.feed import Feed, SampleBatch


@dataclass(frozen=True)
class Targets:
    """What the events of a batch's targets say; arrays are (n,).

    split: as its place in SPLIT_NAMES. held_before: valid or test events in the history, truncated or not.
    query: what the user had searched for, empty where nothing.
    """

    split: npt.NDArray[np.int8]
    held_before: npt.NDArray[np.int64]
    query: list[str]


class TargetEvents:
    """Reads events alongside one split's samples, whose users never go back."""

    def __init__(self, feed: "Feed") -> None:
        """Start at the first user."""
        self._chunks: Iterator[Chunk] = feed.chunks(["user_index", "item_index", "split", "query"])
        self._chunk: Chunk | None = None

    def of(self, batch: "SampleBatch") -> Targets:
        """Give what the events of the next batch's targets say."""
        split = np.zeros(len(batch), dtype=np.int8)
        held = np.zeros(len(batch), dtype=np.int64)
        query = [""] * len(batch)
        done = 0
        while done < len(batch):
            chunk = self._chunk or self._next()
            stop = int(np.searchsorted(batch.user, chunk.users[-1], side="right"))
            if stop > done:
                mine = slice(done, stop)
                first = np.searchsorted(chunk.users, batch.user[mine], side="left")
                rows = first + batch.end[mine]
                split[mine] = chunk.labels[rows]
                before = np.concatenate([[0], np.cumsum((chunk.labels == VALID) | (chunk.labels == TEST))])
                held[mine] = before[rows] - before[first + batch.start[mine]]
                query[mine] = [one or "" for one in chunk.table["query"].take(rows).to_pylist()]
                done = stop
            if done < len(batch):
                self._chunk = None
        return Targets(split, held, query)

    def _next(self) -> Chunk:
        self._chunk = next(self._chunks)
        return self._chunk
