"""The chain, in order. A stage reads only what stands to its left.

`embed` is a step of several kinds of stages, one run for each [[embed]] of a recipe; which stages a
recipe needs, and from which others each reads, is `sid_flows.wiring`.
"""

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

CHAIN: tuple[Stage, ...] = (
    ingest.STAGE,
    clean.STAGE,
    split.STAGE,
    text.STAGE,
    sequences.STAGE,
    pairs.STAGE,
    embed_text.STAGE,
    embed_image.STAGE,
    embed_collaborative.STAGE,
    fuse.STAGE,
    tokenize.STAGE,
    collisions.STAGE,
    pieces.STAGE,
    users.STAGE,
    gates.STAGE,
)
PUBLISH = "publish"  # the last step; its output is a release, not a stage folder


# What an append runs in the place of clean and split, and of tokenize and collisions.
APPENDING: tuple[Stage, ...] = (extend.STAGE, assign.STAGE)


def step_of(stage: Stage) -> str:
    """Give the step of the chain that a stage belongs to: `embed` for every kind of embedding.

    >>> step_of(embed_image.STAGE), step_of(split.STAGE), step_of(assign.STAGE)
    ('embed', 'split', 'collisions')
    """
    return {"extend": "split", "assign": "collisions"}.get(stage.name, stage.name.partition("_")[0])


STEPS = (*dict.fromkeys(step_of(stage) for stage in CHAIN), PUBLISH)
