"""Embed images: a vector for every item whose image can be read, each distinct file once.

    items_clean -> embeddings_<name>

images.py finds the files, image_workers.py decodes them, image_encoders/ has the models, vector_cache.py
keeps what was embedded before. An image that cannot be read is counted with its reason, and its item gets
what `missing` says.
"""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.embedded import ROWS, carried, nothing_new, write_embeddings
from sid_pipelines.image_decoding import UnreadableError
from sid_pipelines.image_encoders import ImageEncoder, encoder_at, encoder_of
from sid_pipelines.image_workers import decoded
from sid_pipelines.images import STATUSES, Found, find, named_roots
from sid_pipelines.missing import Filler, filler, filler_of
from sid_pipelines.stage import Needs, Outcome, Progress, Stage, Work, count
from sid_pipelines.vector_cache import Filled, VectorCache, as_keys, fill
from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import cores

CACHE = "vectors"  # folder in the cache
FROZEN, FILLED = "none: the encoder is frozen", "; what fills gaps: all items with an image"
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ImageEmbedParams:
    """What embedding images depends on.

    weights: SHA-256 of the model's files. images: digest over the image files. folder, roots: where they lie.
    """

    name: str
    model: str
    options: Mapping[str, Any]
    weights: str
    missing: str  # refuse, mask, mean or map
    dtype: str
    images: str
    map_from: str
    folder: str = field(metadata={"keyed": False})
    roots: tuple[str, ...] = field(metadata={"keyed": False})


def needs_of(params: ImageEmbedParams) -> Needs:
    """Give the first package that the model needs and that is not there, or else its last."""
    needs = encoder_of(params.model).needs
    return next((one for one in needs if importlib.util.find_spec(one[0]) is None), needs[-1])


def run(work: Work) -> Outcome:
    """Write `embeddings_<name>`."""
    return write(work)


def write(work: Work, before: Filled | None = None) -> Outcome:
    """Do that. before: what brought the vectors into the cache, where that was just done elsewhere."""
    params: ImageEmbedParams = work.params
    items = work.inputs["clean"].read("items_clean", ["item_index", "item_id", "image_ref"])
    if nothing_new(work, len(items)):
        return carried(work, params.name)
    base = work.inputs.get("base")
    references = items["image_ref"].to_pylist()
    encoder = encoder_at(params.model, params.options, Path(params.folder))
    roots = [Path(root) for root in params.roots]
    found = find(references, roots, encoder.limits)
    cache = VectorCache(work.resources.cache / CACHE, encoder.identity())
    filled = embed(found, encoder, cache, work.progress)
    filled = before or filled
    facts = found.facts(items["item_id"].to_pylist(), references)
    _check(params, facts, roots, some=base is not None)
    keys: Any = as_keys(key or bytes(16) for key in found.keys)
    present = np.array([key is not None for key in found.keys])

    def vectors_of(rows: Rows) -> Vectors:
        return encoder.finished(cache.rows(keys.take(pa.array(rows))))

    def those_present() -> Iterator[tuple[Rows, Vectors]]:
        for block in _blocks(len(items)):
            yield (rows := block[present[block]]), vectors_of(rows)

    content = StoredVectors.of(work.inputs["content"]) if "content" in work.inputs else None
    rule = "mask" if params.missing == "refuse" else params.missing
    if base:
        dim = int(base.facts["embeddings"][f"embeddings_{params.name}"]["dim"])
        absent = filler_of(base, f"embeddings_{params.name}", rule, content, dim=dim)
    else:
        dim = vectors_of(np.flatnonzero(present)[:1]).shape[1]
        absent = filler(those_present, rule, content, dim=dim)

    def blocks() -> Iterator[tuple[Vectors, Mask]]:
        for block in _blocks(len(items)):
            yield _block(block, present[block], vectors_of, absent, dim), present[block]

    facts |= write_embeddings(
        work, name=params.name, dim=dim, dtype=params.dtype, items=items, blocks=blocks()
    )
    facts |= {
        "model": params.model,
        "weights": params.weights,
        "encoder": encoder.identity(),
        "distinct_images": filled.distinct,
        **absent.facts,
        "missing_rule": params.missing,
        "fit_scope": FROZEN + (FILLED if params.missing in ("mean", "map") else ""),
    }
    summary = (
        f"{count(facts['present'], 'vector')} of {dim} numbers, {filled.embedded:,} embedded and "
        f"{filled.found:,} from the cache; {count(facts['missing'], 'item')} without a readable image"
    )
    return Outcome(facts, summary)


def embed(found: Found, encoder: ImageEncoder, cache: VectorCache, progress: Progress) -> Filled:
    """Bring the vectors of all images that were found into the cache, each distinct content once.

    What cannot be decoded is noted in `found`, for every item with that content.
    """
    items = [item for item, key in enumerate(found.keys) if key is not None]
    keys = [found.keys[item] or b"" for item in items]
    unreadable: dict[bytes, UnreadableError] = {}
    readers = contextlib.ExitStack()  # closed on any error, also one of the cache: `encode` may then wait

    def encode(missing: Rows) -> Iterator[tuple[Rows, Vectors]]:
        paths = [Path(found.paths[items[row]] or "") for row in missing]
        rows, pixels = [], []
        at_once = encoder.batch * encoder.streams
        reader = decoded(paths, encoder.preparation.frame, encoder.limits, cores())
        outcomes = readers.enter_context(contextlib.closing(reader))
        for row, one in zip(missing, outcomes, strict=True):
            if one.pixels is None:
                unreadable[keys[row]] = UnreadableError(one.status, one.reason)
            elif one.key != keys[row]:
                unreadable[keys[row]] = UnreadableError("broken", "the file changed while it was read")
            else:
                rows.append(row)
                pixels.append(one.pixels)
            if len(rows) == at_once:
                yield np.array(rows), encoder.encode(np.stack(pixels))
                rows, pixels = [], []
        if rows:
            yield np.array(rows), encoder.encode(np.stack(pixels))

    def named(row: int) -> str:
        return f"the image {found.paths[items[row]]}"

    with readers:
        filled = fill(cache, as_keys(keys), encode, progress, named=named)
    for item, key in zip(items, keys, strict=True):
        if key in unreadable:
            found.fail(item, unreadable[key])
    return filled


def _check(params: ImageEmbedParams, facts: Mapping[str, Any], roots: list[Path], *, some: bool) -> None:
    """Raise DataError where there is no vector at all, or an item without one may not be.

    some: whether there are vectors of other items.
    """
    counts = facts["images"]
    lacking = {status: number for status, number in counts.items() if number and status != "ok"}
    if not lacking or ((counts["ok"] or some) and params.missing != "refuse"):
        return
    said = ", ".join(f"{number:,} {status.replace('_', ' ')}" for status, number in lacking.items())
    status, [first, *_] = next(iter(facts["image_examples"].items()))
    where = f"images of {params.name!r} in {named_roots(roots)}"
    example = f"item {first['item_id']!r} has {first['image_ref']!r}: {first['reason']} ({STATUSES[status]})"
    remedy = "Set images to the folder that image_ref is relative to, or leave the embedding out"
    if counts["ok"]:
        remedy = "Set missing = 'mask', or leave such items out with [clean] require = ['image_ref']"
    raise DataError(f"embed: {where}: {said} of {sum(counts.values()):,}; {example}. {remedy}")


def _block(block: Rows, present: Mask, vectors_of: Any, absent: Filler, dim: int) -> Vectors:
    vectors = np.zeros((len(block), dim), dtype=np.float32)
    if present.any():
        vectors[present] = vectors_of(block[present])
    if not present.all():
        vectors[~present] = absent(block[~present])
    return vectors


def _blocks(items: int) -> Iterator[Rows]:
    for start in range(0, items, ROWS):
        yield np.arange(start, min(start + ROWS, items))


STAGE = Stage("embed_image", revision=5, parents=("clean",), run=run, needs=needs_of)
