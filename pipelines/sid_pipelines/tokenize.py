"""Tokenize: fit a tokenizer on the items its scope allows, then encode all items block by block.

The role `vectors` is an embed stage's output, or fuse's.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.vectors import StoredVectors
from sid_schemas.tables import CODES
from sid_tokenizers import Tokenizer, tokenizer_named
from sid_tokenizers.base import Codes, Vectors, content_hashes
from sid_tokenizers.metrics import ReconstructionTotal, collision_metrics, per_level
from sid_warehouse import files
from sid_warehouse.arrays import codes_column
from sid_warehouse.db import connect, scan
from sid_warehouse.stages import StageOutput

SCOPES = {"train": "items with a train event", "all": "all items"}
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TokenizeParams:
    """What tokenize depends on: the scheme, its constructor's parameters, and what it is fitted on."""

    tokenizer: str
    params: Mapping[str, Any]
    fit_scope: str = "train"  # or "all"
    fit_items: int = 0  # at most so many of them, drawn by the tokenizer's seed; 0 for all


def run(work: Work) -> Outcome:
    """Write `codes` and the fitted tokenizer."""
    params: TokenizeParams = work.params
    vectors = StoredVectors.of(work.inputs["vectors"])
    seen = _in_scope(work, params.fit_scope, len(vectors))
    tokenizer = tokenizer_named(params.tokenizer)(**params.params)
    fitted = np.flatnonzero(seen)
    if 0 < params.fit_items < len(fitted):
        draw = np.random.default_rng(tokenizer.seed)
        fitted = np.sort(draw.choice(fitted, params.fit_items, replace=False))
    X = vectors.rows(fitted)
    tokenizer.fit(X)
    fit = {
        "fit_scope": SCOPES[params.fit_scope],
        "fit_items": len(fitted),
        "fit_items_in_scope": int(seen.sum()),
        "fit_sha256": hashlib.sha256(X.data).hexdigest(),
    }
    del X
    tokenizer.save(work.out.folder / "tokenizer")

    embedded = work.inputs["vectors"]
    items = embedded.read(embedded.facts["name"], ["item_index", "item_id"])
    was_fitted = np.zeros(len(vectors), dtype=bool)
    was_fitted[fitted] = True
    coded = Coded(tokenizer, vectors, was_fitted)
    work.out.write(CODES, _rows(items, coded, work))
    codes = coded.codes
    _write_reference(work, fit, codes[was_fitted], tokenizer)
    facts: dict[str, Any] = {
        "tokenizer": params.tokenizer,
        "vectors": embedded.facts["name"],
        "params": dict(params.params),
        "ordered": tokenizer.traits.ordered,
        "unique": tokenizer.traits.unique,
        **fit,
        "duplicate_vectors": coded.duplicates(),
        "collisions": collision_metrics(codes),
        "collisions_fit": collision_metrics(codes[was_fitted]),
        "levels": per_level(codes, tokenizer.levels),
        "levels_fit": per_level(codes[was_fitted], tokenizer.levels),
        "reconstruction": coded.reconstruction() if tokenizer.reconstructs else None,
    }
    rate = facts["collisions"]["collision_rate"]
    used = "/".join(str(level["used"]) for level in facts["levels"])
    summary = f"fitted on {count(facts['fit_items'], 'item')}, codes used {used}, {rate:.2%} collide"
    return Outcome(facts, summary)


def _write_reference(work: Work, fit: Mapping[str, Any], codes: Codes, tokenizer: Tokenizer) -> None:
    """Write what was fitted on, and how often its items have each code: what appends are compared with."""
    occupancy = [
        np.bincount(codes[:, level], minlength=k).tolist() for level, k in enumerate(tokenizer.levels)
    ]
    parents = {name: output.manifest["key"] for name, output in work.inputs.items()}
    record = {**fit, "parents": parents, "occupancy": occupancy}
    files.write_json(work.out.folder / "tokenizer" / "fit.json", record)


class Coded:
    """All items' codes, made block by block, with what has to be measured while a block is there."""

    def __init__(self, tokenizer: Tokenizer, vectors: StoredVectors, fitted: Mask) -> None:
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


def _rows(items: pa.Table, coded: Coded, work: Work) -> Iterator[pa.RecordBatch]:
    for start, codes in coded.blocks():
        work.progress(start + len(codes), len(items))
        block = items.slice(start, len(codes)).append_column("codes", codes_column(codes))
        block = block.append_column("fitted", pa.array(coded.fitted[start : start + len(codes)]))
        yield from block.combine_chunks().to_batches()


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


STAGE = Stage("tokenize", revision=5, parents=("split",), run=run)
