"""What each stage depends on: its part of the recipe, and of what lies on disk beside it."""

from dataclasses import fields
from typing import Any

from sid_flows.dump import Dump
from sid_flows.embedding_sections import EmbedSection
from sid_flows.recipe import Recipe
from sid_flows.wiring import Step
from sid_pipelines.assign import AssignParams
from sid_pipelines.clean import CleanParams
from sid_pipelines.collisions import CollisionParams
from sid_pipelines.drift import Limits
from sid_pipelines.embed_collaborative import CollaborativeEmbedParams
from sid_pipelines.embed_image import ImageEmbedParams
from sid_pipelines.embed_text import TextEmbedParams
from sid_pipelines.encoders import text_encoder
from sid_pipelines.extend import ExtendParams
from sid_pipelines.fuse import FuseParams
from sid_pipelines.gates import GatesParams
from sid_pipelines.image_encoders import image_encoder
from sid_pipelines.images import image_folder_digest
from sid_pipelines.ingest import IngestParams
from sid_pipelines.pairs import PairsParams
from sid_pipelines.sequences import SequencesParams
from sid_pipelines.split import SplitParams
from sid_pipelines.text import TextParams
from sid_pipelines.tokenize import TokenizeParams
from sid_warehouse import files

LIMITS = tuple(one.name for one in fields(Limits))


def params_of(step: Step, recipe: Recipe, dump: Dump) -> Any:
    """Give a stage the part of the recipe, and of what lies on disk, that it depends on."""
    match step.stage.name:
        case "ingest":
            names = ("label", "role", "layout", "part", "member", "sha256")
            return IngestParams(
                kind=recipe.source.kind,
                options=recipe.source.parameters,
                encoding=recipe.source.encoding or "",
                truncated=recipe.source.truncated,
                empty=recipe.source.empty,
                files=tuple({name: entry[name] for name in names} for entry in dump.hashes),
                paths=tuple(str(file.path) for file in dump.files),
            )
        case "clean":
            return _cleaning(recipe)
        case "extend":
            return ExtendParams(
                protocol=recipe.split.protocol,
                params=recipe.split.made.params(),
                ties=recipe.split.ties,
                seed=recipe.split.seed,
                clean=_cleaning(recipe),
                dump=recipe.append.dump,
                rule=recipe.append.split,
                min_snapshot_overlap=recipe.append.min_snapshot_overlap,
            )
        case "split":
            return SplitParams(
                protocol=recipe.split.protocol,
                params=recipe.split.made.params(),
                ties=recipe.split.ties,
                seed=recipe.split.seed,
            )
        case "text":
            return _text(dump, **recipe.filling(step.embed))
        case "pairs":
            return PairsParams(**recipe.pairs.parameters)
        case "embed_text" | "embed_image" | "embed_collaborative":
            assert step.embed is not None
            return _embedding(step.embed, dump)
        case "fuse":
            assert recipe.fuse is not None
            return FuseParams(recipe.fuse.method, recipe.fuse.options, tuple(recipe.fused))
        case "tokenize":
            return TokenizeParams(
                tokenizer=recipe.tokenize.tokenizer,
                params=recipe.tokenize.parameters,
                fit_scope=recipe.tokenize.fit_scope,
                fit_items=recipe.tokenize.fit_items,
                soft=0 if _name_of(step) else recipe.tokenize.soft,
                temperature=0.0 if _name_of(step) else recipe.tokenize.soft_temperature,
            )
        case "collisions":
            return CollisionParams(recipe.collisions.policy, recipe.collisions.parameters, _name_of(step))
        case "pieces":
            assert recipe.pieces is not None
            return recipe.pieces.made
        case "users":
            assert recipe.users is not None
            name = recipe.users.vectors or recipe.tokenized
            of_behaviour = any(one.name == name and one.modality == "collaborative" for one in recipe.embed)
            return recipe.users.made("cf" if of_behaviour else "mean")
        case "assign":
            limits = Limits(**{name: getattr(recipe.append, name) for name in LIMITS})
            return AssignParams(
                policy=recipe.collisions.policy,
                params=recipe.collisions.parameters,
                drift=recipe.append.drift,
                limits=limits,
                name=_name_of(step),
            )
        case "sequences":
            return SequencesParams(
                expansion=recipe.split.expansion,
                window=recipe.split.window,
                sessions=recipe.split.made.sessions,
            )
        case "gates":
            return GatesParams(**recipe.gates.model_dump())
    raise AssertionError(f"stage {step.stage.name!r} has no parameters here")


def _name_of(step: Step) -> str:
    """Give the embedding that a step of several like it is for: `text` of `collisions text`."""
    return step.label.partition(" ")[2]


def _text(dump: Dump, template: str, clean_text: bool, enriched: str | None) -> TextParams:
    if enriched is None:
        return TextParams(template, clean_text)
    path = dump.enriched(enriched)
    return TextParams(template, clean_text, files.sha256_once(path), str(path))


def _cleaning(recipe: Recipe) -> CleanParams:
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


def _embedding(one: EmbedSection, dump: Dump) -> Any:
    common: dict[str, Any] = {
        "name": one.name,
        "model": one.model,
        "options": one.options,
        "missing": one.missing,
        "dtype": one.dtype,
    }
    match one.modality:
        case "text":
            text = text_encoder(one.model, one.options, dump.base)
            return TextEmbedParams(**common, weights=text.fingerprint(), folder=str(text.folder or ""))
        case "image":
            image = image_encoder(one.model, one.options, dump.base)
            roots = dump.image_roots(one.images)
            return ImageEmbedParams(
                **common,
                weights=image.fingerprint(),
                folder=str(image.folder or ""),
                images=image_folder_digest(roots, dump.cache),
                roots=tuple(str(root) for root in roots),
                map_from=one.map_from or "",
            )
        case "collaborative":
            return CollaborativeEmbedParams(**common, map_from=one.map_from or "")
