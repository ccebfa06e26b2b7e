"""evaluate: what the IDs of releases do for recommendation, side by side, by a small probe and baselines."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sid_flows.recipe import warehouse_path
from sid_pipelines.evaluation import side_by_side
from sid_pipelines.evaluation.settings import Settings
from sid_pipelines.evaluation.standing import Asked, standing
from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import files
from sid_warehouse.believed import believed
from sid_warehouse.reader import Release, Warehouse
from sidmill import completing
from sidmill.app import JsonOpt, WarehouseOpt, app
from sidmill.console import BarReporter, PlainReporter, SilentReporter, print_json, print_table, say
from sidmill.outside import outside
from sidmill.running import resumable

SUFFIXES = (".md", ".json")
DEFAULT, MODEL = Asked(), Settings()


@app.command()
@resumable()
def evaluate(
    refs: Annotated[
        list[str],
        typer.Argument(
            help="releases: DATASET (the latest), DATASET@vN, DATASET@TAG", autocompletion=completing.refs
        ),
    ],
    split: Annotated[
        str, typer.Option(help="valid or test; rank on valid, and keep test for what was chosen")
    ] = DEFAULT.split,
    seeds: Annotated[int, typer.Option(help="probes of each release, with seeds 0, 1, ...")] = DEFAULT.seeds,
    steps: Annotated[int, typer.Option(help="of training, for each probe: the budget")] = MODEL.steps,
    beams: Annotated[int, typer.Option(help="SIDs that beam search holds, 10 or more")] = MODEL.beams,
    max_users: Annotated[
        int, typer.Option(help="ask a sample of so many users, the same every time; 0 asks all")
    ] = DEFAULT.max_users,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="metrics and baselines alone: no torch")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            help="write the result to a file too, outside of the warehouse: .md or .json", dir_okay=False
        ),
    ] = None,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Compare releases by what their IDs do for recommendation.

    Metrics, a small probe trained on each, and baselines, side by side.
    """
    settings = replace(MODEL, steps=steps, beams=beams)
    asked = Asked(split, seeds, max_users, not no_probe, settings)
    asked.check()
    if to and to.suffix not in SUFFIXES:
        raise RecipeError(f"--to {to}: expected a file that ends in {' or '.join(SUFFIXES)}")
    place = Warehouse(warehouse_path(warehouse))
    # All, before minutes go into the first; what is named twice is the same release once.
    releases = {release.ref: release for release in map(place.release, refs)}
    if to:
        to = outside(to, place.path)
        with _writing(to):  # fails now where it cannot be written
            pass
    found = _stand(place, list(releases.values()), asked, json=json)
    told = {
        "releases": found,
        "ranking": side_by_side.ranking(found),
        "says": side_by_side.sentences(found),
    }
    if to:
        with _writing(to) as draft:
            if to.suffix == ".json":
                files.write_json(draft, told)
            else:
                draft.write_text(side_by_side.markdown(found), encoding="utf-8")
            draft.replace(to)
    if json:
        print_json(told)
    else:
        _tell(told)


@contextmanager
def _writing(to: Path) -> Iterator[Path]:
    """Give a name to write to, beside the file of --to and renamed to it when it is whole."""
    try:
        with files.writing(to.parent) as scratch, files.explained(to.parent):
            yield scratch / to.name
    except (OSError, WarehouseError) as error:
        why = getattr(error.__cause__ or error, "strerror", None) or error
        raise RecipeError(f"--to {to}: cannot be written ({why}); choose another file") from error


def _stand(place: Warehouse, releases: list[Release], asked: Asked, *, json: bool) -> list[dict[str, Any]]:
    """Give how each release stands, telling how far it is."""
    terminal = sys.stdout.isatty() and not json
    report = SilentReporter() if json else BarReporter() if terminal else PlainReporter()
    found = []
    try:
        for release in releases:
            with release, believed(release.folder):
                found.append(standing(release, place.path, asked, report))
    finally:
        if isinstance(report, BarReporter):
            report.close()
    return found


def _tell(told: dict[str, Any]) -> None:
    say()
    print_table(side_by_side.COLUMNS, side_by_side.table(told["ranking"]))
    say()
    for sentence in told["says"]:
        say(sentence)
    say()
    found = told["releases"]
    print_table(["metric", *(one["ref"] for one in found)], side_by_side.metric_rows(found))
