"""The plan: the fingerprint of every stage, looked up before anything is started.

Keys are computed from the recipe and the hashes of the raw files and the encoder's weights, so what is
done and what would run is known without Prefect and without parsing any data.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sid_flows.dump import Dump
from sid_flows.engines import engine_of
from sid_flows.params import params_of
from sid_flows.recipe import Recipe, load_recipe
from sid_flows.wiring import Step, steps
from sid_pipelines.chain import STEPS, step_of
from sid_pipelines.ingest import check_rejects
from sid_pipelines.publish import fingerprint
from sid_pipelines.released import as_role
from sid_pipelines.stage import Stage, keyed
from sid_schemas import RecipeError
from sid_tokenizers import tokenizer_named
from sid_warehouse import files, releases
from sid_warehouse.stages import StageOutput, StageStore


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan: its key, its output where it exists, and why it would run otherwise.

    parents: the key of what fills each role that the stage reads.
    """

    step: Step
    params: Any
    key: str
    parents: Mapping[str, str]
    done: StageOutput | None
    why: str

    @property
    def label(self) -> str:
        """Give its name in this plan: `split`, `embed image`."""
        return self.step.label

    @property
    def stage(self) -> Stage:
        """Give the kind of stage it is."""
        return self.step.stage

    def inputs(self, outputs: Mapping[str, StageOutput]) -> dict[str, StageOutput]:
        """Give what it reads, by role, out of the outputs there are, by label."""
        return {role: as_role(outputs[label], role) for role, label in self.step.inputs.items()}


@dataclass(frozen=True)
class Plan:
    """All stages of a recipe in order, and the release they make.

    given: outputs by label that were there before: nothing for a build, a release's for what goes on from
    one. kind: "build", "append" or "retokenize". base: the release that it goes on from.
    """

    recipe: Recipe
    warehouse: Path
    store: StageStore
    stages: tuple[PlannedStage, ...]
    raw_files: list[dict[str, Any]]
    fingerprint: str
    published: dict[str, Any] | None
    given: Mapping[str, StageOutput] = field(default_factory=dict)
    kind: str = "build"
    base: StageOutput | None = None

    def with_published(self, published: dict[str, Any] | None) -> "Plan":
        """Give this plan with the release that has what it would make."""
        return replace(self, published=published)

    def roles(self, outputs: Mapping[str, StageOutput]) -> dict[str, StageOutput]:
        """Give the outputs, by label, as what a release is made of, by role."""
        filled = {role: as_role(outputs[one.label], role) for one in self.stages for role in one.step.roles}
        return {**self.given, **filled}

    @property
    def complete(self) -> bool:
        """Say whether all planned stages are done."""
        return all(planned.done for planned in self.stages)

    def check_needs(self) -> None:
        """Raise MissingExtraError now, not after hours, where a stage that would run lacks a package.

        RecipeError too, where the engine's options cannot be.
        """
        engine_of(self.recipe.engine)
        for planned in self.stages:
            if planned.done is None:
                planned.stage.check_needs(planned.params)
                if planned.stage.name == "tokenize":
                    tokenizer_named(self.recipe.tokenize.tokenizer).check_package()

    def check_limits(self) -> None:
        """Raise DataError where a finished ingest lost more rows than the recipe allows.

        The limit is no part of any key: it judges an output, it does not shape it.
        """
        ingested = self.stages[0].done
        if ingested:
            check_rejects(ingested.facts, self.recipe.clean.max_reject_rate)


def check_step(name: str) -> str:
    """Give a step's name back, or raise RecipeError listing those there are."""
    if name not in STEPS:
        raise RecipeError(f"no stage is called {name!r}; there are: {', '.join(STEPS)}")
    return name


def make_plan(
    recipe_path: str | Path, warehouse: Path, overrides: Sequence[str] = (), until: str | None = None
) -> Plan:
    """Read a recipe and find out what of it is done, up to and with a stage, or to the release."""
    recipe = load_recipe(recipe_path, overrides)
    dump = Dump.of(recipe, Path(recipe_path).absolute().parent, warehouse)
    return assemble(
        recipe,
        warehouse,
        steps(recipe),
        lambda step: params_of(step, recipe, dump),
        raw_files=dump.hashes,
        until=until,
    )


def assemble(
    recipe: Recipe,
    warehouse: Path,
    steps: Iterable[Step],
    params: Callable[[Step], Any],
    *,
    raw_files: list[dict[str, Any]],
    given: Mapping[str, StageOutput] | None = None,
    until: str | None = None,
    kind: str = "build",
    base: StageOutput | None = None,
) -> Plan:
    """Look up what is done of some steps, up to and with a stage, or to the release; see `Plan`."""
    store = StageStore(warehouse, recipe.dataset)
    planned: dict[str, PlannedStage] = {}
    keys = {label: output.manifest["key"] for label, output in (given or {}).items()}
    for step in steps:
        if until and STEPS.index(step_of(step.stage)) > STEPS.index(until):
            break
        own = params(step)
        parents = {role: keys[label] for role, label in step.inputs.items()}
        key = keys[step.label] = step.stage.key(own, parents)
        done = store.find(step.stage.name, key)
        why = "done" if done else _why(store, step, own, planned)
        planned[step.label] = PlannedStage(step, own, key, parents, done, why)
    mark = fingerprint(keys)
    return Plan(
        recipe=recipe,
        warehouse=warehouse,
        store=store,
        stages=tuple(planned.values()),
        raw_files=raw_files,
        fingerprint=mark,
        published=None if until else releases.find_fingerprint(warehouse, recipe.dataset, mark),
        given=given or {},
        kind=kind,
        base=base,
    )


def _why(store: StageStore, step: Step, params: Any, planned: Mapping[str, PlannedStage]) -> str:
    """Say why a stage would run: a parent runs, or what differs from its newest output."""
    stage = step.stage
    labels = [label for label in dict.fromkeys(step.inputs.values()) if label in planned]
    rerun = [label for label in labels if planned[label].done is None]
    if rerun:
        return f"{', '.join(rerun)} will run"
    newest = store.newest(stage.name, step.embed.name if step.embed and "name" in keyed(params) else None)
    if newest is None:
        return "never run"
    if newest.manifest["revision"] != stage.revision:
        return f"code changed (revision {newest.manifest['revision']} -> {stage.revision})"
    before, now = _flat(newest.manifest["params"]), _flat(files.as_json(keyed(params)))
    changed = sorted(name for name in before | now if before.get(name) != now.get(name))
    return f"changed: {', '.join(changed)}" if changed else "other parents"


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested parameters under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat
