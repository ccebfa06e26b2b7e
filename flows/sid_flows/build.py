"""The Prefect flows that make releases, from raw dump or from a release. release_flows.py has the others.

    build, append, retokenize     each: plan -> stages -> publish -> exports, see tasks.py

Descriptions of parameters stand as Prefect reads them, below `Args:`; its UI shows them beside the form.
"""

from functools import partial
from typing import Any

from prefect import flow

# Modules, not their functions; tasks.py says why.
from sid_flows import append as appending
from sid_flows import forms, plan, recipe, tasks
from sid_flows import retokenize as retokenizing
from sid_warehouse import names


@flow(name="sidmill-build", flow_run_name="{recipe_path}", persist_result=False)
def build(
    recipe_path: str,
    warehouse: str | None = None,
    overrides: list[str] | None = None,
    until: forms.Until = None,
    stage_timeout: float | None = None,
) -> dict[str, Any]:
    """Build a release from a recipe: run what is not done, publish what is new.

    Gives the release's name and fingerprint, or the last stage where it stopped early.

    Args:
        recipe_path: The recipe, a TOML file; relative to the deployment's folder.
        warehouse: A folder or s3://BUCKET/PREFIX. Without it $SIDMILL_WAREHOUSE, else warehouse/data.
        overrides: Keys of the recipe to override, each as key=value, such as tokenize.seed=2.
        until: The stage to stop after; nothing is published then. Without it the whole chain runs.
        stage_timeout: Seconds that one stage may take before the run fails. Without it any time.
    """
    last = forms.stop_after(until)
    place = recipe.warehouse_path(warehouse)
    given = overrides or []
    with tasks.run_on(recipe.dataset_of(recipe_path, given), place):
        made = tasks.plan(plan.make_plan, (recipe_path, place, given, last))
        return tasks.carry_out(made, last, stage_timeout)


@flow(name="sidmill-append", flow_run_name="{recipe_path}", persist_result=False)
def append(
    recipe_path: str,
    warehouse: str | None = None,
    base: str | None = None,
    overrides: list[str] | None = None,
    until: forms.Until = None,
    stage_timeout: float | None = None,
) -> dict[str, Any]:
    """Append a dump to a release: its codebooks, numbers and labels stay, new items get SIDs.

    Where the dump is in the release already, nothing is published.

    Args:
        recipe_path: The recipe that names the new dump, a TOML file; relative to the deployment's folder.
        warehouse: A folder or s3://BUCKET/PREFIX. Without it $SIDMILL_WAREHOUSE, else warehouse/data.
        base: The release, as DATASET@vN. Without it the latest of the recipe's data set.
        overrides: Keys of the recipe to override, each as key=value, such as append.drift=fail.
        until: The stage to stop after; nothing is published then. Without it the whole chain runs.
        stage_timeout: Seconds that one stage may take before the run fails. Without it any time.
    """
    last = forms.stop_after(until)
    place = recipe.warehouse_path(warehouse)
    given = overrides or []
    with tasks.run_on(recipe.dataset_of(recipe_path, given), place):
        made = tasks.plan(appending.plan_append, (recipe_path, place, base, given, last))
        return tasks.carry_out(made, last, stage_timeout)


@flow(name="sidmill-retokenize", flow_run_name="{ref}", persist_result=False)
def retokenize(
    recipe_path: str,
    ref: str,
    warehouse: str | None = None,
    overrides: list[str] | None = None,
    match: bool = True,
    stage_timeout: float | None = None,
) -> dict[str, Any]:
    """Make new codebooks on a release's embeddings; its splits, items and users stay.

    Args:
        recipe_path: The recipe with the new [tokenize], a TOML file; relative to the deployment's folder.
        ref: The release, as DATASET (its latest), DATASET@vN or DATASET@TAG.
        warehouse: A folder or s3://BUCKET/PREFIX. Without it $SIDMILL_WAREHOUSE, else warehouse/data.
        overrides: Keys of the recipe to override, each as key=value, such as tokenize.seed=2.
        match: Whether new codes get the labels of the old ones that they agree with most.
        stage_timeout: Seconds that one stage may take before the run fails. Without it any time.
    """
    place = recipe.warehouse_path(warehouse)
    given = overrides or []
    with tasks.run_on(names.Ref.parse(ref).dataset, place):
        matching = partial(retokenizing.plan_retokenize, match=match)
        made = tasks.plan(matching, (ref, recipe_path, place, given))
        return tasks.carry_out(made, None, stage_timeout)
