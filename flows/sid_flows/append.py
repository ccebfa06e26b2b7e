"""The plan of an append: a new dump, and a release whose codebooks, labels and numbers stay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sid_flows.dump import Dump
from sid_flows.overlay import recipe_over
from sid_flows.params import params_of
from sid_flows.plan import Plan, assemble
from sid_flows.recipe import Recipe, recipe_values
from sid_flows.wiring import append_steps
from sid_pipelines import embed_text
from sid_pipelines.released import base_of
from sid_schemas import RecipeError
from sid_warehouse.reader import Warehouse
from sid_warehouse.stages import StageOutput, StageStore

FREE = ("dataset", "source", "gates", "append", "engine", "export", "publish", "clean.max_reject_rate")
INSTEAD = "An append keeps what its base was made by; to change it, run the recipe or `sidmill retokenize`"


def plan_append(
    recipe_path: str | Path,
    warehouse: Path,
    base: str | None = None,
    overrides: Sequence[str] = (),
    until: str | None = None,
) -> Plan:
    """Find out what of an append is done. base: a reference; without one the recipe's data set, the latest.

    Where the base, or a release that it goes back to, has read this very dump, that is what is published.
    """
    values = recipe_values(recipe_path, overrides)
    named = str(values.get("dataset", ""))
    folder = Warehouse(warehouse).release(base or named).folder
    released = base_of(folder)
    record = released.manifest["record"]
    if named != record["dataset"]:
        raise RecipeError(
            f"{recipe_path}: dataset = {named!r}, but the base is {record['dataset']}@v{record['version']}; "
            "expected the same data set"
        )
    if "source" not in values:
        raise RecipeError(f"{recipe_path}: [source] is missing; expected the new dump")
    # New items need texts of their own, which lie in another file or in the same one grown.
    free = (*FREE, *(f"embed.{one['name']}.enriched" for one in record["recipe"]["embed"]))
    recipe = recipe_over(record, recipe_path, overrides, free=free, instead=INSTEAD)
    _check_encoders(recipe)
    dump = Dump.of(recipe, Path(recipe_path).absolute().parent, warehouse)
    number = 1 + max((one.get("append", 0) for one in record["raw_files"]), default=0)
    earlier = _earlier(warehouse, record)
    given = {"base": released} | ({"earlier": earlier} if earlier else {})
    plan = assemble(
        recipe,
        warehouse,
        append_steps(recipe, with_earlier=earlier is not None),
        lambda step: params_of(step, recipe, dump),
        raw_files=[*record["raw_files"], *({**one, "append": number} for one in dump.hashes)],
        given=given,
        until=until,
        kind="append",
        base=released,
    )
    return plan if until or plan.published else plan.with_published(_already(record, dump))


def _check_encoders(recipe: Recipe) -> None:
    """Refuse to append where an encoder cannot make vectors of new items."""
    for one in recipe.embed:
        if one.modality == "text" and embed_text.is_fitted(one.model):
            raise RecipeError(
                f"[[embed]] {one.name!r}: {one.model} is fitted on the texts of a build, and a release does "
                "not keep what it learned; nothing can be appended. Build anew, with a frozen encoder"
            )


def _earlier(warehouse: Path, record: Mapping[str, Any]) -> StageOutput | None:
    """Give what the base read, or what waited since; None where its stage is no longer at hand."""
    store = StageStore(warehouse, record["dataset"])
    for label in ("extend", "clean", "ingest"):
        stage = record["stages"].get(label)
        if stage and stage["stage"] in ("extend", "ingest"):
            return store.find(stage["stage"], stage["key"])
    return None


def _already(record: Mapping[str, Any], dump: Dump) -> dict[str, Any] | None:
    """Give the base where it, or a release that it goes back to, has read this very dump."""
    hashes = {one["sha256"] for one in dump.hashes}
    read: dict[int, set[str]] = {}
    for one in record["raw_files"]:
        read.setdefault(one.get("append", 0), set()).add(one["sha256"])
    return dict(record) if hashes in read.values() else None
