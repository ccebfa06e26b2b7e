"""report: the page that says whether a release's IDs are good."""

import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sid_flows.recipe import warehouse_path
from sid_schemas import RecipeError, SidmillError
from sid_warehouse import files
from sid_warehouse.believed import believed
from sid_warehouse.reader import Release, Warehouse
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, say
from sidmill.outside import outside

PAGE = "report.html"


@app.command()
def report(
    ref: RefArg,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="file to write: the page made anew, by this version of sidmill"),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="show it in the browser")] = False,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Show the page that says whether a release's IDs are good.

    Its path is printed; with --to it is made anew, by this version of sidmill.
    """
    place = Warehouse(warehouse_path(warehouse))
    with place.release(ref) as release:
        path = _made(place, release, outside(to, place.path)) if to else release.folder / PAGE
        if not path.is_file():
            raise RecipeError(
                f"{path}: expected the release's own page, got none. Make it anew with --to FILE"
            )
        found = {"ref": release.ref, "path": str(path), "bytes": path.stat().st_size}
    if json:
        print_json(found)
    else:
        say(str(path))
    if open_ and not webbrowser.open(path.as_uri()):
        raise RecipeError(f"--open: found no browser here; open {path} yourself")


def _made(place: Warehouse, release: Release, path: Path) -> Path:
    """Make the page anew, in a file."""
    from sid_flows.report import render
    from sid_warehouse.diff import Side

    if path.is_dir():
        raise RecipeError(f"--to {path}: is a folder; expected a file, such as {path / PAGE}")
    with believed(release.folder):
        changes, why = _changes(place, release)
        text = render(Side.of(release), changes, why)
    with files.explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.writing(path.parent) as scratch:
            (scratch / path.name).write_text(text, encoding="utf-8")
            (scratch / path.name).replace(path)
    return path


def _changes(place: Warehouse, release: Release) -> tuple[Mapping[str, Any] | None, str]:
    """Compare with the release that it goes on from; (None, why not) where that is gone, or too large."""
    from sid_pipelines.publish import COMPARED
    from sid_warehouse.diff import compare

    base = release.record.get("base")
    if not base:
        return None, ""
    if release.record["rows"]["interactions"] > COMPARED:
        return None, f"With more than {COMPARED:,} events it is not compared here; `sidmill diff` does that."
    ref = f"{release.record['dataset']}@v{base['version']}"
    try:
        with place.release(ref) as before, believed(before.folder):
            if before.record["fingerprint"] != base["fingerprint"]:
                return None, f"{ref} is another release by now than the one that this one went on from."
            return compare(before, release), ""
    except SidmillError:
        return None, f"{ref} is not there any more, or cannot be read."
