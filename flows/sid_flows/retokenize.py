"""The plan of a retokenize: a release's own splits and embeddings, and a new codebook over them.

Unlike a build it reads no dump and embeds nothing; unlike an append it gives items other IDs, though to as
few as can be: labels are matched to the release's (see sid_pipelines.retokenize).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sid_flows.dump import Dump
from sid_flows.overlay import recipe_over
from sid_flows.params import params_of
from sid_flows.plan import Plan, assemble
from sid_flows.recipe import Recipe, validated
from sid_flows.wiring import Step, coded, identified_steps, judged
from sid_pipelines import gates, tokenize
from sid_pipelines.released import base_of, outputs_of
from sid_pipelines.retokenize import CHURN, RELABEL, ChurnParams
from sid_pipelines.stage import Stage
from sid_schemas import RecipeError
from sid_tokenizers import Tokenizer
from sid_warehouse.reader import Warehouse
from sid_warehouse.stages import StageOutput

MADE = ("tokenize", "collisions", "pieces", "users", "gates")  # anew; all else is the release's
UNREAD = ("source.path", "source.items", "clean.max_reject_rate", "append")  # of no matter without a dump
FREE = (*MADE, *UNREAD, "engine", "export", "publish")
OWN = ("embeddings_", "fusion/")  # how paths begin of what a stage that embeds or fuses wrote
NOTHING: dict[str, Any] = {"facts": {}, "rows": {}, "files": {}}
INSTEAD = (
    "A retokenize changes [tokenize], [collisions], [pieces], [users] and [gates]; for anything else, "
    "run the recipe"
)


def plan_retokenize(
    ref: str, recipe_path: str | Path, warehouse: Path, overrides: Sequence[str] = (), *, match: bool = True
) -> Plan:
    """Find out what of a retokenize is done. ref: the release. match: give codes the release's labels.

    Where the release is what this very retokenize made of its own base, that is what is published.
    Raises RecipeError naming a key of the recipe that would have to change more than codes.
    """
    release = Warehouse(warehouse).release(ref)
    record = release.record
    dataset, before = record["dataset"], (record.get("base") or {}).get("version")
    if record.get("kind") == "retokenize":
        with contextlib.suppress(RecipeError):  # the base is gone, so that nothing can be made of it again
            folder = Warehouse(warehouse).release(f"{dataset}@v{before}").folder
            made = _plan(folder, recipe_path, warehouse, overrides, match=match)
            if made.fingerprint == record["fingerprint"]:
                return made
    return _plan(release.folder, recipe_path, warehouse, overrides, match=match)


def _plan(
    folder: Path, recipe_path: str | Path, warehouse: Path, overrides: Sequence[str], *, match: bool
) -> Plan:
    base = base_of(folder)
    record = base.manifest["record"]
    recipe = recipe_over(record, recipe_path, overrides, free=FREE, instead=INSTEAD)
    # The dump is not read, so lineage keeps where the release's came from.
    recipe = validated(recipe_path, {**recipe.as_written(), "source": record["recipe"]["source"]})
    scheme = recipe.tokenize.scheme
    if not issubclass(scheme, Tokenizer):
        raise RecipeError(
            f"{recipe_path}: {scheme.name} gives IDs that no codebook makes, so nothing can be retokenized; "
            "run the recipe"
        )
    given = _given(base)
    nowhere = Dump(folder, [], [], warehouse / "cache")
    plan = assemble(
        recipe,
        warehouse,
        _steps(recipe, given, match=match),
        lambda step: _params(step, recipe, nowhere, match=match),
        raw_files=record["raw_files"],
        given={**given, "base": base},
        kind="retokenize",
        base=base,
    )
    return plan.with_published(record) if _changes_nothing(plan, record) else plan


def _changes_nothing(plan: Plan, record: Mapping[str, Any]) -> bool:
    """Say whether the release was built from this very recipe: it would be published once more."""
    now, then = plan.recipe.as_written(), record["recipe"]
    same = all(now.get(section) == then.get(section) for section in MADE)
    fitted = record["stages"].get("tokenize", {}).get("key")
    return same and record.get("kind", "build") == "build" and plan.stages[0].key == fitted


def _given(base: StageOutput) -> dict[str, StageOutput]:
    """Give the release's outputs by role, but for what is made anew.

    Of each embedding only its own files are published again, what the audit found of sequences goes on, and
    so does the lineage of texts, which no release holds.
    """
    outputs = {
        role: output for role, output in outputs_of(base.folder).items() if role.partition(" ")[0] not in MADE
    }
    known = base.facts["split"]["audit"]["findings"]
    findings = [one for one in base.facts["audit"] if one not in known and one["rule"] != "fit_scope"]
    for role, output in outputs.items():
        manifest = dict(output.manifest)
        if role == "sequences":
            manifest["facts"] = {**output.facts, "findings": findings}
        elif _is_embedding(role):
            files = manifest["files"].items()
            manifest["files"] = {name: entry for name, entry in files if name.startswith(OWN)}
        outputs[role] = StageOutput(base.folder, manifest)
    for label, stage in base.manifest["record"]["stages"].items():
        if label.partition(" ")[0] == "text":
            outputs[label] = StageOutput(base.folder, {**stage, "stage": "text", **NOTHING})
    return outputs


def _is_embedding(role: str) -> bool:
    return role == "fuse" or role.startswith("embed ")


def _steps(recipe: Recipe, given: Mapping[str, StageOutput], *, match: bool) -> Iterator[Step]:
    """Give the steps. What is fitted has the key that a build gives it, so neither repeats the other."""
    fitted = "fit" if match else "tokenize"
    yield Step(fitted, tokenize.STAGE, _own(tokenize.STAGE) | coded(recipe))
    if match:
        yield Step("tokenize", RELABEL, {"fitted": fitted, "base": "base"})
    yield from identified_steps(recipe)
    yield Step("churn", CHURN, {"base": "base", "fitted": fitted, "collisions": "collisions"})
    embedded = {role: role for role in given if _is_embedding(role)}
    yield Step("gates", gates.STAGE, _own(gates.STAGE) | judged(recipe) | embedded)


def _params(step: Step, recipe: Recipe, dump: Dump, *, match: bool) -> Any:
    if step.stage is CHURN:
        return ChurnParams(match)
    stage = tokenize.STAGE if step.stage is RELABEL else step.stage
    return params_of(replace(step, stage=stage), recipe, dump)


def _own(stage: Stage) -> dict[str, str]:
    return {name: name for name in stage.parents}
