"""Ranges of a table's rows, so that a shard need not be a file: local parts hold eight million rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Slice:
    """Rows start to stop of one Parquet file."""

    path: Path
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Give how many rows it has."""
        return self.stop - self.start


def cut(parts: Sequence[Path], count: int) -> list[tuple[Slice, ...]]:
    """Divide a table's rows, in order, into so many runs of about equal length, or one for each row.

    They begin with row groups where those are small enough, so that none is read twice.
    """
    parts = [part.absolute() for part in parts]  # workers start elsewhere
    lengths = [_groups(part) for part in parts]
    groups = np.cumsum([0, *(rows for part in lengths for rows in part)])
    total = int(groups[-1])
    wanted = np.unique(np.arange(count) * total // count)
    snapped = groups[np.searchsorted(groups, wanted, side="right") - 1]
    edges = [*(wanted if len(np.unique(snapped)) < len(wanted) else snapped).tolist(), total]
    firsts = [0, *accumulate(sum(part) for part in lengths)]
    return [between(parts, firsts, start, stop) for start, stop in pairwise(edges)]


def between(parts: Sequence[Path], firsts: Sequence[int], start: int, stop: int) -> tuple[Slice, ...]:
    """Give rows `start` to before `stop` of a table. firsts: the first row of each part, and the end."""
    return tuple(
        Slice(part, max(start, first) - first, min(stop, end) - first)
        for part, (first, end) in zip(parts, pairwise(firsts), strict=True)
        if max(start, first) < min(stop, end)
    )


def _groups(part: Path) -> list[int]:
    metadata = pq.read_metadata(part)
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def read(
    slices: Sequence[Slice], columns: Sequence[str], dictionaries: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Yield columns of all rows in order; dictionaries: columns to read as such."""
    for one in slices:
        starts = np.cumsum([0, *_groups(one.path)])
        groups = np.flatnonzero((starts[:-1] < one.stop) & (starts[1:] > one.start)).tolist()
        start = int(starts[groups[0]])
        with pq.ParquetFile(one.path, pre_buffer=False, read_dictionary=list(dictionaries)) as file:
            for batch in file.iter_batches(1 << 17, row_groups=groups, columns=list(columns)):
                first, last = max(one.start - start, 0), min(one.stop - start, batch.num_rows)
                start += batch.num_rows
                if first < last:
                    yield batch.slice(first, last - first)


def rows_between(parts: Sequence[Path], columns: Sequence[str], start: int, stop: int) -> pa.Table:
    """Read columns of a table's rows from `start` to before `stop`, from row groups that hold any."""
    firsts = [0, *accumulate(pq.read_metadata(part).num_rows for part in parts)]
    schema = pq.read_schema(parts[0])
    found = read(between(parts, firsts, start, stop), columns)
    return pa.Table.from_batches(found, pa.schema([schema.field(name) for name in columns]))
