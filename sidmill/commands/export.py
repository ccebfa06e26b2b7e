"""export: a release's tables in a format that others keep, or the files that somebody's trainer reads."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sid_flows.recipe import warehouse_path
from sid_schemas import RecipeError
from sid_warehouse.reader import Release, Warehouse
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, print_table, say


@app.command()
def export(
    ref: RefArg,
    name: Annotated[
        str, typer.Option("--format", help="delta, iceberg, or a trainer's: see `sidmill formats`")
    ],
    to: Annotated[
        Path, typer.Option(help="folder to write: new or empty; for tables also an earlier export")
    ],
    tables: Annotated[str | None, typer.Option(help="of delta and iceberg, as in sids,train [all]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="what may be chosen of a trainer's format, as key=value")
    ] = None,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Write a release for others: as tables of a lake, or as the very files that a trainer reads."""
    from sid_pipelines.exports import FORMATS
    from sid_pipelines.trainers import TRAINERS

    place, to = warehouse_path(warehouse), to.expanduser().absolute()
    if to.resolve().is_relative_to(place.resolve()):
        raise RecipeError(f"--to {to}: is inside the warehouse; choose a folder outside of it")
    if name not in (*FORMATS, *TRAINERS):
        raise RecipeError(
            f"no export format is called {name!r}; there are: {', '.join((*FORMATS, *TRAINERS))}"
        )
    given = dict(_pair(one) for one in settings or ())
    if name in TRAINERS and tables:
        raise RecipeError(f"--tables: {name} has files of its own; leave it out")
    if name in FORMATS and given:
        raise RecipeError(f"--set: {name} has no settings; choose tables with --tables")
    with Warehouse(place).release(ref) as release:
        rows = (
            _for_trainer(release, name, to, given) if name in TRAINERS else _tables(release, name, to, tables)
        )
    if json:
        kind = "files" if name in TRAINERS else "tables"
        print_json({"ref": release.ref, "format": name, "to": str(to), kind: rows})
        return
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    note = "README.md there says what goes where" if name in TRAINERS else "each table is a commit of its own"
    say(f"\n{release.ref} as {name} in {to}; {note}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key.strip() and equals):
        raise RecipeError(f"--set {text!r}: expected key=value")
    return key.strip(), value.strip()


def _tables(release: Release, name: str, to: Path, tables: str | None) -> list[dict[str, Any]]:
    from sid_pipelines.exports import export as write

    named = None if tables is None else [table.strip() for table in tables.split(",")]
    return [
        {"table": one.table, "rows": one.rows, "version": one.version, "status": _status(one.written)}
        for one in write(release, name, to, named)
    ]


def _for_trainer(release: Release, name: str, to: Path, given: dict[str, str]) -> list[dict[str, Any]]:
    from sid_pipelines.trainers import TRAINERS
    from sid_pipelines.trainers.export import export as write

    done = write(release, TRAINERS[name], to, given)
    return [{"file": one.file, "bytes": one.bytes, "status": _status(one.written)} for one in done]


def _status(written: bool) -> str:
    return "written" if written else "unchanged"
