"""Stages by shards, for an engine of many workers: the same kernels as the local stages, the same tables.

    job -> committed -> inline | sid_pipelines.beam -> shards -> stages/

A stage here cuts what it reads into tasks, runs the local stage's own functions on each, and puts tables
together from the parts. It gives the rows, in the order, that the local stage gives; only where Parquet files
begin and end depends on the shards. Stages that are not listed run where the flow runs.
"""

from collections.abc import Callable

from sid_pipelines.sharded.shards import Shards
from sid_pipelines.sharded.stages import (
    clean,
    collisions,
    embed,
    embed_image,
    ingest,
    sequences,
    split,
    text,
    tokenize,
)
from sid_pipelines.stage import Outcome, Work

SHARDED: dict[str, Callable[[Work, Shards], Outcome]] = {  # by the stage's name
    "ingest": ingest.run,
    "clean": clean.run,
    "split": split.run,
    "text": text.run,
    "sequences": sequences.run,
    "embed_text": embed.run,
    "embed_image": embed_image.run,
    "tokenize": tokenize.run,
    "collisions": collisions.run,
}
