"""diff and retokenize: what one release changes of another, and new codebooks that change little."""

from typing import Annotated, Any

import typer

from sid_flows.recipe import warehouse_path
from sid_flows.report import changes as rows
from sid_flows.report.markup import percent
from sid_flows.retokenize import plan_retokenize
from sid_warehouse.believed import believed
from sid_warehouse.diff import SHOWN, compare
from sid_warehouse.reader import Warehouse
from sidmill.app import (
    BeamOpt,
    EngineOpt,
    JsonOpt,
    RecipeArg,
    RefArg,
    SetOpt,
    WarehouseOpt,
    app,
    overrides_of,
)
from sidmill.commands.build import nothing_to_do, tell
from sidmill.console import print_json, print_table, say, working
from sidmill.running import LogOpt, resumable, run_flow, settle_log


@app.command()
def diff(
    a: RefArg,
    b: RefArg,
    warehouse: WarehouseOpt = None,
    json: JsonOpt = False,
    all_: Annotated[
        bool, typer.Option("--all", help=f"list every item that moved, came or went, not {SHOWN} of each")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="exit with 1 where an ID of a that is in b has moved")
    ] = False,
) -> None:
    """Show what release B changes of release A.

    IDs, items, splits, samples, recipe, metrics.
    """
    place = Warehouse(warehouse_path(warehouse))
    with place.release(a) as before, place.release(b) as after, believed(place.path):
        with working(f"comparing {before.ref} and {after.ref}", json=json):
            found = compare(before, after, shown=None if all_ else SHOWN)
        if json:
            print_json(found)
        else:
            _tell(found)
    if exit_code and (found["sids"]["moved"] or found["token_ids_moved"]):
        raise typer.Exit(1)


def _tell(found: dict[str, Any]) -> None:
    say(f"{found['a']['ref']} -> {found['b']['ref']}")
    for sentence in rows.verdicts(found):
        say(sentence)
    say()
    print_table(["", "a", "b", "kept", "added", "removed", "renumbered"], rows.counted(found))
    say()
    churned = [[what, number, percent(share)] for what, number, share in rows.churn_rows(found["sids"])]
    print_table(["SIDs of kept items", "changed", "share"], churned)
    say()
    print_table(["events", "a", "b", "added", "removed", "moved away", "moved here"], rows.events(found))
    say()
    print_table(["samples", "a", "b", "same", "changed", "added", "removed"], rows.samples(found))
    _tell_examples(found)
    for title, differing in (("recipe", found["recipe"]), ("made of", found["hashes"])):
        if differing:
            say()
            print_table([title, "a", "b"], [[one["name"], one["a"], one["b"]] for one in differing])
    shown, left = rows.headlines(found)
    if shown or left:
        say()
        print_table(["metric", "a", "b", "difference"], shown)
        say(f"{left} more metrics changed: see --json")


def _tell_examples(found: dict[str, Any]) -> None:
    kinds = [("moved", found["sids"]["moved"], found["sids"]["examples"])]
    for kind in ("added", "removed"):
        kinds.append((kind, found["items"][kind], found["items"][f"{kind}_examples"]))
    for kind, total, examples in kinds:
        if examples:
            say(f"\n{kind}: {len(examples):,} of {total:,}")
            print_table(list(examples[0]), [list(one.values()) for one in examples])


@app.command()
@resumable()
def retokenize(
    ref: RefArg,
    recipe: RecipeArg,
    warehouse: WarehouseOpt = None,
    set_: SetOpt = None,
    engine: EngineOpt = None,
    beam_options: BeamOpt = None,
    no_match: Annotated[
        bool, typer.Option("--no-match", help="leave labels as the fit gives them, so that most IDs move")
    ] = False,
    log: LogOpt = None,
    json: JsonOpt = False,
) -> None:
    """Make new codebooks for a release, so that few IDs move.

    They are fitted on its own embeddings, and their labels are matched with the old ones.
    """
    settle_log(log)
    place, overrides = warehouse_path(warehouse), overrides_of(set_, engine, beam_options)
    plan = plan_retokenize(ref, recipe, place, overrides, match=not no_match)
    if plan.published:
        nothing_to_do(plan, None, json=json)
        return
    plan.check_needs()
    assert plan.base is not None
    # The release by its number: the newest may be another one by the time that the flow looks.
    exact = str(plan.base.manifest["summary"])
    arguments = (str(recipe), exact, str(place), list(overrides), not no_match)
    result = run_flow("retokenize", arguments, place, json=json)
    churn = Warehouse(place).release(f"{result['dataset']}@v{result['version']}").metrics["churn"]
    if json:
        print_json({"status": "published", **result, "churn": churn})
        return
    tell(result, place, None, json=False)
    say(f"\n{churn['says']}:")
    print_table(["items whose ... changed", "labels matched", "not matched"], rows.both_churns(churn))
