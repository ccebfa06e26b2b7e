"""Which stages a recipe needs, in order, and from which others each reads.

Most stages stand once, under their own name. Each [[embed]] is a stage `embed NAME`, a text embedding with a
template of its own has a stage `text NAME` before it, and `fuse` is there where the recipe asks for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sid_flows.embedding_sections import FUSED, EmbedSection
from sid_flows.recipe import Recipe
from sid_flows.tokenizing_sections import UsersSection
from sid_pipelines import (
    assign,
    clean,
    collisions,
    embed_collaborative,
    embed_image,
    embed_text,
    extend,
    fuse,
    gates,
    ingest,
    pairs,
    pieces,
    sequences,
    split,
    text,
    tokenize,
    users,
)
from sid_pipelines.stage import Stage
from sid_tokenizers import Tokenizer


@dataclass(frozen=True)
class Step:
    """One stage of a recipe's chain.

    label: its name in plans and logs. inputs: for each role that the stage reads, the label of the stage
    that fills it. embed: the [[embed]] it belongs to, where it does. fills: the parts that it plays in a
    release, where they are not called as it is.
    """

    label: str
    stage: Stage
    inputs: Mapping[str, str]
    embed: EmbedSection | None = None
    fills: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """Give the parts that its output plays in a release."""
        return self.fills or (self.label,)


def steps(recipe: Recipe) -> Iterator[Step]:
    """Give the steps of a recipe up to the gates, each after those it reads from."""
    for stage in (ingest.STAGE, clean.STAGE, split.STAGE):
        yield _plain(stage)
    yield Step("text", text.STAGE, {"clean": "clean"}, recipe.text)
    yield _plain(sequences.STAGE)
    yield _plain(pairs.STAGE)
    # One that is mapped reads from another, so those come last.
    for one in sorted(recipe.embed, key=lambda one: one.missing == "map"):
        yield from _embedding(recipe, one)
    if recipe.fuse:
        inputs = {f"embed:{name}": f"embed {name}" for name in recipe.fused}
        yield Step("fuse", fuse.STAGE, {"split": "split", "pairs": "pairs", **inputs})
    yield Step("tokenize", tokenize.STAGE, _own(tokenize.STAGE) | coded(recipe))
    yield from identified_steps(recipe)
    made = [f"embed {one.name}" for one in recipe.embed] + (["fuse"] if recipe.fuse else [])
    yield Step("gates", gates.STAGE, _own(gates.STAGE) | judged(recipe) | {label: label for label in made})


def coded(recipe: Recipe) -> dict[str, str]:
    """Give what the recipe's scheme reads beside the splits, by role."""
    inputs = recipe.tokenize.made.needs
    found = {"vectors": label_of(recipe.tokenized)}
    if not issubclass(recipe.tokenize.scheme, Tokenizer) or set(inputs) - {"vectors"}:
        found["clean"] = "clean"  # ids at least
    if "texts" in inputs:
        found["text"] = "text"
    if recipe.behaviour:
        found["cf"] = f"embed {recipe.behaviour}"
    return found


def label_of(embedding: str) -> str:
    """Give the label of the stage that makes an embedding."""
    return "fuse" if embedding == FUSED else f"embed {embedding}"


def identified_steps(recipe: Recipe) -> Iterator[Step]:
    """Give the steps that make IDs of what `tokenize` made, and what is made of IDs."""
    vectors = {role: label for role, label in coded(recipe).items() if role in ("vectors", "cf")}
    yield Step("collisions", collisions.STAGE, _own(collisions.STAGE) | vectors)
    for name in recipe.tokenize.each:
        vectors = {"vectors": label_of(name)}
        own = {"tokenize": f"tokenize {name}"}
        yield Step(own["tokenize"], tokenize.STAGE, _own(tokenize.STAGE) | vectors)
        yield Step(f"collisions {name}", collisions.STAGE, _own(collisions.STAGE) | own | vectors)
    if recipe.pieces:
        yield _plain(pieces.STAGE)
    if recipe.users:
        yield _users(recipe.users, recipe)


def _users(section: UsersSection, recipe: Recipe) -> Step:
    vectors = {"vectors": label_of(section.vectors or recipe.tokenized)}
    return Step("users", users.STAGE, _own(users.STAGE) | vectors)


def judged(recipe: Recipe) -> dict[str, str]:
    """Give what only some releases have and gates look at, by role."""
    named = [f"{role} {name}" for name in recipe.tokenize.each for role in ("tokenize", "collisions")]
    further = [role for role in ("pieces", "users") if getattr(recipe, role)]
    return {role: role for role in (*named, *further)}


def append_steps(recipe: Recipe, *, with_earlier: bool) -> Iterator[Step]:
    """Give the steps that append a dump to a release, whose label is `base`.

    Stages that read it make only what is new. with_earlier: whether what earlier dumps left waiting is at
    hand, under the label `earlier`.
    """
    base = {"base": "base"}
    extended = {"clean": "extend", "split": "extend"}
    yield _plain(ingest.STAGE)
    earlier = {"earlier": "earlier"} if with_earlier else {}
    yield Step("extend", extend.STAGE, _own(extend.STAGE) | earlier, fills=("clean", "split"))
    yield Step("text", text.STAGE, {"clean": "extend"}, recipe.text)
    yield Step(sequences.STAGE.name, sequences.STAGE, _own(sequences.STAGE) | extended | base)
    yield Step(pairs.STAGE.name, pairs.STAGE, _own(pairs.STAGE) | extended | base)
    made = []
    for one in sorted(recipe.embed, key=lambda one: one.missing == "map"):
        for step in _embedding(recipe, one):
            of_events = {role: label for role, label in extended.items() if role in step.inputs}
            on_base = base if step.stage is not text.STAGE else {}
            yield replace(step, inputs={**step.inputs, **of_events, **on_base})
        made.append(f"embed {one.name}")
    if recipe.fuse:
        inputs = {f"embed:{name}": f"embed {name}" for name in recipe.fused}
        yield Step("fuse", fuse.STAGE, {"split": "extend", "pairs": "pairs", **inputs, **base})
        made.append("fuse")
    yield from _assigning(recipe, extended)
    # What `tokenize` and `collisions` filled, `assign` fills now.
    assigned = {f"{role}{of}": f"assign{of}" for of in _each(recipe) for role in ("tokenize", "collisions")}
    now = {**extended, **assigned}
    if recipe.pieces:
        yield _going_on(_plain(pieces.STAGE), now)
    if recipe.users:
        yield _going_on(_users(recipe.users, recipe), now)
    roles = _own(gates.STAGE) | judged(recipe) | now | {label: label for label in made}
    yield Step("gates", gates.STAGE, roles | base)


def _assigning(recipe: Recipe, extended: dict[str, str]) -> Iterator[Step]:
    """Give the steps that make IDs of new items: of the release's scheme, and of each embedding apart."""
    for of in _each(recipe):
        inputs = coded(recipe) if not of else {"vectors": label_of(of.strip())}
        fills = (f"tokenize{of}", f"collisions{of}")
        yield Step(f"assign{of}", assign.STAGE, _own(assign.STAGE) | inputs | extended, fills=fills)


def _each(recipe: Recipe) -> list[str]:
    """Give what labels of steps that make IDs end with: nothing, and a blank and a name for each further."""
    return ["", *(f" {name}" for name in recipe.tokenize.each)]


def _going_on(step: Step, filled: Mapping[str, str]) -> Step:
    """Give a step that goes on from the base, its roles filled as an append does."""
    now = {role: filled.get(role, label) for role, label in step.inputs.items()}
    return replace(step, inputs={**now, "base": "base"})


def _embedding(recipe: Recipe, one: EmbedSection) -> Iterator[Step]:
    label = f"embed {one.name}"
    content = {"content": f"embed {one.map_from}"} if one.map_from else {}
    match one.modality:
        case "text":
            filled = "text"
            if recipe.filling(one) != recipe.filling(recipe.text):
                filled = f"text {one.name}"
                yield Step(filled, text.STAGE, {"clean": "clean"}, one)
            fitted = {"split": "split"} if embed_text.is_fitted(one.model) else {}
            yield Step(label, embed_text.STAGE, {"text": filled} | fitted, one)
        case "image":
            yield Step(label, embed_image.STAGE, _own(embed_image.STAGE) | content, one)
        case "collaborative":
            yield Step(label, embed_collaborative.STAGE, _own(embed_collaborative.STAGE) | content, one)


def _plain(stage: Stage) -> Step:
    return Step(stage.name, stage, _own(stage))


def _own(stage: Stage) -> dict[str, str]:
    return {name: name for name in stage.parents}
