"""The recipe: one typed TOML file with every default; an unknown key is refused with the nearest known."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from sid_flows.embedding_sections import FUSED, EmbedSection, FuseSection, PairsSection
from sid_flows.export_section import ExportSection
from sid_flows.sections import Count, Moment, Rate, Section, listed, parameters
from sid_flows.tokenizing_sections import CollisionsSection, PiecesSection, TokenizeSection, UsersSection
from sid_pipelines.fusion import fusion_named
from sid_pipelines.protocols import PROTOCOLS, protocol_named
from sid_pipelines.sources import source_named
from sid_schemas import DataError, RecipeError
from sid_schemas.nearest import unknown
from sid_schemas.tables import EVENT_TYPES
from sid_tokenizers import TOKENIZERS, Tokenizer
from sid_tokenizers.collisions import misfit, policy_named
from sid_warehouse import origin
from sid_warehouse.names import check_dataset

if TYPE_CHECKING:
    # Prefect keeps what the flow's types name at exit; these would keep DuckDB, which prints pages then.
    from sid_pipelines.protocols import Protocol
    from sid_pipelines.sources import Source


class SourceSection(Section):
    """Where the raw dump is, and of what kind; a source's own options stand beside its kind.

    items: files or folders with the items' metadata, where `path` does not hold it. encoding: where
    the files are not in the encoding their format has. truncated: whether a gzip file that ends too
    early is an error, or its whole lines are kept. empty: whether a file without a byte is an error, or is
    taken as one without rows, as a dump has it that brings only items.

    kind: one of `sidmill sources`. path: a folder, file, .zip or glob, or a list of them, relative to the
    recipe.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    path: str | list[str]
    items: str | list[str] | None = None
    encoding: str | None = None
    truncated: Literal["error", "keep"] = "error"
    empty: Literal["error", "keep"] = "error"

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            "a".encode(value or "utf-8")  # refuses "hex" and its like too, which are no text encodings
        except (LookupError, UnicodeError):
            raise ValueError(f"no encoding is called {value!r}") from None
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> "SourceSection":
        try:
            self.made.layouts  # noqa: B018 (a table's layouts follow from its options)
        except DataError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """Give every option of the source; the defaults live only there."""
        return parameters("source", source_named(self.kind), self)

    @property
    def made(self) -> "Source":
        """Give the source with its options."""
        return source_named(self.kind)(**self.parameters)


class ItemsSection(Section):
    """Which items get an ID: those with interactions left after cleaning, or the whole catalogue.

    universe: "interactions" gives IDs to items with events left, "catalog" to every described item, cold
    ones too.
    """

    universe: Literal["interactions", "catalog"] = "interactions"


class KCore(Section):
    """Events that every user and every item must have; 0 or 1 is no filter.

    user: events of every user at least. item: events of every item at least.
    """

    user: Count = 5
    item: Count = 5


class CleanSection(Section):
    """What is kept of the raw rows, and what is left out.

    min_value: the least value that stays; an event without a value does not. max_value: the greatest that
    stays; an event without a value does not. since: the first moment that stays. until: the first moment
    that does not stay. max_events_per_user: users with more are taken for bots, and go with all events.
    k_core: events that every user and every item must have; 0 or 1 is no filter. k_core_method:
    "iterative" filters until nothing changes, "single-pass" filters each side once.

    `sid_pipelines.clean.CleanParams` says what the other keys do.
    """

    exact_duplicates: Literal["drop", "keep"] = "drop"
    dedupe: Literal["first", "last", "all"] = "first"
    events: list[str] = Field(default_factory=list)
    min_value: FiniteFloat | None = None
    max_value: FiniteFloat | None = None
    since: Moment = None
    until: Moment = None
    max_events_per_user: Annotated[int, Field(ge=1)] | None = None
    without_metadata: Literal["auto", "keep", "drop"] = "auto"
    require: list[Literal["title", "description", "brand", "price", "category_path", "image_ref"]] = Field(
        default_factory=list
    )
    k_core: KCore = Field(default_factory=KCore)
    k_core_method: Literal["iterative", "single-pass"] = "iterative"
    max_reject_rate: Rate = 0.01

    @field_validator("k_core", mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        return {"user": value, "item": value} if isinstance(value, int) else value

    @field_validator("events")
    @classmethod
    def _known_events(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in EVENT_TYPES:
                raise ValueError(f"no event type is called {name!r}; there are: {', '.join(EVENT_TYPES)}")
        return value


class SplitSection(Section):
    """How events are divided; a protocol's own parameters stand beside its name.

    ties: how equal times are ordered, by a seeded hash of content or as in the source. seed: of that
    hash and of draws. expansion: which train events are targets: all with a history ("prefix"), the same
    with at most `window` items of history ("window"), or each user's last ("last"). window: items of
    history that a sample may have, in every split; 0 for no bound.

    protocol: one of `sidmill protocols`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    protocol: str = "leave-one-out"
    ties: Literal["hash", "source"] = "hash"
    seed: Count = 0
    expansion: Literal["prefix", "window", "last"] = "prefix"
    window: Count = 0

    @field_validator("protocol")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PROTOCOLS:
            raise ValueError(f"there are: {', '.join(PROTOCOLS)}")
        return value

    @model_validator(mode="after")
    def _parameters_fit(self) -> "SplitSection":
        try:
            self.made.check_params()
        except DataError as error:
            raise ValueError(str(error)) from None
        if self.expansion == "window" and not self.window:
            raise ValueError("expansion = 'window' needs window, such as window = 10")
        return self

    @property
    def made(self) -> "Protocol":
        """Give the protocol with its parameters; the defaults live only there."""
        return protocol_named(self.protocol, parameters("split", PROTOCOLS[self.protocol], self))


class GatesSection(Section):
    """What a release must keep to be published, beyond its schemas."""

    max_collision_rate: Rate | None = None  # what the policy promises: 0, or for `capacity` its group size
    leakage: Literal["fail", "warn"] = "fail"  # where the audit finds what the split protocol forbids
    max_zero_vectors: Rate = 0.0  # share of items that have a modality and yet a zero vector
    max_duplicate_vectors: Rate | None = None  # share whose vector is another's: no quantizer separates them
    min_coverage: Rate | None = None  # share of items that must have each modality
    max_tie_rate: Rate | None = None  # share of test events at the same time as the event before them


class AppendSection(Section):
    """How `sidmill append` takes a dump, and when it calls for retraining; see docs/append.md.

    dump: "delta", only new rows, or "snapshot", everything again under the same ids, of which at least
    min_snapshot_overlap of the published events must be there. split: "frozen" keeps every published label,
    and new events train where the split protocol forbids nothing; "train" lets all of them train, whatever
    leaks; "protocol" labels all events anew. drift: whether new items that the codebooks do not fit only
    call for retraining, or are refused. The limits are those of `sid_pipelines.drift.Limits`; 0 for none.

    min_snapshot_overlap: share of the published events that a snapshot must have, else its ids are not
    stable. max_psi: of a level's codes. max_error_ratio: reconstruction error of new items over that of
    fitted ones. max_pressure: share of new items whose codes another item has. max_cold_users: share of
    users without a history.
    """

    dump: Literal["delta", "snapshot"] = "delta"
    min_snapshot_overlap: Rate = 0.9
    split: Literal["frozen", "train", "protocol"] = "frozen"
    drift: Literal["warn", "fail"] = "warn"
    max_psi: Annotated[float, Field(ge=0)] | None = 0.25
    max_error_ratio: Annotated[float, Field(ge=0)] | None = 1.5
    max_pressure: Rate | None = 0.5
    max_cold_users: Rate | None = None

    @field_validator("max_psi", "max_error_ratio", "max_pressure", "max_cold_users")
    @classmethod
    def _none_for_zero(cls, value: float | None) -> float | None:
        return value or None  # TOML has no null


class PublishSection(Section):
    """What becomes of a release. It shapes none.

    catalog: whether catalog.duckdb has copies of the latest and the tagged releases, so that it answers after
    a move, or only views on their files; left as it is where neither is said.
    """

    catalog: Literal["copies", "views"] | None = None


class EngineSection(Section):
    """What runs the stages. It shapes no output, only where its Parquet files begin and end.

    kind: "local", all cores of this machine; "beam", by shards on what Apache Beam's options name. memory:
    of this process, or of each worker. options: Beam's own, as on its command line, such as
    "--runner=FlinkRunner --flink_master=..."; without a runner, processes of this machine. shards: to make of
    every table, 0 for one per million events but 256 at most. attempts: how often in a row the cluster may
    fail without that a task was done; what is done is kept.
    """

    kind: Literal["local", "beam"] = "local"
    memory: Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]+)?\s?([KMGT]i?B)$")] = "8GiB"
    options: str = ""
    shards: Annotated[int, Field(ge=0, le=99_999)] = 0
    attempts: Annotated[int, Field(ge=1)] = 3


class Recipe(Section):
    """A whole recipe.

    dataset: name of the data set, in the warehouse and in the catalog: small letters, digits, `-` and
    `_`.
    """

    dataset: str
    source: SourceSection
    items: ItemsSection = Field(default_factory=ItemsSection)
    clean: CleanSection = Field(default_factory=CleanSection)
    split: SplitSection = Field(default_factory=SplitSection)
    pairs: PairsSection = Field(default_factory=PairsSection)
    embed: list[EmbedSection] = Field(default_factory=lambda: [EmbedSection()], min_length=1)
    fuse: FuseSection | None = None
    tokenize: TokenizeSection = Field(default_factory=TokenizeSection)
    collisions: CollisionsSection = Field(default_factory=CollisionsSection)
    pieces: PiecesSection | None = None
    users: UsersSection | None = None
    gates: GatesSection = Field(default_factory=GatesSection)
    append: AppendSection = Field(default_factory=AppendSection)
    publish: PublishSection = Field(default_factory=PublishSection)
    export: ExportSection = Field(default_factory=ExportSection)
    engine: EngineSection = Field(default_factory=EngineSection)

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_resolve(cls, values: Any) -> Any:
        """Leave IDs that are unique already as they are, unless a policy is named."""
        if not isinstance(values, dict) or values.get("collisions"):
            return values
        section = values.get("tokenize", {})
        scheme = TOKENIZERS.get(section.get("tokenizer", "")) if isinstance(section, dict) else None
        resolved = scheme is not None and (scheme.traits.unique or not issubclass(scheme, Tokenizer))
        return {**values, "collisions": {"policy": "none"}} if resolved else values

    @field_validator("dataset")
    @classmethod
    def _dataset_name(cls, value: str) -> str:
        return check_dataset(value)

    @model_validator(mode="after")
    def _policy_fits_tokenizer(self) -> "Recipe":
        tokenizer = self.tokenize.made
        policy = policy_named(self.collisions.policy, self.collisions.parameters)
        problem = misfit(policy, tokenizer)
        if problem:
            raise ValueError(f"collisions.policy = {policy.name!r} with {tokenizer.name!r}: {problem}")
        return self

    @model_validator(mode="after")
    def _formats_fit(self) -> "Recipe":
        problem = self.export.unfit(self.split.protocol)
        if problem:
            raise ValueError(f"export.formats with split.protocol = {self.split.protocol!r}: {problem}")
        return self

    @model_validator(mode="after")
    def _embeddings_fit(self) -> "Recipe":
        modalities = {one.name: one.modality for one in self.embed}
        if len(modalities) < len(self.embed) or any(name.startswith(FUSED) for name in modalities):
            raise ValueError(f"embed: every [[embed]] needs a name of its own, and {FUSED!r} is taken")
        for one in self.embed:
            clash = [f"{one.name}_{suffix}" for suffix in one.further if f"{one.name}_{suffix}" in modalities]
            if clash:
                raise ValueError(f"embed: {one.model} writes a table {clash[0]!r} too; rename that [[embed]]")
        sources = {one.name for one in self.embed if one.missing != "map"}
        for one in self.embed:
            if one.missing == "map" and one.map_from not in sources - {one.name}:
                raise ValueError(
                    f"embed.map_from = {one.map_from!r}: expected another [[embed]], itself not mapped; "
                    f"there are: {', '.join(sorted(sources - {one.name})) or 'none'}"
                )
        if self.fuse:
            if len(set(self.fuse.inputs)) < len(self.fuse.inputs):
                raise ValueError(f"fuse.inputs = {self.fuse.inputs}: expected each name once")
            for name in self.fuse.inputs:
                if name not in modalities:
                    raise ValueError(f"fuse.inputs: no [[embed]] is called {name!r}; {listed(modalities)}")
            try:
                method = fusion_named(self.fuse.method)(**self.fuse.options)
                method.check_params({name: modalities[name] for name in self.fused})
            except DataError as error:
                raise ValueError(f"fuse: {error}") from None
            if (
                method.needs_pairs
                and not self.pairs.parameters["kinds"]
                and "item_pairs" not in self.source.made.yields
            ):
                raise ValueError(
                    f"fuse.method = {self.fuse.method!r} needs item pairs; set [pairs] kinds = ['swing']"
                )
        return self

    @model_validator(mode="after")
    def _tokenizer_is_fed(self) -> "Recipe":
        """Refuse a scheme that lacks an embedding, saying what to add."""
        chosen, there = self.tokenize, self.vectors_there
        if chosen.vectors and chosen.vectors not in there:
            raise ValueError(f"tokenize.vectors = {chosen.vectors!r}: {listed(there)}")
        for name in chosen.each:
            if name not in there:
                raise ValueError(f"tokenize.each: no [[embed]] is called {name!r}; {listed(there)}")
        if self.users and self.users.vectors and self.users.vectors not in there:
            raise ValueError(f"users.vectors = {self.users.vectors!r}: {listed(there)}")
        if "cf" in chosen.scheme.traits.inputs:
            behaviour = [one.name for one in self.embed if one.modality == "collaborative"]
            if not behaviour:
                raise ValueError(
                    f"tokenize.tokenizer = {chosen.tokenizer!r} needs vectors of behaviour; add [[embed]] "
                    "with modality = 'collaborative'"
                )
            if (chosen.cf and chosen.cf not in behaviour) or (not chosen.cf and len(behaviour) > 1):
                raise ValueError(
                    f"tokenize.cf = {chosen.cf!r}: expected an embedding of behaviour; {listed(behaviour)}"
                )
        elif chosen.cf:
            raise ValueError(f"tokenize.cf = {chosen.cf!r}: {chosen.tokenizer} reads no vectors of behaviour")
        if chosen.scheme.traits.stacked and self.tokenized == self.behaviour:
            raise ValueError(
                f"tokenize.vectors = {self.tokenized!r}: {chosen.tokenizer} reads behaviour already; "
                "expected an embedding of content"
            )
        if self.users and self.users.mixtures and not issubclass(chosen.scheme, Tokenizer):
            raise ValueError(
                f"users.mixtures: IDs of {chosen.tokenizer} have no clusters; expected a tokenizer of codes"
            )
        varying = not issubclass(chosen.scheme, Tokenizer) or self.collisions.policy == "suffix-on-collision"
        if chosen.parameters.get("vocab_size") and varying:
            raise ValueError(
                "tokenize.vocab_size: docids have one length; expected a policy that gives every SID as many "
                "codes, not suffix-on-collision"
            )
        if self.pieces and varying:
            raise ValueError(
                "pieces: they are cut from SIDs of one length, and these vary; choose a tokenizer of codes "
                "and [collisions] policy = 'next-nearest' or 'suffix'"
            )
        if not chosen.vectors and not self.fuse and len(self._candidates) > 1:
            raise ValueError(
                "tokenize.vectors: with several [[embed]] and no [fuse], say which to tokenize; "
                f"{listed(there)}. Or add [fuse]"
            )
        return self

    @property
    def fused(self) -> list[str]:
        """Give the names of the embeddings that are fused, in order."""
        return (self.fuse.inputs or [one.name for one in self.embed]) if self.fuse else []

    @property
    def vectors_there(self) -> list[str]:
        """Give the names of all embeddings that may be tokenized."""
        return [*(one.name for one in self.embed), *([FUSED] if self.fuse else [])]

    @property
    def _candidates(self) -> list[str]:
        """Give the embeddings that may be meant where none is named: beside one of behaviour the others."""
        names = [one.name for one in self.embed]
        return [name for name in names if name != self.behaviour] or names

    @property
    def tokenized(self) -> str:
        """Give the name of the embedding that is tokenized."""
        return self.tokenize.vectors or (FUSED if self.fuse else self._candidates[-1])

    @property
    def behaviour(self) -> str:
        """Give the embedding of behaviour that the scheme reads beside, "" where it reads none."""
        if "cf" not in self.tokenize.scheme.traits.inputs:
            return ""
        return self.tokenize.cf or next(one.name for one in self.embed if one.modality == "collaborative")

    @property
    def text(self) -> EmbedSection | None:
        """Give the text embedding whose template fills the column `text` of items: the first."""
        return next((one for one in self.embed if one.modality == "text"), None)

    def filling(self, of: EmbedSection | None) -> dict[str, Any]:
        """Give how the texts of an embedding are made, by the source's own template where it names none."""
        of = of or EmbedSection()
        return {
            "template": of.template or self.source.made.template,
            "clean_text": of.clean_text is not False,
            "enriched": of.enriched,
        }

    def as_written(self) -> dict[str, Any]:
        """Give the recipe with every default spelled out, as lineage keeps it."""
        written = self.model_dump(mode="json")
        written["source"] |= self.source.parameters
        written["split"] |= self.split.made.params()
        written["tokenize"] |= self.tokenize.parameters
        written["collisions"] |= self.collisions.parameters
        written["pairs"] |= self.pairs.parameters
        if self.pieces:
            written["pieces"] |= self.pieces.parameters
        if self.users:
            written["users"] |= self.users.parameters
        for section, entry in zip(written["embed"], self.embed, strict=True):
            section |= entry.options
            if entry.modality == "text":
                section |= self.filling(entry)
        if self.fuse:
            written["fuse"] |= {"inputs": self.fused, **self.fuse.options}
        return written


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and lay `key=value` overrides over it; raises RecipeError in one line."""
    return validated(path, recipe_values(path, overrides))


def recipe_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read what a recipe and its overrides say, and no more; raises RecipeError in one line."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); expected a TOML recipe") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not TOML: {error}") from error
    for override in overrides:
        _override(values, override)
    return values


def validated(path: str | Path, values: Mapping[str, Any]) -> Recipe:
    """Give a recipe with every default; raises RecipeError in one line, naming the file."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first_problem(error)}") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def _override(values: dict[str, Any], override: str) -> None:
    """Lay one `tokenize.seed=2` over the recipe; the value is TOML, or else taken as a string."""
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if names[0] == "embed" and "embed" not in values:
        values["embed"] = [{}]  # the one that a recipe without any has
    if not equals or not all(names):
        raise RecipeError(f"--set {override!r}: expected key=value, such as tokenize.seed=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    target: Any = values
    inner = names[:-1]
    while inner:
        name = inner.pop(0)
        target = target.setdefault(name, {})
        if isinstance(target, list):
            target = _entry(target, inner, override)
        if not isinstance(target, dict):
            raise RecipeError(f"--set {override!r}: {name!r} is not a section of the recipe")
    if names == ["clean", "k_core"] or not isinstance(target.get(names[-1]), dict):
        target[names[-1]] = value
    else:
        raise RecipeError(f"--set {override!r}: {key.strip()!r} is a section; set a key inside it")


def _entry(entries: list[Any], inner: list[str], override: str) -> Any:
    """Give the [[embed]] that `embed.NAME.key` names, or the only one for `embed.key`; takes the name off."""
    names = [str(one.get("name", one.get("modality", "text"))) for one in entries if isinstance(one, dict)]
    if inner and inner[0] in names:
        return entries[names.index(inner.pop(0))]
    if len(entries) == 1 and not inner:
        return entries[0]
    raise RecipeError(f"--set {override!r}: which [[embed]]? Write embed.NAME.key; {listed(names)}")


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
    if problem["type"] == "extra_forbidden":
        return unknown(where, list(_keys(Recipe)))
    if problem["type"] == "missing":
        return f"{where}: is missing; expected a value"
    got = "" if isinstance(problem["input"], Mapping) else f", got {problem['input']!r}"
    said = f"{problem['msg'].removeprefix('Value error, ')}{got}"
    return f"{where}: {said}" if where else said


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Give every key of the recipe with its section, dotted."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        annotation = field.annotation
        inner = getattr(annotation, "__args__", [annotation])[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _keys(inner, f"{prefix}{name}.")
    return keys


def dataset_of(path: str | Path, overrides: Sequence[str] = ()) -> str:
    """Give the data set that a recipe is about, nothing else of it looked at."""
    return check_dataset(str(recipe_values(path, overrides).get("dataset", "")))


def warehouse_path(given: str | Path | None) -> Path:
    """Give the warehouse: the one named, or $SIDMILL_WAREHOUSE, or ./warehouse/data.

    For s3://BUCKET/PREFIX that is the local folder which stands for it, see `sid_warehouse.origin`.
    """
    named = str(given or os.environ.get("SIDMILL_WAREHOUSE") or "warehouse/data")
    try:
        path = origin.work_folder(named) if origin.is_url(named) else Path(named).expanduser().absolute()
    except RuntimeError as error:  # ~somebody who has no home here
        raise RecipeError(f"--warehouse {named}: {error} Name the folder by its whole path") from error
    if "?" in str(path):
        raise RecipeError(f"{path}: DuckDB opens no file below a folder with '?' in its name; choose another")
    return path
