"""Which stages a recipe needs, in order, and from which others each reads.

Most stages stand once, under their own name. Each [[embed]] is a stage `embed NAME`, a text embedding with a
template of its own has a stage `text NAME` before it, and `fuse` is there where the recipe asks for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sid_flows.embedding_sections import FUSED, EmbedSection
from sid_flows.recipe import Recipe
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
    sequences,
    split,
    text,
    tokenize,
)
from sid_pipelines.stage import Stage


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
    vectors = {"vectors": "fuse" if recipe.tokenized == FUSED else f"embed {recipe.tokenized}"}
    yield Step("tokenize", tokenize.STAGE, _own(tokenize.STAGE) | vectors)
    yield Step("collisions", collisions.STAGE, _own(collisions.STAGE) | vectors)
    made = [f"embed {one.name}" for one in recipe.embed] + (["fuse"] if recipe.fuse else [])
    yield Step("gates", gates.STAGE, _own(gates.STAGE) | {label: label for label in made})


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
    vectors = {"vectors": "fuse" if recipe.tokenized == FUSED else f"embed {recipe.tokenized}"}
    assigned = {"tokenize": "assign", "collisions": "assign"}
    yield Step(
        "assign", assign.STAGE, _own(assign.STAGE) | extended | vectors, fills=("tokenize", "collisions")
    )
    yield Step("gates", gates.STAGE, _own(gates.STAGE) | extended | assigned | {m: m for m in made} | base)


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
