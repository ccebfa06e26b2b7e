"""Ranges of whole users in a table sorted by user_index, for tasks that must see all events of a user.

Unlike slices.py, which cuts at any row, a cut is moved back to the first row of the user whom it hits. The
driver reads footers and, for each cut, user_index of one row group; it may lie in the part before, as users
go on from one Parquet file to the next.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.chunks import ROWS, Chunk
from sid_pipelines.sharded.given import Given
from sid_pipelines.sharded.slices import Slice, between, read


@dataclass(frozen=True)
class UserRange:
    """Users from `first` to before `stop`, by user_index, and where their rows are: about a chunk in each."""

    first: int
    stop: int
    pieces: tuple[tuple[Slice, ...], ...]

    @property
    def rows(self) -> int:
        """Give how many rows they have."""
        return sum(one.rows for piece in self.pieces for one in piece)

    def chunks(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """Read their rows, piece by piece; only the row groups that hold any are read."""
        for piece in filter(None, self.pieces):
            yield Chunk(pa.Table.from_batches(read(piece, columns)))


@dataclass(frozen=True)
class Divided:
    """What the tasks of a stage know: of the stage, and the users of each."""

    given: Given
    ranges: tuple[UserRange, ...]


def user_ranges(parts: Sequence[Path], users: int, count: int) -> list[UserRange]:
    """Divide all users into at most `count` ranges with about as many rows; fewer where users are few.

    users: how many there are. One user's rows are never divided.
    """
    table = _Sorted(parts)
    wanted = count * max(-(-table.total // (count * ROWS)), 1)
    cuts = [*table.cuts(wanted), (table.total, users)]
    pieces = [
        UserRange(first, stop, (table.between(start, end),)) for (start, first), (end, stop) in pairwise(cuts)
    ]
    edges = sorted({len(pieces) * number // count for number in range(count + 1)})
    return [_joined(pieces[start:end]) for start, end in pairwise(edges)]


def _joined(ranges: Sequence[UserRange]) -> UserRange:
    pieces = tuple(piece for one in ranges for piece in one.pieces)
    return UserRange(ranges[0].first, ranges[-1].stop, pieces)


class _Sorted:
    """A table sorted by user_index: its row groups, and the users of the one that was looked at last."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.parts = [part.absolute() for part in parts]
        self.groups: list[tuple[Path, int]] = []  # a part, and which of its row groups
        lengths, of_parts = [], []
        for part in self.parts:
            metadata = pq.read_metadata(part)
            own = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            self.groups += [(part, number) for number in range(len(own))]
            lengths += own
            of_parts.append(sum(own))
        self.starts = list(accumulate(lengths, initial=0))  # of groups, and the end
        self.edges = list(accumulate(of_parts, initial=0))  # of parts, and the end
        self.total = self.edges[-1]
        self._seen: tuple[int, npt.NDArray[np.int32]] = (-1, np.empty(0, dtype=np.int32))

    def cuts(self, number: int) -> list[tuple[int, int]]:
        """Give the first row and the user of each of so many ranges or fewer, about as long as each other."""
        found = [(0, 0)]
        for row in sorted({self.total * place // number for place in range(1, number)} - {0}):
            user = self._user(row)
            if user == found[-1][1]:
                continue  # as with all cuts in one user's rows but the first
            first = self._first_row(row, user)
            if first > found[-1][0]:
                found.append((first, user))
        return found

    def between(self, start: int, stop: int) -> tuple[Slice, ...]:
        """Give the rows from start to before stop, part by part."""
        return between(self.parts, self.edges, start, stop)

    def _user(self, row: int) -> int:
        group = bisect_right(self.starts, row) - 1
        return int(self._users(group)[row - self.starts[group]])

    def _first_row(self, row: int, user: int) -> int:
        """Give the first row of the user who has this row; it may be some row groups before."""
        group = bisect_right(self.starts, row) - 1
        while not (place := int(np.searchsorted(self._users(group), user))) and group:
            group -= 1
        return int(self.starts[group]) + place

    def _users(self, group: int) -> npt.NDArray[np.int32]:
        if self._seen[0] != group:
            part, number = self.groups[group]
            with pq.ParquetFile(part, pre_buffer=False) as file:
                column = file.read_row_group(number, columns=["user_index"])["user_index"]
            self._seen = group, column.to_numpy()
        return self._seen[1]
