"""DuckDB connections with a memory bound, a place to spill, and no network.

House rule: results are fetched whole (`.fetchall()`), because in DuckDB 2 an unfetched result blocks
its connection. The connection is closed by the `with` block.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from sid_tokenizers.blocks import cores


@contextmanager
def connect(
    *, spill: Path | None = None, memory: str | None = None, database: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection, in memory or on a file; `memory` bounds it, `spill` takes what exceeds it.

    It runs on as many threads as SIDMILL_CORES says, or on all cores.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "preserve_insertion_order": "true",
        "threads": cores(),
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


def scan(parts: Sequence[Path], *options: str) -> str:
    """Give the SQL that reads Parquet parts, named one by one: a folder's name may look like a glob."""
    named = ", ".join(literal(str(part)) for part in parts)
    return f"read_parquet({', '.join([f'[{named}]', *options])})"


def view(connection: duckdb.DuckDBPyConnection, name: str, parts: Sequence[Path]) -> None:
    """Make a table's Parquet parts a view, with `filename` and `file_row_number` as stored order."""
    source = scan(parts, "filename = true", "file_row_number = true")
    connection.execute(f"create view {quote(name)} as from {source}")


def quote(name: str) -> str:
    """Give a SQL identifier: quoted, inner quotes doubled."""
    return '"' + name.replace('"', '""') + '"'


def identifier(name: str) -> str:
    """Give a SQL identifier for people to read: quoted only where it must be."""
    tokens = duckdb.tokenize(name)
    plain = len(tokens) == 1 and tokens[0][1] == duckdb.token_type.identifier
    return name if plain else quote(name)


def literal(text: str) -> str:
    """Give a SQL string literal, inner quotes doubled, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"
