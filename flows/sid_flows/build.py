"""The Prefect flow: every stage a task, from raw dump to release. The only module that imports Prefect.

Our stage store does the caching, so tasks cache nothing and return only what a reader of the run needs.
"""

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

# Modules, not their functions: Prefect keeps flow functions alive at exit, and DuckDB, reached through
# what they import, would then print pages of leak warnings.
from sid_flows import execute, plan, prefect_settings, recipe
from sid_pipelines import published
from sid_pipelines.chain import PUBLISH


# The types of tasks' parameters are Any: Prefect keeps at exit what they name, and so what that reaches.
@task(cache_policy=NO_CACHE, persist_result=False)
def stage(of: Any, planned: Any, inputs: Any) -> Any:
    """Run one stage of a plan, or reuse its output; inputs: outputs by label."""
    return execute.execute(of, planned, inputs)


@task(name=PUBLISH, cache_policy=NO_CACHE, persist_result=False)
def publish(of: Any, outputs: Any) -> dict[str, Any]:
    """Publish the release that the outputs of a plan's stages, by label, make."""
    return execute.finish(of, outputs)


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
    made = plan.make_plan(recipe_path, recipe.warehouse_path(warehouse), overrides or (), until)
    made.store.sweep()
    outputs: dict[str, Any] = {}
    for planned in made.stages:
        inputs = {label: outputs[label] for label in planned.step.inputs.values()}
        outputs[planned.label] = stage.with_options(name=planned.label)(made, planned, inputs)
    if until is not None:
        last = list(outputs.values())[-1]
        return {
            "stage": list(outputs)[-1],
            "key": last.manifest["key"],
            "folder": str(last.folder),
            "ledger": outputs["clean"].facts["ledger"] if "clean" in outputs else [],
            "findings": outputs["split"].facts["audit"]["findings"] if "split" in outputs else [],
            "published_statistics": published.compare(outputs),
        }
    release = publish(made, outputs)
    return {name: release[name] for name in ("dataset", "version", "fingerprint")}
