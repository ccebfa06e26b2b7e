"""releases, show and sql: what a warehouse holds."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sid_flows.recipe import warehouse_path
from sid_schemas import SidmillError, WarehouseError
from sid_warehouse import catalog as catalogs
from sid_warehouse import copies, origin
from sid_warehouse.believed import believed
from sid_warehouse.reader import Release, Warehouse
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, print_table, say

if TYPE_CHECKING:
    import duckdb


@app.command()
def releases(warehouse: WarehouseOpt = None, json: JsonOpt = False) -> None:
    """List all releases."""
    place = warehouse_path(warehouse)
    with believed(place):
        rows = [
            {
                "ref": release.ref,
                "created": release.record["created"],
                "items": release.record["rows"]["items"],
                "users": release.record["rows"]["users"],
                "interactions": release.record["rows"]["interactions"],
                "tokenizer": _tokenizer(release),
                "collisions": release.metrics["collisions"]["after"]["collided_items"],
                "fingerprint": release.record["fingerprint"],
            }
            for release in _all_releases(place)
        ]
    if json:
        print_json(rows)
    elif not rows:
        say("no release yet: run `sidmill run RECIPE`")
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows])


def _all_releases(warehouse: Path) -> list[Release]:
    """Give all releases to look at; of those in an object store only records and metrics are downloaded."""
    if origin.of(warehouse):
        return [Release(folder) for folder in copies.listed(warehouse)]
    return Warehouse(warehouse).releases()


def _tokenizer(release: Release) -> str:
    made = release.record["recipe"]["tokenize"]
    levels = "x".join(str(one["codes"]) for one in release.metrics["collisions"]["levels"])
    return f"{made['tokenizer']} {levels} seed {made['seed']}"


@app.command()
def show(ref: RefArg, warehouse: WarehouseOpt = None, json: JsonOpt = False) -> None:
    """Show a release: lineage, ledger, collisions, tables."""
    release = Warehouse(warehouse_path(warehouse)).release(ref)
    if json:
        print_json({**release.record, "metrics": release.metrics})
        return
    with believed(release.folder):
        _show(release)


def _show(release: Release) -> None:
    record, metrics = release.record, release.metrics
    say(f"{release.ref}, created {record['created']}, fingerprint {record['fingerprint']}")
    say(str(release.folder))
    say("\nfrom")
    columns = ["label", "bytes", "sha256"]
    print_table(columns, [[file[name] for name in columns] for file in record["raw_files"]])
    say("\nledger")
    columns = ["step", "interactions", "users", "items", "removed", "reason"]
    print_table(columns, [[row[name] for name in columns] for row in metrics["ledger"]])
    say("\nstages")
    stages = record["stages"].items()
    print_table(["stage", "key", "what"], [[name, one["key"], one["summary"]] for name, one in stages])
    say("\nsemantic IDs")
    before, after = (metrics["collisions"][name] for name in ("before", "after"))
    print_table(
        ["", "before resolution", "after"],
        [[name, before[name], after[name]] for name in before],
    )
    columns = ["level", "codes", "used", "dead", "perplexity_share", "gini"]
    levels = metrics["collisions"]["levels"]
    print_table(columns, [[level[name] for name in columns] for level in levels])
    for name, said in (("neighbour", "cosine"), ("cf_neighbour", "shared train users")):
        overlap = metrics["collisions"][f"{name}_overlap_at_10"]
        shown = "none" if overlap is None else f"{overlap:.3f}"
        say(f"neighbour overlap at 10 ({said} against SID): {shown}")
    say("\ntables")
    print_table(["table", "rows"], record["rows"].items())
    warned = [f"{one['table']}.{one['check']}" for one in record["gates"] if one["verdict"] == "warning"]
    say(f"\n{len(record['gates']) - len(warned)} gate checks hold")
    if warned:
        say(f"warned of, because [gates] leakage = 'warn': {', '.join(warned)}")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="one SQL query, in quotes")],
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Ask the catalog by SQL; it is opened read-only.

    A release is a schema: `select * from DATASET.sids limit 5`.
    """
    import duckdb

    place = warehouse_path(warehouse)
    path = place / catalogs.NAME
    if origin.of(place):
        copies.sync(place)
        if not catalogs.is_current(place):
            catalogs.refresh(place)
    if not path.is_file():
        raise WarehouseError(
            f"{path}: no catalog there. Name another warehouse with --warehouse or "
            "$SIDMILL_WAREHOUSE, or make one with `sidmill run RECIPE`"
        )
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            columns, rows = _asked(connection, query)
    except duckdb.Error as error:
        raise SidmillError(f"sql: {error}") from error
    columns = _distinct(columns)
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


def _asked(connection: "duckdb.DuckDBPyConnection", query: str) -> tuple[list[str], list[Any]]:
    """Give columns and rows; in a thread, as DuckDB would see Ctrl-C only once the query has ended."""

    def ask() -> tuple[list[str], list[Any]]:
        relation = connection.sql(query)
        return (relation.columns, relation.fetchall()) if relation else ([], [])

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(ask)
        try:
            return found.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _distinct(names: list[str]) -> list[str]:
    """Number repeated column names, as DuckDB does, so that none hides another in JSON."""
    return [f"{name}_{count}" if (count := names[:n].count(name)) else name for n, name in enumerate(names)]
