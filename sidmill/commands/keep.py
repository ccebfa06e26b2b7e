"""tag, tags, rollback, gc and catalog: what a warehouse keeps, and under which names."""

from typing import Annotated, Any

import typer

from sid_flows.recipe import warehouse_path
from sid_schemas import RecipeError
from sid_warehouse import catalog as catalogs
from sid_warehouse import copies, garbage, releases, tagging
from sid_warehouse import tags as tags_
from sid_warehouse.names import Ref, check_dataset
from sid_warehouse.reader import Warehouse
from sid_warehouse.retention import Rules
from sid_warehouse.tags import Tag
from sidmill import completing
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, print_table, say


@app.command()
def tag(
    ref: RefArg,
    name: Annotated[
        str, typer.Argument(help="the tag, as in production", autocompletion=completing.tag_names)
    ],
    remove: Annotated[bool, typer.Option("--remove", help="remove the tag; REF is its data set")] = False,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Name a release: DATASET@NAME is it then, and gc keeps it.

    A tag that is there already is moved.
    """
    place, to = Warehouse(warehouse_path(warehouse)).path, Ref.parse(ref)
    if remove:
        gone = tagging.remove(place, to, name)
        _tell(gone, f"{gone.ref} is removed; it was {_release(gone)}", json=json)
    else:
        moved = tagging.move(place, to, name)
        _tell(moved, _said(moved), json=json)


@app.command()
def tags(
    dataset: Annotated[
        str | None, typer.Argument(help="of this data set only", autocompletion=completing.datasets)
    ] = None,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """List the tags, and what they were before."""
    place = Warehouse(warehouse_path(warehouse)).path
    copies.pull_tags(place)
    known = [check_dataset(dataset)] if dataset else tags_.datasets(place)
    found = [one for name in known for one in tags_.of(place, name)]
    if json:
        print_json([_row(one) for one in found])
    elif not found:
        say("no tag yet: run `sidmill tag REF NAME`")
    else:
        columns = ["tag", "release", "since", "was"]
        print_table(columns, [[one.ref, _release(one), one.now.set, _was(one)] for one in found])


@app.command()
def rollback(
    ref: Annotated[str, typer.Argument(help="a tag: DATASET@TAG", autocompletion=completing.tagged)],
    to: Annotated[str | None, typer.Option(help="an earlier release of this tag, as in v2")] = None,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Move a tag back to the release that it was before."""
    place, of = Warehouse(warehouse_path(warehouse)).path, Ref.parse(ref)
    version = Ref.parse(f"{of.dataset}@{to}").version if to else None
    if to and version is None:
        raise RecipeError(f"--to {to}: expected a version, as in v2")
    moved = tagging.rollback(place, of, to=version)
    _tell(moved, _said(moved), json=json)


def _tell(moved: Tag, line: str, *, json: bool) -> None:
    if json:
        print_json(_row(moved))
    else:
        say(line)


def _said(moved: Tag) -> str:
    was = f", it was v{moved.entries[-2].version}" if len(moved.entries) > 1 else ""
    return f"{moved.ref} is {_release(moved)}{was}"


def _release(one: Tag) -> str:
    return f"{one.dataset}@v{one.now.version}"


def _was(one: Tag) -> str:
    return ", ".join(f"v{entry.version}" for entry in one.entries[:-1])


def _row(one: Tag) -> dict[str, Any]:
    return {"tag": one.ref, "release": _release(one), **tags_.as_json(one.entries)}


@app.command()
def gc(
    keep_last: Annotated[
        int | None, typer.Option(min=1, help="remove releases, but not the newest so many of a data set")
    ] = None,
    keep_days: Annotated[
        int | None, typer.Option(min=0, max=99_999, help="remove releases, but none younger than this")
    ] = None,
    stage_days: Annotated[
        int, typer.Option(min=0, help="age in days of stage outputs that no release needs")
    ] = garbage.STAGE_DAYS,
    cache: Annotated[
        bool, typer.Option("--cache", help="also vectors of encoders that no release was made with")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; else it is only listed")] = False,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """List what nothing needs any more; with --yes remove it.

    The latest release, tagged ones, and what a reader or a run has open always stay.
    """
    place, rules = Warehouse(warehouse_path(warehouse)).path, Rules(keep_last, keep_days)
    copies.pull_tags(place)
    found = (garbage.remove if yes else garbage.find)(place, rules, stage_days=stage_days, cache=cache)
    if json:
        print_json(
            {
                "dry_run": not yes,
                "bytes": found.bytes,
                "remove": [vars(piece) for piece in found.remove],
                "keep": [vars(kept) for kept in found.keep],
            }
        )
        return
    if found.remove:
        say("removed" if yes else "can go")
        columns = ["what", "name", "bytes", "why"]
        print_table(columns, [[getattr(piece, name) for name in columns] for piece in found.remove])
        say()
    if found.keep:
        say("stays")
        print_table(["release", "bytes", "why"], [[k.ref, k.bytes, ", ".join(k.why)] for k in found.keep])
        say()
    if not found.remove:
        say("nothing to remove")
    elif yes:
        say(f"{found.bytes:,} bytes are free again")
    else:
        say(f"nothing is removed yet; with --yes {found.bytes:,} bytes are free again")


@app.command()
def catalog(
    views: Annotated[bool, typer.Option("--views", help="copy nothing into the catalog from now on")] = False,
    copies_: Annotated[
        bool, typer.Option("--copies", help="copy the latest and the tagged releases, as at first")
    ] = False,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Bring catalog.duckdb up to date, as after a move.

    It shows the releases and tags there are then, where they are now.
    """
    if views and copies_:
        raise RecipeError("--views and --copies: expected one of them, got both")
    place = Warehouse(warehouse_path(warehouse)).path
    copies.sync(place)
    path = catalogs.refresh(place, copies=True if copies_ else False if views else None)
    problems = catalogs.problems(place)
    there = [
        f"{name}@v{version}"
        for name in releases.datasets(place)
        for version in releases.versions(place, name)
    ]
    if json:
        print_json({"catalog": str(path), "releases": there, "problems": problems})
        return
    left_out = f", {len(problems)} left out" if problems else ""
    say(f"{path}: {len(there) - len(problems)} releases{left_out}")
