"""Embed text: one vector per item, each distinct text once, and none that an earlier run has made.

    text (+ split where the encoder is fitted) -> embeddings_<name>

Texts stream through: there are keys of all items in memory, but texts and vectors of one block only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipelines.embedded import carried, nothing_new, write_embeddings
from sid_pipelines.encoders import Encoder, TextModel, options_of
from sid_pipelines.encoders.base import Mask, Rows, finished
from sid_pipelines.encoders.options import TFIDF, SentenceOptions, TfidfOptions
from sid_pipelines.encoders.tfidf import TfidfEncoder
from sid_pipelines.missing import Filler, filler, filler_of
from sid_pipelines.stage import Needs, Outcome, Stage, Work, count
from sid_pipelines.tokenize import train_items
from sid_pipelines.vector_cache import Filled, Keys, VectorCache, as_keys, content_key, fill
from sid_schemas import DataError, RecipeError
from sid_tokenizers.base import Vectors
from sid_warehouse.db import connect

ROWS = 16_384  # items per block
CACHE = "vectors"  # folder in the cache
FROZEN, FITTED = "none: the encoder is frozen", "items with a train event"
MEAN = "; the mean that fills gaps: all items with text"
Raw = tuple[int, int, Vectors, Mask]  # items from, to; raw vectors of those with text; which were too long


@dataclass(frozen=True)
class TextEmbedParams:
    """What embed_text depends on. weights: SHA-256 over the model's files, "" where it has none."""

    name: str
    model: str
    options: Mapping[str, Any]
    weights: str
    missing: str
    dtype: str
    folder: str = field(metadata={"keyed": False})

    @property
    def found(self) -> TextModel:
        """Give the model as it was found when the run was planned."""
        options = options_of(self.model)(**self.options)
        return TextModel(self.model, options, Path(self.folder) if self.folder else None)


def is_fitted(model: str) -> bool:
    """Say whether a text model is fitted on train items, and so needs the split."""
    return model == TFIDF


def needs_of(params: TextEmbedParams) -> Needs:
    """Give the package that a model imports, and the extra that brings it."""
    return params.found.needs()


def run(work: Work) -> Outcome:
    """Write `embeddings_<name>` from vectors in the cache, made now where they were not there."""
    return write(work)


def write(work: Work, filled: Filled | None = None) -> Outcome:
    """Do that. filled: what brought the vectors into the cache, where that was just done elsewhere."""
    params: TextEmbedParams = work.params
    found = params.found
    texts = Texts.of(work.inputs["text"].parts("texts"))
    if nothing_new(work, len(texts.there)):
        return carried(work, params.name)
    check_there(work, texts.there)
    base = work.inputs.get("base")
    encoder = _fitted(work, found.options, texts) if is_fitted(found.name) else found.encoder()
    source: _Source = _Cached(work, encoder, texts) if encoder.cached else _Made(encoder, texts)
    filled = filled or source.filled
    if encoder.cached:
        encoder = found.encoder()  # not loaded: lets go of the model while vectors are written
    rule = "mask" if params.missing == "refuse" else params.missing  # refused: there is none to fill
    if base:
        dim = int(base.facts["embeddings"][f"embeddings_{params.name}"]["dim"])
        others = filler_of(base, f"embeddings_{params.name}", rule, None, dim=dim)
    else:
        dim = _dim(encoder, source)
        others = filler(lambda: _present(source, encoder, texts.there), rule, dim=dim)
    long = _Long()
    facts = write_embeddings(
        work,
        name=params.name,
        dim=dim,
        dtype=params.dtype,
        items=work.inputs["text"].read("texts", ["item_index", "item_id"]),
        blocks=_blocks(source, encoder, texts.there, others, long),
    )
    rule = getattr(found.options, "long", "truncate")
    identity = encoder.identity()
    facts |= {
        "model": params.model,
        "weights": params.weights,
        "revision": found.options.revision if isinstance(found.options, SentenceOptions) else "",
        "template_sha256": work.inputs["text"].facts.get("template_sha256", ""),
        "options": dict(params.options),
        "encoder": identity["encoder"],
        "precision": identity["precision"],
        "device": identity["device"],
        "packages": identity["packages"],
        "distinct": filled.distinct,
        "from_cache": filled.found,
        "embedded": filled.embedded,
        "truncated": long.items if rule == "truncate" else 0,
        "chunked": long.items if rule == "chunks" else 0,
        "missing_rule": params.missing,
        "fit_scope": FITTED if is_fitted(params.model) else FROZEN,
    }
    if params.missing == "mean":
        facts["fit_scope"] += MEAN
    if "enriched" in work.inputs["text"].facts:
        facts["enriched"] = work.inputs["text"].facts["enriched"]
    return Outcome(facts, _summary(facts))


def _summary(facts: Mapping[str, Any]) -> str:
    said = (
        f"{count(facts['items'], 'vector')} of {facts['dim']} numbers, {facts['from_cache']:,} from the cache"
    )
    for name, what in (("truncated", "truncated"), ("chunked", "cut into chunks")):
        if facts[name]:
            said += f", {count(facts[name], 'text')} {what}"
    return said + (f", {count(facts['missing'], 'item')} without text" if facts["missing"] else "")


# --- texts


@dataclass(frozen=True)
class Texts:
    """The texts of all items in Parquet parts; in memory are 16 bytes of each. there: (n,) has any text."""

    parts: list[Path]
    keys: Keys
    there: Mask

    @classmethod
    def of(cls, parts: list[Path]) -> "Texts":
        """Read all texts once."""
        digests, there = [], []
        for strings in _strings(parts):
            digests.append(as_keys(content_key(text.encode()) for text in strings.to_pylist()))
            there.append(np.asarray(pc.not_equal(strings, "")))
        keys = pa.concat_arrays(digests) if digests else as_keys([])
        return cls(parts, keys, np.concatenate(there) if there else np.zeros(0, dtype=bool))

    def blocks(self) -> Iterator[tuple[int, list[str]]]:
        """Give (first item, texts of some items), from the first to the last."""
        start = 0
        for strings in _strings(self.parts):
            yield start, strings.to_pylist()
            start += len(strings)

    def rows(self, wanted: Rows) -> Iterator[tuple[int, str]]:
        """Give (row, text) of some rows, ascending."""
        return texts_at(self.parts, wanted)


def texts_at(parts: Sequence[Path], wanted: Rows) -> Iterator[tuple[int, str]]:
    """Give (row, text) of some rows, ascending; reads row groups that hold any, a block at a time."""
    stop = 0
    for part in parts:
        with pq.ParquetFile(part, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                start, stop = stop, stop + file.metadata.row_group(group).num_rows
                if not len(_between(wanted, start, stop)):
                    continue
                for batch in file.iter_batches(ROWS, row_groups=[group], columns=["text"]):
                    own = _between(wanted, start, start + len(batch))
                    texts = batch.column(0).take(pa.array(own - start)).to_pylist()
                    yield from zip(own.tolist(), texts, strict=True)
                    start += len(batch)


def _between(wanted: Rows, start: int, stop: int) -> Rows:
    first, last = np.searchsorted(wanted, [start, stop])
    return wanted[first:last]


def _strings(parts: Iterable[Path]) -> Iterator[pa.Array]:
    for part in parts:
        with pq.ParquetFile(part, pre_buffer=False) as file:
            for batch in file.iter_batches(ROWS, columns=["text"]):
                yield batch.column(0)


def check_there(work: Work, there: Mask) -> None:
    """Raise DataError where items have no text that must have one. there: (n,) whether they have."""
    some = "base" in work.inputs or there.any()
    if there.all() or (some and work.params.missing != "refuse"):
        return
    expected = "every item" if work.params.missing == "refuse" else "one item at least"
    raise DataError(
        f"embed: {count(int((~there).sum()), 'item')} without any text, the first is item "
        f"{_item(work, int(np.argmin(there)))!r}; expected text for {expected}. Add a field to [[embed]] "
        "template, set missing = 'mask' or 'mean', leave such items out with "
        '[clean] require = ["title"], or stop before with --until sequences'
    )


def _fitted(work: Work, options: TfidfOptions, texts: Texts) -> Encoder:
    """Fit on the texts of items with a train event, in item order."""
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        seen = train_items(connection, work.inputs["split"], len(texts.there))
    return TfidfEncoder(options, [text for _, text in texts.rows(np.flatnonzero(seen & texts.there))])


# --- vectors


class _Source(Protocol):
    """Raw vectors of all items that have text, block by block, as often as asked."""

    filled: Filled

    def blocks(self) -> Iterator[Raw]: ...


def embed(
    work: Work, encoder: Encoder, rows: Rows, keys: Keys, texts: Callable[[Rows], Iterable[tuple[int, str]]]
) -> tuple[VectorCache, Filled]:
    """Bring the vectors of some items into the cache, each distinct text once.

    rows: of the items, ascending, all of which have text. keys: of these texts. texts: gives (row, text) of
    some rows. The last column of what is cached says "was too long".
    """
    cache = VectorCache(work.resources.cache / CACHE, encoder.identity())

    def encode(missing: Rows) -> Iterator[tuple[Rows, Vectors]]:
        for own, raw, long in encoder.encode(texts(rows[missing])):
            yield np.searchsorted(rows, own), np.column_stack([raw, long]).astype(np.float32, copy=False)

    def named(row: int) -> str:
        return f"the text of item {_item(work, int(rows[row]))!r}"

    filled = fill(cache, keys, encode, work.progress, named=named)
    if filled.skipped:
        raise AssertionError(f"{cache.folder}: the encoder left out {filled.skipped} texts")
    return cache, filled


class _Cached:
    """Vectors through the cache: what it lacks is embedded first."""

    def __init__(self, work: Work, encoder: Encoder, texts: Texts) -> None:
        self._keys, self._there = texts.keys, texts.there
        there = np.flatnonzero(texts.there)
        keys = texts.keys.take(pa.array(there))
        self._cache, self.filled = embed(work, encoder, there, keys, texts.rows)

    def blocks(self) -> Iterator[Raw]:
        for start in range(0, len(self._there), ROWS):
            stop = min(start + ROWS, len(self._there))
            rows = np.flatnonzero(self._there[start:stop]) + start
            held = self._cache.rows(self._keys.take(pa.array(rows)))
            yield start, stop, held[:, :-1], held[:, -1] > 0


class _Made:
    """Vectors of an encoder that is faster than a cache."""

    def __init__(self, encoder: Encoder, texts: Texts) -> None:
        self._encoder, self._texts = encoder, texts
        keys = texts.keys.filter(pa.array(texts.there))
        distinct = len(keys.unique())
        self.filled = Filled(distinct, 0, distinct)

    def blocks(self) -> Iterator[Raw]:
        for start, strings in self._texts.blocks():
            own = ((start + n, text) for n, text in enumerate(strings) if text)
            made = [(raw, long) for _, raw, long in self._encoder.encode(own)]
            raw = np.concatenate([raw for raw, _ in made]) if made else np.empty((0, 0), dtype=np.float32)
            long = np.concatenate([np.zeros(0, dtype=bool), *(long for _, long in made)])
            yield start, start + len(strings), raw, long


def _item(work: Work, row: int) -> str:
    return str(work.inputs["text"].read("texts", ["item_id"])["item_id"][row].as_py())


def _dim(encoder: Encoder, source: _Source) -> int:
    """Give the number of numbers of a stored vector; RecipeError where more are asked for than there are."""
    dim = next(raw.shape[1] for _, _, raw, _ in source.blocks() if len(raw))
    if encoder.dims > dim:
        raise RecipeError(f"[[embed]] dims = {encoder.dims}: the model's vectors have {dim} numbers")
    return encoder.dims or int(dim)


def _present(source: _Source, encoder: Encoder, there: Mask) -> Iterator[tuple[Rows, Vectors]]:
    for start, stop, raw, _ in source.blocks():
        if len(raw):
            rows = np.flatnonzero(there[start:stop]) + start
            yield rows, finished(raw, normalize=encoder.normalize, dims=encoder.dims)


@dataclass
class _Long:
    items: int = 0


def _blocks(
    source: _Source, encoder: Encoder, there: Mask, others: Filler, long: _Long
) -> Iterator[tuple[Vectors, Mask]]:
    for start, stop, raw, too_long in source.blocks():
        present = there[start:stop]
        long.items += int(too_long.sum())
        vectors = others(np.flatnonzero(~present) + start)
        block = np.empty((stop - start, vectors.shape[1]), dtype=np.float32)
        block[~present] = vectors
        if len(raw):
            block[present] = finished(raw, normalize=encoder.normalize, dims=encoder.dims)
        yield block, present


STAGE = Stage("embed_text", revision=5, parents=("text",), run=run, needs=needs_of)
