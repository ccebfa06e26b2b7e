"""Embed images by shards of files, as embed.py does texts: tasks fill the cache, the local stage reads it.

    look (one task) -> embed (a task for some images that the cache lacks) -> the local stage

An image that cannot be decoded is never in the cache: the local stage tries it again, and notes the reason.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sid_pipelines import embed_image
from sid_pipelines.embedded import nothing_new
from sid_pipelines.image_encoders import ImageEncoder, encoder_at
from sid_pipelines.images import Found, find
from sid_pipelines.sharded.job import Task
from sid_pipelines.sharded.shards import Shards
from sid_pipelines.sharded.stages.embed import alone, fill, held, share_out
from sid_pipelines.stage import Outcome, Work
from sid_pipelines.vector_cache import VectorCache, as_keys, lacking

IMAGES = 2048  # of a task: some minutes of a vision transformer on one core
LEAST = 256  # of a task, however many are asked for


def run(work: Work, shards: Shards) -> Outcome:
    """Write what the local stage writes."""
    if nothing_new(work, work.inputs["clean"].manifest["rows"]["items_clean"]):
        return embed_image.run(work)
    folder = work.resources.cache / embed_image.CACHE
    return embed_image.write(work, fill(work, shards, folder, _encoder(work), look, embed))


def look(task: Task) -> Mapping[str, Any]:
    """Share out the images that the cache lacks, by the first item of each."""
    work = task.params.given.work(task)
    encoder = _encoder(work)
    found = _find(work, encoder, _references(work))
    cache = VectorCache(work.resources.cache / embed_image.CACHE, task.params.identity)
    there = np.array([item for item, key in enumerate(found.keys) if key is not None], dtype=np.int64)
    distinct, missing = lacking(cache, as_keys(key for key in found.keys if key is not None))
    share_out(task, there[missing], IMAGES, LEAST)
    return {"distinct": distinct, "found": distinct - len(missing)}


def embed(task: Task) -> Mapping[str, Any]:
    """Bring the vectors of some items' images into the cache."""
    work, [path] = task.params.given.work(task), task.paths
    references = _references(work)
    with alone:
        encoder = held(_encoder(work), task.params.identity)
        found = _find(work, encoder, [references[item] for item in np.load(path).tolist()])
        cache = VectorCache(work.resources.cache / embed_image.CACHE, encoder.identity())
        filled = embed_image.embed(found, encoder, cache, work.progress)
    return {"embedded": filled.distinct - filled.skipped}  # with what an attempt before this one added


def _encoder(work: Work) -> ImageEncoder:
    return encoder_at(work.params.model, work.params.options, Path(work.params.folder))


def _references(work: Work) -> list[str | None]:
    references: list[str | None] = (
        work.inputs["clean"].read("items_clean", ["image_ref"])["image_ref"].to_pylist()
    )
    return references


def _find(work: Work, encoder: ImageEncoder, references: list[str | None]) -> Found:
    return find(references, [Path(root) for root in work.params.roots], encoder.limits)
