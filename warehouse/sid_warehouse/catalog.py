"""`catalog.duckdb`: every release under a name that plain DuckDB can query, from anywhere.

A schema per data set holds copies of its latest release, so the file answers after a move, read-only
and from any working directory. Each release has a schema of its own too (`"movietweetings@v2"`):
views on those copies for the latest, views on the Parquet files for older ones. The file is derived:
it is built aside and renamed over the old one, so that open readers go on undisturbed.

In the catalog the column `text` of `items` is called `item_text`, because `sids` has a `text` of its
own and `join ... using (item_index)` could not tell them apart.
"""

import json
from pathlib import Path
from typing import Any

import duckdb

from sid_warehouse import db, files, parquet, releases

NAME = "catalog.duckdb"
SAMPLES = ("train", "valid", "test")
COLUMNS = {"items": "* rename (text as item_text)"}

RELEASES = """create table releases (dataset varchar, version integer, ref varchar, latest boolean,
    created timestamptz, fingerprint varchar, items bigint, users bigint, interactions bigint,
    path varchar)"""
LINEAGE = "create table lineage (dataset varchar, version integer, stage varchar, key varchar, params json)"
METRICS = "create table metrics (dataset varchar, version integer, metric varchar, value double)"


def refresh(warehouse: Path) -> Path:
    """Build the catalog anew from the releases on disk and swap it in; give its path.

    Repeats where another process published meanwhile, so that the last one to swap knows all.
    """
    path = warehouse / NAME
    while True:
        before = _on_disk(warehouse)
        _build(warehouse, path)
        if _on_disk(warehouse) == before:
            return path


def _build(warehouse: Path, path: Path) -> None:
    with files.writing(warehouse) as folder:
        fresh = folder / NAME
        with db.connect(database=fresh, spill=folder / ".spill") as connection:
            for statement in (RELEASES, LINEAGE, METRICS):
                connection.execute(statement)
            for dataset in releases.datasets(warehouse):
                _add_dataset(connection, warehouse, dataset)
        files.sync(fresh)
        fresh.replace(path)


def is_current(warehouse: Path) -> bool:
    """Say whether the catalog knows exactly the releases on disk, and where they are now."""
    path = warehouse / NAME
    if not path.exists():
        return False
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            known = connection.sql("select dataset, version, path from releases").fetchall()
    except duckdb.Error:
        return False
    return set(known) == _on_disk(warehouse)


def _on_disk(warehouse: Path) -> set[tuple[str, int, str]]:
    return {
        (dataset, version, str(_folder(warehouse, dataset, version)))
        for dataset in releases.datasets(warehouse)
        for version in releases.versions(warehouse, dataset)
    }


def _folder(warehouse: Path, dataset: str, version: int) -> Path:
    return (warehouse / "releases" / dataset / f"v{version}").resolve()


def _add_dataset(connection: duckdb.DuckDBPyConnection, warehouse: Path, dataset: str) -> None:
    there = releases.versions(warehouse, dataset)
    for version in there:
        folder = _folder(warehouse, dataset, version)
        release = releases.read(folder)
        schema = f"{dataset}@v{version}"
        latest = version == there[-1]
        _add_rows(connection, release, folder, latest)
        connection.execute(f"create schema {db.quote(schema)}")
        if latest:
            connection.execute(f"create schema {db.quote(dataset)}")
            names = _add_tables(connection, dataset, folder, release, kind="table")
            for name in names:
                target = f"{db.quote(dataset)}.{db.quote(name)}"
                view = f"{db.quote(schema)}.{db.quote(name)}"
                connection.execute(f"create view {view} as from {target}")
        else:
            _add_tables(connection, schema, folder, release, kind="view")


def _add_tables(
    connection: duckdb.DuckDBPyConnection,
    schema: str,
    folder: Path,
    release: dict[str, Any],
    *,
    kind: str,
) -> list[str]:
    """Create a table or view for each table of a release and give the names."""
    tables = sorted(release["rows"])
    for table in tables:
        name = f"{table}_samples" if table in SAMPLES else table
        source = db.scan(parquet.parts(folder, table))
        columns = COLUMNS.get(table, "*")
        if table.startswith("embeddings_"):
            dim = release["embeddings"][table]["dim"]
            columns = f"* replace (vector::float[{dim}] as vector)"
        connection.execute(
            f"create {kind} {db.quote(schema)}.{db.quote(name)} as select {columns} from {source}"
        )
    samples = [table for table in SAMPLES if table in tables]
    for table in samples:
        connection.execute(_sample_view(schema, table))
    return [*(f"{table}_samples" if table in SAMPLES else table for table in tables), *samples]


def _sample_view(schema: str, split: str) -> str:
    """Give the view of a split that spells out each history; on disk a sample is two numbers."""
    of = db.quote(schema)
    return f"""create view {of}.{split} as
        select sample.*,
               sequence.items[sample.start + 1 : sample."end"] as history,
               sequence.ts[sample.start + 1 : sample."end"] as history_ts
        from {of}.{split}_samples as sample
        join {of}.sequences as sequence using (user_index)"""


def _add_rows(
    connection: duckdb.DuckDBPyConnection, release: dict[str, Any], folder: Path, latest: bool
) -> None:
    dataset, version, rows = release["dataset"], release["version"], release["rows"]
    counts = [rows.get(table, 0) for table in ("items", "users", "interactions")]
    connection.execute(
        "insert into releases values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            dataset, version, f"{dataset}@v{version}", latest, release["created"],
            release["fingerprint"], *counts, str(folder),
        ],
    )  # fmt: skip
    for stage, entry in release["stages"].items():
        params = json.dumps(entry["params"])
        values = [dataset, version, stage, entry["key"], params]
        connection.execute("insert into lineage values (?, ?, ?, ?, ?)", values)
    for metric, value in _numbers(files.read_json(folder / "metrics.json")):
        connection.execute("insert into metrics values (?, ?, ?, ?)", [dataset, version, metric, value])


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
