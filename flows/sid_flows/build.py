"""The Prefect flows: every stage a task, from raw dump to release. The only module that imports Prefect.

Our stage store does the caching, so tasks cache nothing and return only what a reader of the run needs.
"""

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

# Modules, not their functions: Prefect keeps flow functions alive at exit, and DuckDB, reached through
# what they import, would then print pages of leak warnings.
from sid_flows import append as appending
from sid_flows import execute, exporting, plan, prefect_settings, recipe
from sid_flows import retokenize as retokenizing
from sid_pipelines import published
from sid_pipelines.chain import PUBLISH
from sid_warehouse import files, locks


# The types of tasks' parameters are Any: Prefect keeps at exit what they name, and so what that reaches.
@task(cache_policy=NO_CACHE, persist_result=False)
def stage(of: Any, planned: Any, inputs: Any) -> Any:
    """Run one stage of a plan, or reuse its output; inputs: outputs by label."""
    return execute.execute(of, planned, inputs)


@task(name=PUBLISH, cache_policy=NO_CACHE, persist_result=False)
def publish(of: Any, outputs: Any) -> dict[str, Any]:
    """Publish the release that the outputs of a plan's stages, by label, make."""
    return execute.finish(of, outputs)


@task(name="export", cache_policy=NO_CACHE, persist_result=False)
def export(of: Any, release: Any) -> list[str]:
    """Write the trainers' formats that a plan's recipe names; release: the record of what was published."""
    return exporting.exports(of, release)


@flow(name="sidmill-build", flow_run_name="{recipe_path}", persist_result=False)
def build(
    recipe_path: str,
    warehouse: str | None = None,
    overrides: list[str] | None = None,
    until: str | None = None,
) -> dict[str, Any]:
    """Build a release from a recipe: run what is not done, publish what is new.

    recipe_path: a TOML file. warehouse: a folder, else $SIDMILL_WAREHOUSE, else ./warehouse/data.
    overrides: `key=value`, as with --set. until: the stage to stop after. Gives the release's name and
    fingerprint, or the last stage where it stopped early.
    """
    until = None if until is None or plan.check_step(until) == PUBLISH else until
    prefect_settings.bind_server_to_us()
    place = recipe.warehouse_path(warehouse)
    with files.explained(place), locks.building(place):
        return carry_out(plan.make_plan(recipe_path, place, overrides or (), until), until)


@flow(name="sidmill-append", flow_run_name="{recipe_path}", persist_result=False)
def append(
    recipe_path: str,
    warehouse: str | None = None,
    base: str | None = None,
    overrides: list[str] | None = None,
    until: str | None = None,
) -> dict[str, Any]:
    """Append a dump to a release: its codebooks, numbers and labels stay, new items get SIDs.

    base: the release, as DATASET@vN; without it the latest of the recipe's data set. The others as for
    `build`.
    """
    until = None if until is None or plan.check_step(until) == PUBLISH else until
    prefect_settings.bind_server_to_us()
    place = recipe.warehouse_path(warehouse)
    with files.explained(place), locks.building(place):
        return carry_out(appending.plan_append(recipe_path, place, base, overrides or (), until), until)


@flow(name="sidmill-retokenize", flow_run_name="{ref}", persist_result=False)
def retokenize(
    recipe_path: str,
    ref: str,
    warehouse: str | None = None,
    overrides: list[str] | None = None,
    match: bool = True,
) -> dict[str, Any]:
    """Make new codebooks on a release's embeddings; its splits, items and users stay.

    ref: the release, as DATASET@vN. match: whether the new codes get the labels of the old ones that they
    agree with most. The others as for `build`.
    """
    prefect_settings.bind_server_to_us()
    place = recipe.warehouse_path(warehouse)
    with files.explained(place), locks.building(place):
        return carry_out(
            retokenizing.plan_retokenize(ref, recipe_path, place, overrides or (), match=match), None
        )


def carry_out(made: Any, until: str | None) -> dict[str, Any]:
    """Run a plan's stages as tasks, then publish unless it stops before; for the flows here.

    Gives the release's name and fingerprint, and the folders of its exports, or the last stage where it
    stopped early.
    """
    made.store.sweep()
    if until is None and made.published:
        return _told(made, made.published)
    outputs: dict[str, Any] = {}
    for planned in made.stages:
        inputs = {label: outputs[label] for label in planned.step.inputs.values() if label in outputs}
        outputs[planned.label] = stage.with_options(name=planned.label)(made, planned, inputs)
    if until is not None:
        roles = made.roles(outputs)
        return {
            "stage": list(outputs)[-1],
            "key": list(outputs.values())[-1].manifest["key"],
            "folder": str(list(outputs.values())[-1].folder),
            "ledger": roles["clean"].facts["ledger"] if "clean" in roles else [],
            "findings": roles["split"].facts["audit"]["findings"] if "split" in roles else [],
            "published_statistics": published.compare(roles),
        }
    return _told(made, publish(made, outputs))


def _told(made: Any, release: Any) -> dict[str, Any]:
    """Export what the recipe asks for, and tell what there is now."""
    told = {name: release[name] for name in ("dataset", "version", "fingerprint")}
    return told | ({"exports": export(made, release)} if made.recipe.export.formats else {})
