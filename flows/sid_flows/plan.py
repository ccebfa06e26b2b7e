"""The plan: the fingerprint of every stage, looked up before anything is started.

Keys are computed from the recipe and the hashes of the raw files and the encoder's weights, so what is
done and what would run is known without Prefect and without parsing any data.
"""

import glob
from collections.abc import Mapping, Sequence
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
from sid_pipelines.ingest import IngestParams, check_rejects
from sid_pipelines.publish import fingerprint
from sid_pipelines.sequences import SequencesParams
from sid_pipelines.sources import Candidate, RawFile, candidates
from sid_pipelines.split import SplitParams
from sid_pipelines.stage import Stage, keyed
from sid_pipelines.text import TextParams
from sid_pipelines.tokenize import TokenizeParams
from sid_schemas import RecipeError, SourceError
from sid_tokenizers import tokenizer_named
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

    @property
    def complete(self) -> bool:
        """Say whether all planned stages are done."""
        return all(planned.done for planned in self.stages)

    def check_needs(self) -> None:
        """Raise MissingExtraError now, not after hours, where a stage that would run lacks a package."""
        for planned in self.stages:
            if planned.done is None:
                planned.stage.check_needs()
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
    base = Path(recipe_path).absolute().parent
    raw = _raw_files(recipe, base)
    hashes = [_hashed(file) for file in raw]
    store = StageStore(warehouse, recipe.dataset)
    planned: dict[str, PlannedStage] = {}
    for stage in CHAIN:
        params = _params(stage.name, recipe, base, raw, hashes)
        parents = {name: planned[name].key for name in stage.parents}
        key = stage.key(params, parents)
        done = store.find(stage.name, key)
        why = "done" if done else _why(store, stage, params, planned)
        planned[stage.name] = PlannedStage(stage, params, key, parents, done, why)
        if stage.name == until:
            break
    mark = fingerprint({name: one.key for name, one in planned.items()})
    return Plan(
        recipe=recipe,
        warehouse=warehouse,
        store=store,
        stages=tuple(planned.values()),
        raw_files=hashes,
        fingerprint=mark,
        published=None if until else releases.find_fingerprint(warehouse, recipe.dataset, mark),
    )


def _hashed(file: RawFile) -> dict[str, Any]:
    try:
        size, sha256 = file.path.stat().st_size, files.sha256_once(file.path)
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read ({error.strerror}). Check [source] path") from error
    return {
        "label": file.label,
        "role": file.role,
        "layout": file.layout,
        "part": file.part,
        "member": file.member,
        "sha256": sha256,
        "bytes": size,
    }


def _raw_files(recipe: Recipe, base: Path) -> list[RawFile]:
    """Give the dump's files: those that `path` and `items` name, as far as the source knows them."""
    source, files = recipe.source.made, _named("path", recipe.source.path, base)
    items = _named("items", recipe.source.items, base) if recipe.source.items else []
    found = source.find([one for group in files for one in group], [one for group in items for one in group])
    known = {file.path for file in found}
    for group in (*files, *items):
        if len(group) == 1 and group[0].path not in known:
            expected = ", ".join(layout.called for layout in source.layouts)
            raise SourceError(
                f"{group[0].path}: is no file of a {source.kind} dump that is read here; expected {expected} "
                "(plain, .gz or in a .zip)"
            )
    labels = [file.label for file in found]
    for label in labels:
        if labels.count(label) > 1:
            raise SourceError(f"[source] path: two files are called {label!r}; rename a folder")
    return found


def _named(key: str, given: str | list[str], base: Path) -> list[list[Candidate]]:
    """Give the files behind each path or glob of a key, group by group."""
    groups = []
    for pattern in [given] if isinstance(given, str) else given:
        literal = base / Path(pattern).expanduser()
        matches = glob.glob(str(Path(pattern).expanduser()), root_dir=base)  # noqa: PTH207 (knows root_dir)
        paths = [literal] if literal.exists() else sorted(base / match for match in matches)
        if not paths:
            raise SourceError(
                f"[source] {key} = {pattern!r}: expected a file, or a folder with the dump, found none at "
                f"{literal}. Paths are relative to the recipe"
            )
        for path in paths:
            try:
                groups.append(candidates(path.resolve()))
            except OSError as error:
                raise SourceError(
                    f"{path}: cannot be read ({error.strerror}). Check [source] {key}"
                ) from error
    return groups


def _params(stage: str, recipe: Recipe, base: Path, raw: list[RawFile], hashes: list[dict[str, Any]]) -> Any:
    """Give a stage the part of the recipe that it depends on."""
    match stage:
        case "ingest":
            names = ("label", "role", "layout", "part", "member", "sha256")
            return IngestParams(
                kind=recipe.source.kind,
                options=recipe.source.parameters,
                encoding=recipe.source.encoding or "",
                truncated=recipe.source.truncated,
                files=tuple({name: entry[name] for name in names} for entry in hashes),
                paths=tuple(str(file.path) for file in raw),
            )
        case "clean":
            chosen = recipe.clean
            return CleanParams(
                exact_duplicates=chosen.exact_duplicates,
                dedupe=chosen.dedupe,
                events=tuple(chosen.events),
                min_value=chosen.min_value,
                max_value=chosen.max_value,
                since=chosen.since,
                until=chosen.until,
                max_events_per_user=chosen.max_events_per_user,
                without_metadata=chosen.without_metadata,
                require=tuple(chosen.require),
                k_core_user=chosen.k_core.user,
                k_core_item=chosen.k_core.item,
                k_core=chosen.k_core_method,
                ties=recipe.split.ties,
                universe=recipe.items.universe,
            )
        case "split":
            return SplitParams(
                protocol=recipe.split.protocol,
                params=recipe.split.made.params(),
                ties=recipe.split.ties,
                seed=recipe.split.seed,
            )
        case "text":
            return TextParams(template=recipe.template)
        case "embed":
            embed = recipe.embed[0]
            encoder = text_encoder(embed.model, base)
            return EmbedParams(
                modality=embed.modality,
                model=embed.model,
                weights=encoder.fingerprint(),
                folder=str(encoder.folder),
            )
        case "tokenize":
            return TokenizeParams(
                tokenizer=recipe.tokenize.tokenizer,
                params=recipe.tokenize.parameters,
                fit_scope=recipe.tokenize.fit_scope,
                fit_items=recipe.tokenize.fit_items,
            )
        case "collisions":
            return CollisionParams(policy=recipe.collisions.policy, params=recipe.collisions.parameters)
        case "sequences":
            return SequencesParams(
                expansion=recipe.split.expansion,
                window=recipe.split.window,
                sessions=recipe.split.made.sessions,
            )
        case "gates":
            return GatesParams(**recipe.gates.model_dump())
    raise AssertionError(f"stage {stage!r} has no parameters here")


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
