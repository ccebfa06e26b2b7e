"""export: a release's tables in a format that others keep."""

from pathlib import Path
from typing import Annotated

import typer

from sid_flows.recipe import warehouse_path
from sid_schemas import RecipeError
from sid_warehouse.reader import Warehouse
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, print_table, say


@app.command()
def export(
    ref: RefArg,
    name: Annotated[str, typer.Option("--format", help="delta or iceberg")],
    to: Annotated[Path, typer.Option(help="folder for the tables: new, empty, or of an earlier export")],
    tables: Annotated[str | None, typer.Option(help="which, as in sids,train [default: all]")] = None,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Write a release's tables in another format; in one folder the next release is the next version."""
    from sid_pipelines.exports import export as write

    place, to = warehouse_path(warehouse), to.expanduser().absolute()
    if to.resolve().is_relative_to(place.resolve()):
        raise RecipeError(f"--to {to}: is inside the warehouse; choose a folder outside of it")
    named = None if tables is None else [table.strip() for table in tables.split(",")]
    with Warehouse(place).release(ref) as release:
        done = write(release, name, to, named)
    rows = [
        {
            "table": one.table,
            "rows": one.rows,
            "version": one.version,
            "status": "written" if one.written else "unchanged",
        }
        for one in done
    ]
    if json:
        print_json({"ref": release.ref, "format": name, "to": str(to), "tables": rows})
        return
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    say(f"\n{release.ref} as {name} in {to}; each table is a commit of its own")
