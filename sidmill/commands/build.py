"""run and plan: from a recipe to a release, or to what would have to run."""

import shlex
from pathlib import Path
from typing import Any

from sid_flows.exporting import exports, folder_of, missing
from sid_flows.plan import Plan, check_step, make_plan
from sid_flows.recipe import warehouse_path
from sid_pipelines.chain import PUBLISH
from sid_warehouse import catalog as catalogs
from sid_warehouse.db import identifier
from sid_warehouse.reader import Warehouse
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
from sidmill.console import print_json, print_table, say
from sidmill.running import LogOpt, program, resumable, run_flow, settle_log


@app.command()
@resumable()
def run(
    recipe: RecipeArg,
    warehouse: WarehouseOpt = None,
    set_: SetOpt = None,
    engine: EngineOpt = None,
    beam_options: BeamOpt = None,
    until: UntilOpt = None,
    log: LogOpt = None,
    json: JsonOpt = False,
) -> None:
    """Run a recipe: raw dumps in, a new release out.

    What is done already is not run again.
    """
    settle_log(log)
    place, overrides = warehouse_path(warehouse), overrides_of(set_, engine, beam_options)
    until = None if until is None or check_step(until) == PUBLISH else until
    plan = make_plan(recipe, place, overrides, until)
    plan.check_limits()
    if plan.published or (until and plan.complete):
        nothing_to_do(plan, until, json=json)
        return
    plan.check_needs()
    result = run_flow("build", (str(recipe), str(place), list(overrides), until), place, json=json)
    tell(result, place, until, json=json)


def tell(result: dict[str, Any], place: Path, until: str | None, *, json: bool) -> None:
    """Say what came of a run."""
    if json:
        print_json({"status": "stopped" if until else "published", **result})
    elif "version" in result:
        _tell_release(place, f"{result['dataset']}@v{result['version']}")
        for folder in result.get("exports", ()):
            say(f"exported to {folder}")
    else:
        _tell_data(result)
        say(f"stopped after {result['stage']}, tables as Parquet in {result['folder']}")


def nothing_to_do(plan: Plan, until: str | None, *, json: bool) -> None:
    """Say that all is done already; mends catalog and exports where a publisher was killed before them."""
    release = plan.published
    if until or release is None:
        if json:
            print_json({"status": "unchanged", "stage": until})
        else:
            say(f"nothing to do: all stages through {until} are done")
        return
    if not catalogs.is_current(plan.warehouse):  # killed between the release and its catalog
        catalogs.refresh(plan.warehouse)
    ref = f"{release['dataset']}@v{release['version']}"
    told: dict[str, Any] = {name: release[name] for name in ("dataset", "version", "fingerprint")}
    made = missing(plan, release)
    if plan.recipe.export.formats:
        told["exports"] = exports(plan, release)
    if json:
        print_json({"status": "unchanged", **told})
    elif made:
        say(f"published as {ref}; now also exported: {', '.join(made)}")
    else:
        done = "this dump is in it" if plan.kind == "append" else f"all {len(plan.stages)} stages are done"
        say(f"nothing to do: {done}, published as {ref}")


def _tell_release(warehouse: Path, ref: str) -> None:
    release = Warehouse(warehouse).release(ref)
    rows, unique = release.record["rows"], release.metrics["collisions"]["after"]["uniquely_identified"]
    say()
    say(
        f"published {ref}: {rows['items']:,} items, {unique:.0%} with a SID of their own, "
        f"{rows['users']:,} users, {rows['train']:,} train samples"
    )
    say(f"  {release.folder}")
    _tell_statistics(release.metrics["published_statistics"])
    dataset = identifier(release.record["dataset"])
    query = f"select text, title from {dataset}.sids join {dataset}.items using (item_index) limit 5"
    command = [*program(), "sql", query]
    if warehouse != warehouse_path(None):
        command += ["--warehouse", str(warehouse)]
    say("query it:")
    say(f"  {shlex.join(command)}")


def _tell_data(result: dict[str, Any]) -> None:
    """Say what cleaning took, what the split leaks, and how the counts compare with published ones."""
    taken = [row for row in result["ledger"] if row["removed"]]
    if taken:
        say("\nleft out by [clean]")
        print_table(
            ["step", "events", "why"], [[row["step"], row["removed"], row["reason"]] for row in taken]
        )
    found = [one for one in result["findings"] if one["verdict"] != "ok" and one["count"]]
    if found:
        say("\nleaks and ties of [split]")
        columns = ["verdict", "count", "of", "says"]
        print_table(columns, [[one[name] for name in columns] for one in found])
    say()
    _tell_statistics(result["published_statistics"])


def _tell_statistics(compared: list[dict[str, Any]]) -> None:
    for one in compared:
        say(one["says"])


@app.command()
def plan(
    recipe: RecipeArg,
    warehouse: WarehouseOpt = None,
    set_: SetOpt = None,
    engine: EngineOpt = None,
    beam_options: BeamOpt = None,
    json: JsonOpt = False,
) -> None:
    """Show which stages are done, which would run, and why."""
    made = make_plan(recipe, warehouse_path(warehouse), overrides_of(set_, engine, beam_options))
    rows = [
        {
            "stage": one.label,
            "key": one.key,
            "status": "done" if one.done else "run",
            "why": one.done.manifest["summary"] if one.done else one.why,
        }
        for one in made.stages
    ]
    release = made.published
    why = f"{release['dataset']}@v{release['version']}" if release else "a new release"
    status = "done" if release else "run"
    rows.append({"stage": "publish", "key": made.fingerprint, "status": status, "why": why})
    for name in made.recipe.export.formats:
        there = release is not None and folder_of(made.warehouse, release, name).is_dir()
        rows.append(
            {
                "stage": f"export {name}",
                "key": "",
                "status": "done" if there else "run",
                "why": "named in [export]",
            }
        )
    if json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
