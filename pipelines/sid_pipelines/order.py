"""The declared total order of one user's events: by time, then by hashes of session and content, or by row.

Never by item number: that would teach a model that higher numbers come later (LRURec issue 1). The hash
is of content (seed, user, time, item, type, value, session, query, position, less what is null), so that
the order of the dump's rows has no say, and is computed only for rows that need it. Before it comes the
hash of the session_id, so that ties do not shuffle two sessions into each other.
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

HASHED = ("ts", "event_type", "value", "session_id", "query", "position")
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Events:
    """The cleaned events of all users, to be read in the declared order.

    connection: DuckDB with views `events`, `users` and `items_clean`. user_ids, item_ids: by index, users
    from `first_user` on. ties: "hash" or "source". seed: of every hash.
    """

    connection: duckdb.DuckDBPyConnection
    parts: list[Path]
    user_ids: pa.Array
    item_ids: pa.Array
    ties: str
    seed: int
    first_user: int = 0

    def stored(self, columns: list[str] | None = None) -> Iterator[Chunk]:
        """Yield whole users' events by (ts, source_file, source_row), as clean wrote them."""
        return chunks(self.parts, columns)

    def order(self, chunk: Chunk) -> Chunk:
        """Give a stored chunk in the declared order."""
        if self.ties == "source" or not chunk.tied.any():
            return chunk
        rows = np.flatnonzero(chunk.tied | np.append(chunk.tied[1:], False))
        high, low = self.hashes(chunk, rows)
        session = self.sessions(chunk, rows)
        groups = np.cumsum(~chunk.tied)[rows]
        order = np.arange(len(chunk))
        order[rows] = rows[
            np.lexsort((low, high, session, groups))
        ]  # stable: equal content stays as in the source
        return Chunk(chunk.table.take(pa.array(order)))

    def hashes(self, chunk: Chunk, rows: Rows, salt: str = "") -> tuple[Hashes, Hashes]:
        """Give the MD5 of rows' content as two numbers, the higher half first: each (len(rows),)."""
        columns: dict[str, Any] = {name: chunk.table[name].take(pa.array(rows)) for name in HASHED}
        columns["user_id"] = self.user_ids.take(pa.array(chunk.users[rows] - self.first_user))
        columns["item_id"] = self.item_ids.take(pa.array(chunk.items[rows]))
        content = f"concat_ws(chr(31), user_id, ts, item_id, {', '.join(HASHED[1:])})"
        halves = self._digests(pa.table(columns), content, salt)
        return halves[:, 0], halves[:, 1]

    def sessions(self, chunk: Chunk, rows: Rows) -> Hashes:
        """Give half the MD5 of rows' session_id, 0 where there is none: (len(rows),)."""
        ids = chunk.table["session_id"].take(pa.array(rows))
        hashes = np.zeros(len(rows), dtype=np.uint64)
        if ids.null_count < len(ids):
            found = self._digests(pa.table({"id": ids}), "coalesce(id, '')")[:, 0]
            there = ids.is_valid().to_numpy()
            hashes[there] = found[there]
        return hashes

    def _digests(self, table: pa.Table, content: str, salt: str = "") -> Hashes:
        """Give the two halves of the MD5 of a SQL expression on each row: (len(table), 2)."""
        self.connection.register("hashed", table)
        found = self.connection.sql(f"select unhex({self.md5(content, salt)}) as digest from hashed")
        digests = found.to_arrow_table()["digest"].combine_chunks()
        self.connection.unregister("hashed")
        buffer = digests.cast(pa.binary(16)).buffers()[1]
        return np.frombuffer(buffer, dtype=">u8", count=2 * len(table)).reshape(-1, 2).astype(np.uint64)

    def md5(self, content: str, salt: str = "") -> str:
        """Give the SQL of the seeded hash of a SQL expression; another salt makes it another draw."""
        return f"md5({literal(f'{salt}{self.seed}')} || chr(31) || {content})"

    def keys(self, chunk: Chunk, rows: Rows) -> list[tuple[Any, ...]]:
        """Give what orders an ordered chunk's rows among all users' events: time, tie, user, place."""
        if self.ties == "source":
            columns = ("source_file", "source_row")
            ties = [chunk.table[name].take(pa.array(rows)).to_pylist() for name in columns]
        else:
            ties = [half.tolist() for half in (self.sessions(chunk, rows), *self.hashes(chunk, rows))]
        whose = (chunk.users[rows].tolist(), chunk.place[rows].tolist())
        return list(zip(chunk.ts[rows].tolist(), *ties, *whose, strict=True))
