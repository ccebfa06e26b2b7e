"""Raw interactions by number: which user and item each row is of, and which rows are still there.

The rows are those of a whole data set or of a bucket of its users; `clean` judges both by the same functions.
One byte per row says whether it is there, two integers which user and item it is of, both mapped from disk
but for a bucket's items, which are in memory; what a row holds is read again only for what a step needs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.buckets import bounds, divided
from sid_pipelines.kcore import CHUNK, degrees
from sid_warehouse.db import scan

Mask = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.int32]
CONTENT = ("ts", "event_type", "value", "session_id", "query", "position")
CARRIED = (*CONTENT, "source_file", "source_row")


class Source(Protocol):
    """Rows of raw interactions in a fixed order; n: how many."""

    n: int

    def sql(self, *columns: str) -> str:
        """Give the SQL of all rows' columns and their number `n`."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns of all rows in order."""


class Parts:
    """The Parquet parts of a table as one source."""

    def __init__(self, parts: Sequence[Path]) -> None:
        """Count the rows of each part."""
        self.parts = parts
        self.starts = np.cumsum([0, *(pq.read_metadata(part).num_rows for part in parts)]).tolist()
        self.n = self.starts[-1]

    def sql(self, *columns: str) -> str:
        """Give the SQL of all rows' columns and their number `n`."""
        first = f"list_extract({self.starts}::bigint[], file_index::bigint + 1)"  # row of a file
        numbered = f"file_row_number + {first} as n"
        return f"(select {', '.join([*columns, numbered])} from {scan(self.parts, 'file_row_number = true')})"

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns of all rows in order; words that repeat come as dictionaries."""
        for part in self.parts:
            with pq.ParquetFile(
                part, pre_buffer=False, read_dictionary=["event_type", "source_file"]
            ) as file:
                yield from file.iter_batches(1 << 17, columns=list(columns))


def number_ids(connection: duckdb.DuckDBPyConnection, of: str, rows: str) -> None:
    """Make table `<of>_ids` of all ids in some rows and their numbers, in byte order of the ids."""
    connection.execute(f"""
        create temp table {of}_ids as
        select {of}_id, (row_number() over (order by {of}_id) - 1)::int as number
        from (select distinct {of}_id from {rows})""")


def numbers(connection: duckdb.DuckDBPyConnection, of: str, source: Source, folder: Path) -> Indexes:
    """Give each row's user or item by its number in `<of>_ids`: (n,) int32, mapped from a file in folder."""
    if not source.n:
        return np.empty(0, np.int32)
    folder.mkdir(parents=True, exist_ok=True)
    found: Indexes = np.memmap(folder / f"{of}s.i32", np.int32, "w+", shape=(source.n,))
    joined = f"select n, number from {source.sql(f'{of}_id')} join {of}_ids using ({of}_id)"
    for batch in connection.sql(joined).to_arrow_reader():
        found[batch.column(0).to_numpy()] = batch.column(1).to_numpy()
    return found


class Rows:
    """Raw interactions by number: users and items as integers, and which rows are still there.

    source: the rows, all or those of a bucket of users. users, items: (n,) int32, numbers in byte order of
    the ids. alive: (n,) bool.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, source: Source, users: Indexes, items: Indexes
    ) -> None:
        """Begin with all rows."""
        self.connection, self.source, self.users, self.items = connection, source, users, items
        self.n = source.n
        self.alive: Mask = np.ones(self.n, dtype=bool)

    def kill(self, sql: str) -> None:
        """Take out the rows whose number `n` a SELECT gives."""
        for batch in self.connection.sql(sql).to_arrow_reader():
            self.alive[batch.column("n").to_numpy()] = False

    def keep_if(self, ok: Mask, of: Indexes) -> None:
        """Keep only rows whose user or item is ok: (users or items,) bool."""
        for start in range(0, self.n, CHUNK):
            part = slice(start, start + CHUNK)
            self.alive[part] &= ok[of[part]]

    def repeated_pairs(self, folder: Path) -> Iterator[pa.Table]:
        """Yield (n, u, i) of the rows whose user and item have another row, bucket by bucket of users."""
        firsts = bounds(degrees(self.users, self.alive))
        for table in divided(self._pairs(), firsts, folder / "buckets"):
            keys = table["user_index"].to_numpy().astype(np.int64) << 32 | table["i"].to_numpy()
            order = np.argsort(keys, kind="stable")
            same = keys[order[1:]] == keys[order[:-1]]
            again = np.zeros(len(keys), dtype=bool)
            again[order[1:][same]] = again[order[:-1][same]] = True
            yield table.filter(pa.array(again)).select(["n", "user_index", "i"])

    def _pairs(self) -> Iterator[pa.RecordBatch]:
        for start in range(0, self.n, CHUNK):
            part = slice(start, start + CHUNK)
            here = np.flatnonzero(self.alive[part])
            columns = {"user_index": self.users[part][here], "i": self.items[part][here], "n": start + here}
            yield pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})


def renumbered(
    source: Source, alive: Mask, of: tuple[Indexes, Indexes], to: tuple[Indexes, Indexes]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that are left, in order, as events under new indexes of users and items.

    of: (n,) int32 each, the rows' users and items. to: number -> new index.
    """
    start = 0
    for batch in source.batches(CARRIED):
        rows = slice(start, start + batch.num_rows)
        start += batch.num_rows
        kept = batch.filter(pa.array(alive[rows]))
        columns = [pa.array(new[old[rows][alive[rows]]]) for old, new in zip(of, to, strict=True)]
        columns += [kept.column(name) for name in CARRIED]
        yield pa.RecordBatch.from_arrays(columns, names=["user_index", "item_index", *CARRIED])
