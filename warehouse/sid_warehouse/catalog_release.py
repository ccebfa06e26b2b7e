"""One release as a schema of the catalog, its tables or views, and as rows of the tables of all releases.

catalog.py says which releases there should be. Each is added at once or not at all: one that is spoilt, by
accident or on purpose, gets a `problem` in the table `releases`, and the others are none the worse. No name
comes into SQL but through records.check, which sees that tables are called as tables are, and quotes.

In the catalog the column `text` of `items` is called `item_text`, because `sids` has a `text` of its own
and `join ... using (item_index)` could not tell them apart.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from sid_schemas import WarehouseError
from sid_warehouse import db, files, parquet, releases

LOGGER = logging.getLogger("sidmill")
SAMPLES = ("train", "valid", "test")
COLUMNS = {"items": "* rename (text as item_text)"}

TABLES = (
    """create table releases (dataset varchar, version integer, ref varchar, latest boolean,
       tags varchar[], kind varchar, base integer, created timestamptz, fingerprint varchar, items bigint,
       users bigint, interactions bigint, path varchar, copied boolean, problem varchar)""",
    "create table lineage (dataset varchar, version integer, stage varchar, key varchar, params json)",
    "create table metrics (dataset varchar, version integer, metric varchar, value double)",
)


def add(
    connection: duckdb.DuckDBPyConnection, dataset: str, version: int, folder: Path, *, copied: bool
) -> None:
    """Add a release, as tables or as views on its Parquet files; one that cannot be read, as a problem."""
    schema = f"{dataset}@v{version}"
    try:
        with at_once(connection):
            record = releases.read(folder)
            _add_rows(connection, dataset, version, folder, record)
            _add_tables(connection, schema, folder, record, copied=copied)
    except Exception as error:  # whatever a spoilt release makes fail
        if _is_ours(error, connection):
            raise
        row = {"dataset": dataset, "version": version, "ref": schema, "path": str(folder)}
        _insert(connection, "releases", {**row, "problem": _line(error)})
        LOGGER.warning("%s is left out of the catalog: %s", schema, _line(error))


def forget(connection: duckdb.DuckDBPyConnection, dataset: str, version: int) -> None:
    """Remove the rows of a release; its schema is dropped by the caller."""
    for table in ("releases", "lineage", "metrics"):
        connection.execute(f"delete from {table} where dataset = ? and version = ?", [dataset, version])


@contextmanager
def at_once(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Do what is in the block as one transaction."""
    connection.execute("begin")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _is_ours(error: Exception, connection: duckdb.DuckDBPyConnection) -> bool:
    """Say whether it is the catalog that cannot be written, rather than the release that cannot be read."""
    ours = duckdb.OutOfMemoryException, duckdb.TransactionException, duckdb.FatalException, MemoryError
    if isinstance(error, ours):  # none of them, and no full disk, is the fault of the release that met it
        return True
    [(path,)] = connection.sql(
        "select path from duckdb_databases() where database_name = current_database()"
    ).fetchall()
    return isinstance(error, duckdb.Error) and str(Path(path).parent) in str(error)


def _line(error: Exception) -> str:
    said = " ".join(str(error).split("\n\n")[0].split())
    said = said if isinstance(error, WarehouseError | duckdb.Error) else f"release.json: {error!r}"
    return said[:500].encode("utf-8", "replace").decode()


def _insert(connection: duckdb.DuckDBPyConnection, table: str, row: Mapping[str, Any]) -> None:
    names, places = ", ".join(row), ", ".join("?" for _ in row)
    connection.execute(f"insert into {table} ({names}) values ({places})", list(row.values()))


def _add_rows(
    connection: duckdb.DuckDBPyConnection, dataset: str, version: int, folder: Path, record: dict[str, Any]
) -> None:
    row = {
        "dataset": dataset,
        "version": version,
        "ref": f"{dataset}@v{version}",
        "kind": str(record.get("kind", "build")),
        "base": (record.get("base") or {}).get("version"),
        "created": datetime.fromisoformat(record["created"]),
        "fingerprint": record["fingerprint"],
        "path": str(folder),
        **{table: record["rows"].get(table, 0) for table in ("items", "users", "interactions")},
    }
    _insert(connection, "releases", row)
    stages = record["stages"]
    lineage: dict[str, list[Any]] = {
        "stage": list(stages),
        "key": [one["key"] for one in stages.values()],
        "params": [json.dumps(one["params"]) for one in stages.values()],
    }
    _insert_all(connection, "lineage", dataset, version, lineage)
    numbers = _numbers(files.read_json(folder / "metrics.json"))
    metrics: dict[str, list[Any]] = {
        "metric": [name for name, _ in numbers],
        "value": [value for _, value in numbers],
    }
    _insert_all(connection, "metrics", dataset, version, metrics)


def _insert_all(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    dataset: str,
    version: int,
    columns: Mapping[str, Sequence[Any]],
) -> None:
    """Insert many rows of one release, column by column, which is far faster than row by row."""
    types = {name: pa.float64() if name == "value" else pa.string() for name in columns}
    rows = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    connection.register("rows_of_release", rows)
    names = ", ".join(columns)
    connection.execute(f"insert into {table} select ?, ?, {names} from rows_of_release", [dataset, version])
    connection.unregister("rows_of_release")


def _add_tables(
    connection: duckdb.DuckDBPyConnection, schema: str, folder: Path, record: dict[str, Any], *, copied: bool
) -> None:
    kind = "table" if copied else "view"
    connection.execute(f"create schema {db.quote(schema)}")
    for table in sorted(record["rows"]):
        name = f"{table}_samples" if table in SAMPLES else table
        columns = COLUMNS.get(table, "*")
        if table.startswith("embeddings_"):
            dim = int(record["embeddings"][table]["dim"])
            columns = f"* replace (vector::float[{dim}] as vector)"
        source = db.scan(parquet.parts(folder, table))
        target = f"{db.quote(schema)}.{db.quote(name)}"
        connection.execute(f"create {kind} {target} as select {columns} from {source}")
    for table in SAMPLES:
        if {table, "sequences"} <= record["rows"].keys():
            connection.execute(_sample_view(schema, table))


def _sample_view(schema: str, split: str) -> str:
    """Give the view of a split that spells out each history; on disk a sample is two numbers."""
    of = db.quote(schema)
    return f"""create view {of}.{split} as
        select sample.*,
               sequence.items[sample.start + 1 : sample."end"] as history,
               sequence.ts[sample.start + 1 : sample."end"] as history_ts
        from {of}.{split}_samples as sample
        join {of}.sequences as sequence using (user_index)"""


def _numbers(value: Any, path: str = "") -> list[tuple[str, float]]:
    """Give every number in nested JSON under a dotted name."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return []
    if isinstance(value, int | float):
        return [(path, float(value))]
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return [
        number for key, inner in pairs for number in _numbers(inner, f"{path}.{key}" if path else str(key))
    ]
