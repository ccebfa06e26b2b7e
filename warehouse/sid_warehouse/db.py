"""DuckDB connections with a memory bound, a place to spill, and no network.

House rule: results are fetched whole (`.fetchall()`), because in DuckDB 2 an unfetched result blocks
its connection. The connection is closed by the `with` block.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb


@contextmanager
def connect(
    *, spill: Path | None = None, memory: str | None = None, database: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection, in memory or on a file; `memory` bounds it, `spill` takes what exceeds it."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "preserve_insertion_order": "true",
        "threads": os.cpu_count() or 1,
    }
    if memory:
        config["memory_limit"] = memory
    if spill:
        config["temp_directory"] = str(spill)
    connection = duckdb.connect(str(database) if database else ":memory:", config=config)
    try:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("set enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


def view(connection: duckdb.DuckDBPyConnection, name: str, glob: str) -> None:
    """Make a table's Parquet parts a view, with `filename` and `file_row_number` as stored order."""
    connection.execute(
        f"create view {quote(name)} as "
        f"from read_parquet({literal(glob)}, filename = true, file_row_number = true)"
    )


def quote(name: str) -> str:
    """Give a SQL identifier: quoted, inner quotes doubled."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Give a SQL string literal, inner quotes doubled, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"
