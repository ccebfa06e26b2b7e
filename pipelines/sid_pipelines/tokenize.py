"""Tokenize: fit a scheme on the items its scope allows, then give all items what identifies them.

The role `vectors` is an embed stage's output, or fuse's; `cf` one of behaviour and `clean`, `text` what is
known of items, for schemes that need it.
There are three kinds of schemes. A Tokenizer codes vectors block by block; an Indexer sees the whole
catalogue at once; a Continuous one gives vectors, and the item's number for an ID.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.catalogue import catalogue_of
from sid_pipelines.identified import Identified, identify, write_beside
from sid_pipelines.soft import soft_facts, write_soft
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.vectors import Stored, coded_vectors
from sid_schemas.tables import CODES
from sid_tokenizers import Catalogue, Continuous, Indexer, Tokenizer, tokenizer_named
from sid_tokenizers.base import Codes, Vectors, content_hashes
from sid_tokenizers.metrics import ReconstructionTotal, collision_metrics, per_level
from sid_tokenizers.scheme import Scheme
from sid_warehouse import files
from sid_warehouse.arrays import codes_column
from sid_warehouse.db import connect, scan
from sid_warehouse.stages import StageOutput

SCOPES = {"train": "items with a train event", "all": "all items"}
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TokenizeParams:
    """What tokenize depends on: the scheme, its constructor's parameters, and what it is fitted on.

    soft: likeliest codes of each level to publish too. temperature: of their probabilities, 0 for the
    scheme's own.
    """

    tokenizer: str
    params: Mapping[str, Any]
    fit_scope: str = "train"  # or "all"
    fit_items: int = 0  # at most so many of them, drawn by the tokenizer's seed; 0 for all
    soft: int = 0
    temperature: float = 0.0


def run(work: Work) -> Outcome:
    """Write `codes`, the fitted scheme, and what it gives beside: `soft_sids`, `docids`, `vectors_<name>`."""
    params: TokenizeParams = work.params
    scheme = tokenizer_named(params.tokenizer)(**params.params)
    vectors = coded_vectors(work.inputs, stacked=scheme.traits.stacked)
    seen = _in_scope(work, params.fit_scope, len(vectors))
    fitted = np.flatnonzero(seen)
    if 0 < params.fit_items < len(fitted):
        draw = np.random.default_rng(scheme.seed)
        fitted = np.sort(draw.choice(fitted, params.fit_items, replace=False))
    was_fitted = np.zeros(len(vectors), dtype=bool)
    was_fitted[fitted] = True
    needs = [need for need in scheme.needs if need != "vectors"]
    about = None if not needs and isinstance(scheme, Tokenizer) else catalogue_of(work, needs)
    fit = {
        "fit_scope": SCOPES[params.fit_scope],
        "fit_items": len(fitted),
        "fit_items_in_scope": int(seen.sum()),
        "fit_sha256": _fit(scheme, vectors, about, fitted),
    }
    scheme.save(work.out.folder / "tokenizer")
    embedded = work.inputs["vectors"]
    items = embedded.read(embedded.facts["name"], ["item_index", "item_id"])
    if isinstance(scheme, Tokenizer):
        coded = Coded(scheme, vectors, was_fitted)
        work.out.write(CODES, _rows(items, coded, work))
        facts = _coded_facts(coded, was_fitted)
        facts["soft"] = soft_facts(scheme, params.soft, params.temperature)
        if params.soft:
            write_soft(work, scheme, vectors, facts["soft"])
        codes, occupancy = coded.codes, _occupancy(coded.codes[was_fitted], scheme)
    else:
        assert isinstance(scheme, Indexer | Continuous)
        assert about is not None
        found = identify(scheme, vectors.rows(np.arange(len(vectors))), about)
        work.out.write(CODES, _identified_rows(items, found, was_fitted))
        facts = _identified_facts(found, was_fitted) | write_beside(work, scheme, items, found, about)
        codes, occupancy = found.codes, []
    parents = {name: output.manifest["key"] for name, output in work.inputs.items()}
    record = {**fit, "parents": parents, "occupancy": occupancy}
    files.write_json(work.out.folder / "tokenizer" / "fit.json", record)
    facts = {
        "tokenizer": params.tokenizer,
        "vectors": embedded.facts["name"],
        "params": dict(params.params),
        "gives": scheme.traits.gives,
        "ordered": scheme.traits.ordered,
        "unique": scheme.traits.unique,
        **fit,
        "collisions": collision_metrics(codes),
        "collisions_fit": collision_metrics(codes[was_fitted]),
        **facts,
    }
    return Outcome(facts, _summary(facts))


def _fit(scheme: Scheme, vectors: Stored, about: Catalogue | None, fitted: npt.NDArray[np.int64]) -> str:
    """Fit a scheme on some rows, and give the hash of their vectors."""
    X = vectors.rows(fitted)
    known = None if about is None else about.rows(fitted)
    if isinstance(scheme, Tokenizer):
        scheme.fit(X, about=known)
    else:
        assert isinstance(scheme, Indexer | Continuous)
        assert known is not None
        scheme.fit(X, about=known)
    return hashlib.sha256(X.data).hexdigest()


def _summary(facts: Mapping[str, Any]) -> str:
    said = f"fitted on {count(facts['fit_items'], 'item')}"
    if facts["unique"]:
        longest = max((level["level"] for level in facts["levels"]), default=0)
        return f"{said}, {count(facts['collisions']['items'], 'ID')} of up to {count(longest, 'token')}"
    used = "/".join(str(level["used"]) for level in facts["levels"])
    return f"{said}, codes used {used}, {facts['collisions']['collision_rate']:.2%} collide"


def _occupancy(codes: Codes, tokenizer: Tokenizer) -> list[list[int]]:
    """Give how often each code of each level is used: what appends are compared with."""
    return [np.bincount(codes[:, level], minlength=k).tolist() for level, k in enumerate(tokenizer.levels)]


class Coded:
    """All items' codes, made block by block, with what has to be measured while a block is there."""

    def __init__(self, tokenizer: Tokenizer, vectors: Stored, fitted: Mask) -> None:
        """Take the fitted tokenizer, the vectors, and which rows it was fitted on."""
        self.tokenizer, self.vectors, self.fitted = tokenizer, vectors, fitted
        self.codes: Codes = np.empty((len(vectors), len(tokenizer.levels)), dtype=np.int32)
        self._hashes = np.empty(len(vectors), dtype=np.uint64)
        self._totals = {"fit": ReconstructionTotal(), "held_out": ReconstructionTotal()}

    def blocks(self) -> Iterator[tuple[int, Codes]]:
        """Give (first row, codes) block by block, keeping them."""
        for start, X in self.vectors.blocks():
            rows = slice(start, start + len(X))
            self.codes[rows] = self.tokenizer.encode(X)
            self._hashes[rows] = content_hashes(X)
            if self.tokenizer.reconstructs:
                self._measure(X, self.codes[rows], self.fitted[rows])
            yield start, self.codes[rows]

    def _measure(self, X: Vectors, codes: Codes, fitted: Mask) -> None:
        decoded = self.tokenizer.decode(codes)
        self._totals["fit"].add(X[fitted], decoded[fitted])
        self._totals["held_out"].add(X[~fitted], decoded[~fitted])

    def reconstruction(self) -> dict[str, Any]:
        """Give the error on fitted and on held-out items."""
        return {name: total.result() for name, total in self._totals.items()}

    def duplicates(self) -> int:
        """Give how many items' vectors repeat an earlier item's."""
        return len(self._hashes) - len(np.unique(self._hashes))


def _coded_facts(coded: Coded, fitted: Mask) -> dict[str, Any]:
    tokenizer, codes = coded.tokenizer, coded.codes
    return {
        "duplicate_vectors": coded.duplicates(),
        "levels": per_level(codes, tokenizer.levels),
        "levels_fit": per_level(codes[fitted], tokenizer.levels),
        "reconstruction": coded.reconstruction() if tokenizer.reconstructs else None,
    }


def _identified_facts(found: Identified, fitted: Mask) -> dict[str, Any]:
    sizes = found.vocabulary.sizes
    return {
        "duplicate_vectors": found.duplicates,
        "levels": per_level(found.codes, sizes),
        "levels_fit": per_level(found.codes[fitted], sizes),
        "reconstruction": None,
    }


def _rows(items: pa.Table, coded: Coded, work: Work) -> Iterator[pa.RecordBatch]:
    for start, codes in coded.blocks():
        work.progress(start + len(codes), len(items))
        block = items.slice(start, len(codes)).append_column("codes", codes_column(codes))
        block = block.append_column("fitted", pa.array(coded.fitted[start : start + len(codes)]))
        yield from block.combine_chunks().to_batches()


def _identified_rows(items: pa.Table, found: Identified, fitted: Mask) -> pa.Table:
    coded = items.append_column("codes", codes_column(found.codes))
    return coded.append_column("fitted", pa.array(fitted))


def _in_scope(work: Work, scope: str, n: int) -> Mask:
    if scope == "all":
        return np.ones(n, dtype=bool)
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        return train_items(connection, work.inputs["split"], n)


def train_items(connection: duckdb.DuckDBPyConnection, split: StageOutput, n: int) -> Mask:
    """Give which of n items have a train event: (n,) bool."""
    return train_popularity(connection, split, n) > 0


def train_popularity(
    connection: duckdb.DuckDBPyConnection, split: StageOutput, n: int
) -> npt.NDArray[np.int64]:
    """Give how many train events each of n items has: (n,) int64."""
    counts = connection.sql(f"""
        select item_index, count(*) as events from {scan(split.parts("interactions"))}
        where split = 'train' group by item_index""").fetchnumpy()
    popularity = np.zeros(n, dtype=np.int64)
    popularity[np.asarray(counts["item_index"], dtype=np.int64)] = counts["events"]
    return popularity


STAGE = Stage("tokenize", revision=6, parents=("split",), run=run)
