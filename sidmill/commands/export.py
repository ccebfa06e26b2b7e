"""export: a release's tables in a format that others keep, or the files that somebody's trainer reads."""

from pathlib import Path
from typing import Annotated

import typer

from sid_flows.handing_over import hand_over
from sid_flows.recipe import warehouse_path
from sid_schemas import RecipeError
from sidmill import completing
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, print_table, say, working


@app.command()
def export(
    ref: RefArg,
    name: Annotated[
        str,
        typer.Option(
            "--format",
            help="delta, iceberg, or a trainer's: see `sidmill formats`",
            autocompletion=completing.formats,
        ),
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
    """Write a release as a trainer's files, or as a lake's tables.

    See `sidmill formats`.
    """
    given = dict(_pair(one) for one in settings or ())
    named = None if tables is None else [table.strip() for table in tables.split(",")]
    with working(f"exporting {ref} as {name}", json=json):
        done = hand_over(warehouse_path(warehouse), ref, name, to, tables=named, settings=given)
    if json:
        print_json(done.told)
        return
    print_table(list(done.rows[0]), [list(row.values()) for row in done.rows])
    note = "README.md there says what goes where" if done.of_trainer else "each table is a commit of its own"
    say(f"\n{done.ref} as {name} in {done.to}; {note}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key.strip() and equals):
        raise RecipeError(f"--set {text!r}: expected key=value")
    return key.strip(), value.strip()
