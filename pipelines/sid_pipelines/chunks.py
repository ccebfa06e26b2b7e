"""Whole users at a time: stored events as tables and arrays of about a million rows, never all at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_schemas.tables import SPLIT_NAMES

ROWS = 1 << 20  # of a chunk; one user's rows are never divided
BATCH = 1 << 17  # rows read at a time
TRAIN, VALID, TEST, CONTEXT = range(len(SPLIT_NAMES))  # as labels
MINUTE = 60_000  # in milliseconds
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Chunk:
    """Whole users' events, user after user; arrays have one entry per event unless said otherwise."""

    table: pa.Table

    def __len__(self) -> int:
        """Give the number of events."""
        return len(self.table)

    def array(self, column: str) -> npt.NDArray[Any]:
        """Give a column of numbers."""
        values: npt.NDArray[Any] = self.table[column].to_numpy()
        return values

    @cached_property
    def users(self) -> npt.NDArray[np.int32]:
        """Give the user of each event."""
        return self.array("user_index")

    @cached_property
    def items(self) -> npt.NDArray[np.int32]:
        """Give the item of each event."""
        return self.array("item_index")

    @cached_property
    def ts(self) -> Rows:
        """Give the time of each event, in milliseconds."""
        return self.array("ts")

    @cached_property
    def labels(self) -> Labels:
        """Give the split of each event as its place in SPLIT_NAMES."""
        places = pc.index_in(self.table["split"], pa.array(SPLIT_NAMES))
        return places.to_numpy().astype(np.int8)  # type: ignore[no-any-return]

    @cached_property
    def edges(self) -> Rows:
        """Give the first row of each user, and the end: (users + 1,)."""
        starts = np.flatnonzero(self.users[1:] != self.users[:-1]) + 1
        return np.concatenate([[0], starts, [len(self)]])

    @cached_property
    def sizes(self) -> Rows:
        """Give the number of events of each user: (users,)."""
        return np.diff(self.edges)

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Give each event its user's value. values: (users,)."""
        return np.repeat(values, self.sizes)

    @cached_property
    def first(self) -> Rows:
        """Give the first row of each event's user."""
        return self.spread(self.edges[:-1])

    @cached_property
    def place(self) -> Rows:
        """Give the place of each event among its user's, from 0."""
        return np.arange(len(self)) - self.first

    @cached_property
    def tied(self) -> Mask:
        """Say of each event whether its user's event before it has the same time."""
        same = np.zeros(len(self), dtype=bool)
        same[1:] = (self.ts[1:] == self.ts[:-1]) & (self.users[1:] == self.users[:-1])
        return same

    def last_before(self, mask: Mask) -> Rows:
        """Give the place of the user's last event before each one where `mask` holds, or -1."""
        rows = np.arange(len(self))
        marked = np.maximum.accumulate(np.where(mask, rows, -1))
        before = np.concatenate([[-1], marked[:-1]])
        return np.maximum(before - self.first, -1)

    def any_of_user(self, mask: Mask) -> Mask:
        """Say of each user whether `mask` holds for any event: (users,)."""
        return np.logical_or.reduceat(mask, self.edges[:-1])

    @cached_property
    def session_codes(self) -> Rows:
        """Give a number of each event's session_id, -1 where it has none; other users may share it."""
        ids = pa.chunked_array(self.table["session_id"]).combine_chunks()
        codes = pc.fill_null(ids.dictionary_encode().indices, -1)
        return codes.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]

    def session_starts(self, gap_ms: int) -> Mask:
        """Say of each event whether a session begins with it.

        A session is a run of events with one session_id, or of events without any, none of which is
        more than `gap_ms` after the one before. No session_id is ever divided: sessions that stand
        between each other's events, as those of two tabs do, are one session.
        """
        begins, codes = self.place == 0, self.session_codes
        later = np.diff(self.ts, prepend=self.ts[:1]) > gap_ms
        if (codes == -1).all():
            return begins | later  # type: ignore[no-any-return]
        other = np.diff(codes, prepend=codes[:1]) != 0
        begins |= other | ((codes == -1) & later)
        last = np.arange(len(self))
        with_id = np.flatnonzero(codes != -1)
        keys = self.users[with_id].astype(np.int64) << 32 | codes[with_id]
        _, back, own = np.unique(keys[::-1], return_index=True, return_inverse=True)
        last[with_id] = with_id[len(with_id) - 1 - back[own[::-1]]]
        reached = np.concatenate([[-1], np.maximum.accumulate(last)[:-1]])  # by the sessions before
        return begins & (reached < np.arange(len(self)))  # type: ignore[no-any-return]


def chunks(parts: Sequence[Path], columns: list[str] | None = None, rows: int = ROWS) -> Iterator[Chunk]:
    """Yield a table sorted by user_index in pieces of whole users, each about `rows` rows long."""
    held: list[pa.RecordBatch] = []
    length = 0
    for batch in _batches(parts, columns, min(rows, BATCH)):
        held.append(batch)
        length += batch.num_rows
        if length < rows:
            continue
        table = pa.Table.from_batches(held)
        users = table["user_index"].to_numpy()
        whole = int(np.searchsorted(users, users[-1]))  # the last user's rows may go on
        if whole:
            yield Chunk(table.slice(0, whole))
            held, length = table.slice(whole).to_batches(), length - whole
    if length:
        yield Chunk(pa.Table.from_batches(held))


def _batches(parts: Sequence[Path], columns: list[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=rows, columns=columns)
