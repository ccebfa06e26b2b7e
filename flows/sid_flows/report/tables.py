"""What the page reads of a release's tables: by DuckDB, under a bound of memory, never whole tables."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from sid_flows.report.markup import clipped
from sid_warehouse import parquet
from sid_warehouse.db import connect, view
from sid_warehouse.diff import Side

MEMORY = "2GiB"  # DuckDB's; what exceeds it goes to the system's temporary folder


@dataclass(frozen=True)
class Tables:
    """A release about to be published, or published, whose tables can be asked."""

    side: Side
    connection: duckdb.DuckDBPyConnection

    @property
    def record(self) -> Mapping[str, Any]:
        """Give its record."""
        return self.side.record

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Give its metrics."""
        return self.side.metrics

    @property
    def items(self) -> int:
        """Give how many items it has."""
        return int(self.record["rows"]["items"])

    @property
    def gives(self) -> str:
        """Give what the scheme gives: codes, text, or vectors where no two items share anything."""
        return str(self.metrics["tokenizer"].get("gives", "codes"))

    def has(self, table: str) -> bool:
        """Say whether it has a table."""
        return table in self.side.tables

    def parts(self, table: str) -> list[Path]:
        """Give the files of a table."""
        return parquet.parts(self.side.tables[table], table)

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Give the rows of a query; tables are views under their names."""
        return self.connection.execute(query, values).fetchall()

    def titles(self, items: Sequence[int]) -> dict[int, str]:
        """Give the title of each item, or its id where it has none."""
        rows = self.ask(
            "select item_index, title, item_id from items where item_index in (select unnest($1::int[]))",
            sorted(set(items)),
        )
        return {index: clipped(title or item) for index, title, item in rows}


@contextmanager
def opened(side: Side) -> Iterator[Tables]:
    """Open the tables of a release; they are closed by the `with` block."""
    with (
        tempfile.TemporaryDirectory(prefix="sidmill-") as spill,
        connect(spill=Path(spill), memory=MEMORY) as connection,
    ):
        for name, folder in side.tables.items():
            if not name.startswith(("embeddings_", "vectors_")):  # vectors.py reads those
                view(connection, name, parquet.parts(folder, name))
        yield Tables(side, connection)
