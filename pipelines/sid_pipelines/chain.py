"""The chain, in order. A stage reads only what stands to its left."""

from sid_pipelines import (
    clean,
    collisions,
    embed,
    gates,
    ingest,
    sequences,
    split,
    text,
    tokenize,
)
from sid_pipelines.stage import Stage

CHAIN: tuple[Stage, ...] = (
    ingest.STAGE,
    clean.STAGE,
    split.STAGE,
    text.STAGE,
    sequences.STAGE,
    embed.STAGE,
    tokenize.STAGE,
    collisions.STAGE,
    gates.STAGE,
)
PUBLISH = "publish"  # the last step; its output is a release, not a stage folder
STEPS = (*(stage.name for stage in CHAIN), PUBLISH)
