"""The plan: the fingerprint of every stage, looked up before anything is started.

Keys are computed from the recipe, the raw files' hashes and the encoder's weights alone, so what is
done and what would run is known in a moment, without Prefect and without reading data.
"""

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sid_flows.recipe import Recipe, load_recipe
from sid_pipelines.chain import CHAIN, STEPS
from sid_pipelines.clean import CleanParams
from sid_pipelines.collisions import CollisionParams
from sid_pipelines.embed import EmbedParams
from sid_pipelines.encoders import text_encoder
from sid_pipelines.gates import GatesParams
from sid_pipelines.ingest import IngestParams
from sid_pipelines.publish import fingerprint
from sid_pipelines.sequences import SequencesParams
from sid_pipelines.sources import RawFile, source_named
from sid_pipelines.split import SplitParams
from sid_pipelines.stage import Stage, keyed
from sid_pipelines.text import TextParams
from sid_pipelines.tokenize import TokenizeParams
from sid_schemas import RecipeError, SourceError
from sid_warehouse import files, releases
from sid_warehouse.stages import StageOutput, StageStore


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan: its key, its output where it exists, and why it would run otherwise."""

    stage: Stage
    params: Any
    key: str
    parents: Mapping[str, str]
    done: StageOutput | None
    why: str


@dataclass(frozen=True)
class Plan:
    """All stages of a recipe in order, and the release they make."""

    recipe: Recipe
    warehouse: Path
    store: StageStore
    stages: tuple[PlannedStage, ...]
    raw_files: list[dict[str, Any]]
    fingerprint: str
    published: dict[str, Any] | None

    def complete_through(self, until: str | None) -> bool:
        """Say whether nothing is left to do up to and with a stage, or up to the release."""
        if until is None:
            return self.published is not None
        return all(planned.done for planned in self.through(until))

    def through(self, until: str | None) -> tuple[PlannedStage, ...]:
        """Give the stages up to and with `until`, or all."""
        if until is None:
            return self.stages
        names = [planned.stage.name for planned in self.stages]
        return self.stages[: names.index(until) + 1]


def check_step(name: str) -> str:
    """Give a step's name back, or raise RecipeError listing those there are."""
    if name not in STEPS:
        raise RecipeError(f"no stage is called {name!r}; there are: {', '.join(STEPS)}")
    return name


def make_plan(recipe_path: str | Path, warehouse: Path, overrides: tuple[str, ...] = ()) -> Plan:
    """Read a recipe and find out what of it is done."""
    recipe = load_recipe(recipe_path, overrides)
    base = Path(recipe_path).absolute().parent
    raw = _raw_files(recipe, base)
    hashes = [
        {
            "label": file.label,
            "role": file.role,
            "sha256": files.sha256(file.path),
            "bytes": file.path.stat().st_size,
        }
        for file in raw
    ]
    params = _params(recipe, base, raw, hashes)
    store = StageStore(warehouse, recipe.dataset)
    planned: dict[str, PlannedStage] = {}
    for stage in CHAIN:
        parents = {name: planned[name].key for name in stage.parents}
        key = stage.key(params[stage.name], parents)
        done = store.find(stage.name, key)
        why = "done" if done else _why(store, stage, params[stage.name], planned)
        planned[stage.name] = PlannedStage(stage, params[stage.name], key, parents, done, why)
    mark = fingerprint({name: one.key for name, one in planned.items()})
    return Plan(
        recipe=recipe,
        warehouse=warehouse,
        store=store,
        stages=tuple(planned.values()),
        raw_files=hashes,
        fingerprint=mark,
        published=releases.find_fingerprint(warehouse, recipe.dataset, mark),
    )


def _raw_files(recipe: Recipe, base: Path) -> list[RawFile]:
    source = source_named(recipe.source.kind)
    paths = recipe.source.path if isinstance(recipe.source.path, list) else [recipe.source.path]
    found: list[RawFile] = []
    for pattern in paths:
        full = base / Path(pattern).expanduser()
        magic = glob.has_magic(pattern)
        folders = sorted(Path(full.anchor).glob(str(full.relative_to(full.anchor)))) if magic else [full]
        if not folders:
            raise SourceError(f"[source] path = {pattern!r}: matches nothing (looked for {full})")
        for folder in folders:
            if not folder.is_dir():
                raise SourceError(
                    f"[source] path = {pattern!r}: expected a folder with the dump, found none at "
                    f"{folder.resolve()}. Paths are relative to the recipe"
                )
            found += source.find(folder.resolve())
    labels = [file.label for file in found]
    for label in labels:
        if labels.count(label) > 1:
            raise SourceError(f"[source] path: two files are called {label!r}; rename a folder")
    return found


def _params(recipe: Recipe, base: Path, raw: list[RawFile], hashes: list[dict[str, Any]]) -> dict[str, Any]:
    """Give each stage the part of the recipe that it depends on."""
    embed = recipe.embed[0]
    encoder = text_encoder(embed.model, base)
    identity = tuple({name: str(entry[name]) for name in ("label", "role", "sha256")} for entry in hashes)
    return {
        "ingest": IngestParams(
            kind=recipe.source.kind,
            encoding=recipe.source.encoding,
            files=identity,
            paths=tuple(str(file.path) for file in raw),
        ),
        "clean": CleanParams(
            dedupe=recipe.clean.dedupe,
            k_core_user=recipe.clean.k_core.user,
            k_core_item=recipe.clean.k_core.item,
            ties=recipe.split.ties,
            universe=recipe.items.universe,
        ),
        "split": SplitParams(protocol=recipe.split.protocol, ties=recipe.split.ties, seed=recipe.split.seed),
        "text": TextParams(template=recipe.template),
        "embed": EmbedParams(
            modality=embed.modality,
            model=embed.model,
            weights=encoder.fingerprint(),
            folder=str(encoder.folder),
        ),
        "tokenize": TokenizeParams(tokenizer=recipe.tokenize.tokenizer, params=recipe.tokenize.parameters),
        "collisions": CollisionParams(policy=recipe.collisions.policy),
        "sequences": SequencesParams(),
        "gates": GatesParams(max_collision_rate=recipe.gates.max_collision_rate),
    }


def _why(store: StageStore, stage: Stage, params: Any, planned: Mapping[str, PlannedStage]) -> str:
    """Say why a stage would run: a parent runs, or what differs from its newest output."""
    rerun = [name for name in stage.parents if planned[name].done is None]
    if rerun:
        return f"{', '.join(rerun)} will run"
    newest = store.newest(stage.name)
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
