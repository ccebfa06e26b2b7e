"""The declared total order of one user's events: by time, then ties by content hash or as in the source.

Never by item number: that would teach a model that higher numbers come later (LRURec issue 1). The hash
is of content (seed, user, time, item, type, value), so that the order of the dump's rows has no say, and
is computed only for rows that need it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.chunks import Chunk, Rows, chunks
from sid_warehouse.db import literal

HASHED = ("ts", "event_type", "value")
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Events:
    """The cleaned events of all users, to be read in the declared order.

    connection: DuckDB with views `events`, `users` and `items_clean`. user_ids, item_ids: by index.
    ties: "hash" or "source". seed: of every hash.
    """

    connection: duckdb.DuckDBPyConnection
    parts: list[Path]
    user_ids: pa.Array
    item_ids: pa.Array
    ties: str
    seed: int

    def stored(self, columns: list[str] | None = None) -> Iterator[Chunk]:
        """Yield whole users' events by (ts, source_file, source_row), as clean wrote them."""
        return chunks(self.parts, columns)

    def order(self, chunk: Chunk) -> Chunk:
        """Give a stored chunk in the declared order."""
        if self.ties == "source" or not chunk.tied.any():
            return chunk
        rows = np.flatnonzero(chunk.tied | np.append(chunk.tied[1:], False))
        high, low = self.hashes(chunk, rows)
        groups = np.cumsum(~chunk.tied)[rows]
        order = np.arange(len(chunk))
        order[rows] = rows[np.lexsort((low, high, groups))]  # stable: equal content stays as in the source
        return Chunk(chunk.table.take(pa.array(order)))

    def hashes(self, chunk: Chunk, rows: Rows, salt: str = "") -> tuple[Hashes, Hashes]:
        """Give the MD5 of rows' content as two numbers, the higher half first: each (len(rows),)."""
        columns: dict[str, Any] = {name: chunk.table[name].take(pa.array(rows)) for name in HASHED}
        columns["user_id"] = self.user_ids.take(pa.array(chunk.users[rows]))
        columns["item_id"] = self.item_ids.take(pa.array(chunk.items[rows]))
        self.connection.register("hashed", pa.table(columns))
        content = "concat_ws(chr(31), user_id, ts, item_id, event_type, value)"
        found = self.connection.sql(f"select unhex({self.md5(content, salt)}) as digest from hashed")
        digests = found.to_arrow_table()["digest"].combine_chunks()
        self.connection.unregister("hashed")
        buffer = digests.cast(pa.binary(16)).buffers()[1]
        halves = np.frombuffer(buffer, dtype=">u8", count=2 * len(rows)).reshape(-1, 2)
        return halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64)

    def md5(self, content: str, salt: str = "") -> str:
        """Give the SQL of the seeded hash of a SQL expression; another salt makes it another draw."""
        return f"md5({literal(f'{salt}{self.seed}')} || chr(31) || {content})"

    def keys(self, chunk: Chunk, rows: Rows) -> list[tuple[Any, ...]]:
        """Give what orders an ordered chunk's rows among all users' events: time, tie, user, place."""
        if self.ties == "source":
            columns = ("source_file", "source_row")
            ties = [chunk.table[name].take(pa.array(rows)).to_pylist() for name in columns]
        else:
            ties = [half.tolist() for half in self.hashes(chunk, rows)]
        whose = (chunk.users[rows].tolist(), chunk.place[rows].tolist())
        return list(zip(chunk.ts[rows].tolist(), *ties, *whose, strict=True))
