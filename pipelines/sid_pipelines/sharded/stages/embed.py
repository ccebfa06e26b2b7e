"""Embed text by shards of texts: tasks bring the vectors into the cache, the local stage then finds them all.

    look (one task) -> embed (a task for some texts that the cache lacks) -> the local stage

What a task gives is in the vector cache, which workers share and to which many may add at once: a vector does
not depend on its company, so a task that runs twice adds the same again. Only what `look` found is counted,
so that facts are those of one process that began with the same cache. Encoders that are faster than a cache,
or fitted on the texts, run where the flow runs.
"""

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sid_pipelines import embed_text
from sid_pipelines.embedded import nothing_new
from sid_pipelines.encoders import Encoder
from sid_pipelines.image_encoders import ImageEncoder
from sid_pipelines.sharded.given import Given
from sid_pipelines.sharded.job import ALL, Kernel, Ref, Step, Task
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.stage import Outcome, Work
from sid_pipelines.vector_cache import Filled, VectorCache, as_keys, content_key, lacking
from sid_schemas import WarehouseError
from sid_warehouse import files

E = TypeVar("E", Encoder, ImageEncoder)
TEXTS = 16_384  # of a task: a minute of MiniLM on one core
LEAST = 1024  # of a task, however many are asked for: loading a model takes as long as some thousand texts


@dataclass(frozen=True)
class Asked:
    """What the tasks know. identity: of the encoder that the driver has. count: tasks to make, 0 by TEXTS."""

    given: Given
    identity: Mapping[str, Any]
    count: int


def run(work: Work, shards: Shards) -> Outcome:
    """Write what the local stage writes."""
    found = work.params.found
    if embed_text.is_fitted(found.name) or nothing_new(work, work.inputs["text"].manifest["rows"]["texts"]):
        return embed_text.run(work)
    encoder = found.encoder()
    if not encoder.cached:
        return embed_text.run(work)
    folder = work.resources.cache / embed_text.CACHE
    return embed_text.write(work, fill(work, shards, folder, encoder, look, embed))


def fill(
    work: Work, shards: Shards, folder: Path, encoder: Encoder | ImageEncoder, look: Kernel, embed: Kernel
) -> Filled:
    """Bring what the cache lacks into it, and give what was found there before and what was embedded.

    folder: of caches. Where its own is removed meanwhile (`sidmill gc --cache`), all is done once more.
    """
    identity = files.as_json(encoder.identity())
    asked = Asked(Given.of(work), identity, shards.count)
    steps, name = (Step("look", look, asked), Step("embed", embed, asked)), _job(folder, identity)
    made = shards.run(name, [Ref(ALL, ALL)], *steps)
    if (again := _job(folder, identity)) != name:
        made = shards.run(again, [Ref(ALL, ALL)], *steps)
    [looked] = made.of("look")
    return Filled(**looked, embedded=sum(told["embedded"] for told in made.of("embed")))


def _job(folder: Path, identity: Mapping[str, Any]) -> str:
    """Name a job by the encoder, and by when its cache began: what was done for others is not done for it."""
    cache = VectorCache(folder, identity)
    began = (cache.folder / "identity.json").stat().st_mtime_ns
    return f"embed-{files.digest({'cache': cache.folder.name, 'began': began})[:8]}"


def look(task: Task) -> Mapping[str, Any]:
    """Share out the texts that the cache lacks, by the first item of each."""
    work = task.params.given.work(task)
    texts = embed_text.Texts.of(work.inputs["text"].parts("texts"))
    embed_text.check_there(work, texts.there)
    cache = VectorCache(work.resources.cache / embed_text.CACHE, task.params.identity)
    there = np.flatnonzero(texts.there)
    distinct, missing = lacking(cache, texts.keys.take(there))
    share_out(task, there[missing], TEXTS, LEAST)
    return {"distinct": distinct, "found": distinct - len(missing)}


def share_out(task: Task, items: npt.NDArray[np.int64], usual: int, least: int) -> None:
    """Send items to tasks, in ranges: `usual` of each, or as many as were asked for with `least` in each."""
    number = min(task.params.count or -(-len(items) // usual), -(-len(items) // least))
    for shard, own in enumerate(np.array_split(items, number) if number else ()):
        path = task.out / f"{numbered(shard)}.npy"
        np.save(path, own)
        task.emit(numbered(shard), path)


def embed(task: Task) -> Mapping[str, Any]:
    """Bring the vectors of some items' texts into the cache."""
    work, [path] = task.params.given.work(task), task.paths
    rows = np.load(path)
    texts = dict(embed_text.texts_at(work.inputs["text"].parts("texts"), rows))
    keys = as_keys(content_key(text.encode()) for text in texts.values())
    with alone:
        encoder = held(work.params.found.encoder(), task.params.identity)
        embed_text.embed(work, encoder, rows, keys, lambda own: ((row, texts[row]) for row in own.tolist()))
    return {"embedded": len(rows)}  # with what an attempt before this one added


# A worker has one core: its threads embed one after the other, with the one model that it holds.
alone = threading.Lock()
_held: dict[str, Any] = {}


def held(encoder: E, expected: Mapping[str, Any]) -> E:
    """Give this encoder as the process has it already, loaded, or keep it, in place of any other.

    Raises WarehouseError where it is not the one that the driver has.
    """
    own = files.as_json(encoder.identity())
    if own != expected:
        unlike = "; ".join(
            f"{name} {own.get(name)!r}, expected {value!r}"
            for name, value in expected.items()
            if own.get(name) != value
        )
        raise WarehouseError(
            f"embed: worker {socket.gethostname()} would give other vectors than the flow's machine: "
            f"{unlike}. Give all of them the same packages, model and kind of processor, or run embed with "
            '[engine] kind = "local" before'
        )
    name = files.digest(own)
    if name not in _held:
        _held.clear()
        _held[name] = encoder
    kept: E = _held[name]
    return kept
