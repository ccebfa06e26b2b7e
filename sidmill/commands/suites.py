"""suites: a release's gates as Great Expectations suites, for those who run their own."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sid_flows.recipe import warehouse_path
from sid_warehouse.believed import believed
from sid_warehouse.reader import Warehouse
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, print_table, say
from sidmill.outside import outside


@app.command()
def suites(
    ref: RefArg,
    to: Annotated[Path, typer.Option(help="folder to write: new or empty")],
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Write a release's gates as Great Expectations suites.

    Beside each suite lies the SQL that computes its numbers by DuckDB; README.md there says how to run both.
    """
    from sid_pipelines.suites import write

    place = warehouse_path(warehouse)
    to = outside(to, place)
    with Warehouse(place).release(ref) as release, believed(release.folder):
        done = write(release.folder.absolute(), to, release.ref)
    if json:
        print_json({"ref": release.ref, "to": str(to), "tables": [asdict(one) for one in done]})
        return
    print_table(["table", "checks"], [[one.table, one.checks] for one in done])
    say(f"\nsuites of {release.ref} in {to}; README.md there says how to run them")
