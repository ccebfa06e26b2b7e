"""append: a new dump joins a release whose codebooks, numbers and labels stay."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sid_flows.append import plan_append
from sid_flows.plan import check_step
from sid_flows.recipe import warehouse_path
from sid_pipelines.chain import PUBLISH
from sid_warehouse.reader import Warehouse
from sidmill import completing
from sidmill.app import (
    BeamOpt,
    EngineOpt,
    JsonOpt,
    RecipeArg,
    SetOpt,
    UntilOpt,
    WarehouseOpt,
    app,
    overrides_of,
)
from sidmill.commands.build import nothing_to_do, tell
from sidmill.console import print_table, say
from sidmill.running import LogOpt, resumable, run_flow, settle_log


@app.command()
@resumable()
def append(
    recipe: RecipeArg,
    base: Annotated[
        str | None,
        typer.Option(
            help="the release: DATASET, DATASET@vN or DATASET@TAG [default: the latest]",
            autocompletion=completing.refs,
        ),
    ] = None,
    warehouse: WarehouseOpt = None,
    set_: SetOpt = None,
    engine: EngineOpt = None,
    beam_options: BeamOpt = None,
    until: UntilOpt = None,
    log: LogOpt = None,
    json: JsonOpt = False,
) -> None:
    """Append a new dump to a release; no published ID moves.

    New items get SIDs from frozen codebooks.
    """
    settle_log(log)
    place, overrides = warehouse_path(warehouse), overrides_of(set_, engine, beam_options)
    until = None if until is None or check_step(until) == PUBLISH else until
    plan = plan_append(recipe, place, base, overrides, until)
    plan.check_limits()
    if plan.published or (until and plan.complete):
        nothing_to_do(plan, until, json=json)
        return
    plan.check_needs()
    arguments = (str(recipe), str(place), base, list(overrides), until)
    result = run_flow("append", arguments, place, json=json)
    tell(result, place, until, json=json)
    if not json and "version" in result:
        _tell_append(place, f"{result['dataset']}@v{result['version']}")


def _tell_append(place: Path, ref: str) -> None:
    """Say what was added, and whether the codebooks still fit."""
    metrics = Warehouse(place).release(ref).metrics
    drift = metrics["collisions"]["drift"]
    say()
    say("how new items compare with those that the codebooks were fitted on")
    print_table(["", "new items", "fitted ones"], drift_rows(drift))
    if drift["retrain"]:
        say("retraining is recommended: see `sidmill retokenize`")
        for reason in drift["retrain"]:
            say(f"  {reason}")


def drift_rows(drift: dict[str, Any]) -> list[list[Any]]:
    """Give drift as rows of a table: what, of new items, of fitted ones or allowed."""
    rows: list[list[Any]] = [
        [f"PSI of level {one['level']}", f"{one['psi']:.3f}", f"{one['psi_by_chance']:.3f} by chance"]
        for one in drift["levels"]
    ]
    if drift["error_ratio"] is not None:
        rows.append(["reconstruction error", f"{drift['error_ratio']:.2f}", "1"])
    if drift["pressure"] is not None:
        shares = (f"{drift[name]:.1%}" for name in ("pressure", "pressure_before"))
        rows.append(["share whose codes another has", *shares])
    rows.append(["users without a history", f"{drift['cold_user_rate']:.1%}", ""])
    return rows
