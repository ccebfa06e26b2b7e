"""Tokenize: fit a scheme on the items its scope allows, then give all items what identifies them.

The role `vectors` is an embed stage's output, or fuse's; `cf` one of behaviour and `clean`, `text` what is
known of items, for schemes that need it.
There are three kinds of schemes. A Tokenizer codes vectors block by block; an Indexer sees the whole
catalogue at once; a Continuous one gives vectors, and the item's number for an ID.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.catalogue import catalogue_of
from sid_pipelines.identified import Identified, identify, write_beside
from sid_pipelines.soft import soft_facts, write_soft
from sid_pipelines.stage import Outcome, Progress, Stage, Work, count
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


@dataclass(frozen=True)
class Scope:
    """What a scheme is fitted on. rows: of these items, ascending; in_scope: of how many they were drawn."""

    name: str
    rows: npt.NDArray[np.int64]
    in_scope: int

    def mask(self, n: int) -> Mask:
        """Give which of n items the scheme was fitted on: (n,) bool."""
        fitted = np.zeros(n, dtype=bool)
        fitted[self.rows] = True
        return fitted

    def facts(self, sha256: str) -> dict[str, Any]:
        """Give what there is to say of it. sha256: of the vectors of its rows."""
        counted = {"fit_items": len(self.rows), "fit_items_in_scope": self.in_scope}
        return {"fit_scope": self.name, **counted, "fit_sha256": sha256}


def run(work: Work) -> Outcome:
    """Write `codes`, the fitted scheme, and what it gives beside: `soft_sids`, `docids`, `vectors_<name>`."""
    params: TokenizeParams = work.params
    scheme = tokenizer_named(params.tokenizer)(**params.params)
    vectors = coded_vectors(work.inputs, stacked=scheme.traits.stacked)
    scope = scope_of(work, scheme, len(vectors))
    was_fitted = scope.mask(len(vectors))
    about = about_items(work, scheme)
    fit = scope.facts(fit_scheme(scheme, vectors, about, scope.rows))
    scheme.save(work.out.folder / "tokenizer")
    embedded = work.inputs["vectors"]
    items = embedded.read(embedded.facts["name"], ["item_index", "item_id"])
    if isinstance(scheme, Tokenizer):
        coded = Coded(len(vectors), len(scheme.levels))
        blocks = map(coded.keep, code_blocks(scheme, vectors.blocks(), was_fitted))
        work.out.write(CODES, code_rows(items, blocks, was_fitted, work.progress))
        facts = coded.facts(scheme, was_fitted)
        facts["soft"] = soft_facts(scheme, params.soft, params.temperature)
        if params.soft:
            write_soft(work, scheme, vectors, facts["soft"])
        codes, occupancy = coded.codes, occupancy_of(coded.codes[was_fitted], scheme)
    else:
        assert isinstance(scheme, Indexer | Continuous)
        assert about is not None
        found = identify(scheme, vectors.rows(np.arange(len(vectors))), about)
        work.out.write(CODES, _identified_rows(items, found, was_fitted))
        facts = _identified_facts(found, was_fitted) | write_beside(work, scheme, items, found, about)
        codes, occupancy = found.codes, []
    return finished(work, scheme, fit, facts, codes, was_fitted, occupancy)


def finished(
    work: Work,
    scheme: Scheme,
    fit: Mapping[str, Any],
    facts: Mapping[str, Any],
    codes: Codes,
    fitted: Mask,
    occupancy: list[list[int]],
) -> Outcome:
    """Write `fit.json` beside the scheme, and give all facts."""
    params: TokenizeParams = work.params
    parents = {name: output.manifest["key"] for name, output in work.inputs.items()}
    record = {**fit, "parents": parents, "occupancy": occupancy}
    files.write_json(work.out.folder / "tokenizer" / "fit.json", record)
    known = {
        "tokenizer": params.tokenizer,
        "vectors": work.inputs["vectors"].facts["name"],
        "params": dict(params.params),
        "gives": scheme.traits.gives,
        "ordered": scheme.traits.ordered,
        "unique": scheme.traits.unique,
        **fit,
        "collisions": collision_metrics(codes),
        "collisions_fit": collision_metrics(codes[fitted]),
        **facts,
    }
    return Outcome(known, _summary(known))


def scope_of(work: Work, scheme: Scheme, n: int) -> Scope:
    """Give which of n items a scheme is to be fitted on; a part of them is drawn by its seed."""
    params: TokenizeParams = work.params
    seen = _in_scope(work, params.fit_scope, n)
    rows = np.flatnonzero(seen)
    if 0 < params.fit_items < len(rows):
        draw = np.random.default_rng(scheme.seed)
        rows = np.sort(draw.choice(rows, params.fit_items, replace=False))
    return Scope(SCOPES[params.fit_scope], rows, int(seen.sum()))


def about_items(work: Work, scheme: Scheme) -> Catalogue | None:
    """Give what a scheme asks to know of items beside vectors, None for a tokenizer that asks nothing."""
    needs = [need for need in scheme.needs if need != "vectors"]
    return None if not needs and isinstance(scheme, Tokenizer) else catalogue_of(work, needs)


def fit_scheme(
    scheme: Scheme, vectors: Stored, about: Catalogue | None, fitted: npt.NDArray[np.int64]
) -> str:
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


def occupancy_of(codes: Codes, tokenizer: Tokenizer) -> list[list[int]]:
    """Give how often each code of each level is used: what appends are compared with."""
    return [np.bincount(codes[:, level], minlength=k).tolist() for level, k in enumerate(tokenizer.levels)]


@dataclass(frozen=True)
class CodedBlock:
    """Codes of some items from `start` on, and what has to be measured while their vectors are there.

    codes: (m, L). hashes: (m,) of the vectors. errors: of reconstruction, "fit" and "held_out".
    """

    start: int
    codes: Codes
    hashes: npt.NDArray[np.uint64]
    errors: dict[str, ReconstructionTotal]


def code_blocks(
    tokenizer: Tokenizer, blocks: Iterable[tuple[int, Vectors]], fitted: Mask
) -> Iterator[CodedBlock]:
    """Code block after block of (first row, vectors). fitted: (n,) which items were fitted on."""
    for start, X in blocks:
        inside = fitted[start : start + len(X)]
        codes, hashes = tokenizer.encode(X), content_hashes(X)
        errors = {"fit": ReconstructionTotal(), "held_out": ReconstructionTotal()}
        if tokenizer.reconstructs:
            decoded = tokenizer.decode(codes)
            errors["fit"].add(X[inside], decoded[inside])
            errors["held_out"].add(X[~inside], decoded[~inside])
        yield CodedBlock(start, codes, hashes, errors)


class Coded:
    """All items' codes, put together from blocks in their order."""

    def __init__(self, n: int, length: int) -> None:
        """Make room for n items' codes of so many levels."""
        self.codes: Codes = np.empty((n, length), dtype=np.int32)
        self._hashes = np.empty(n, dtype=np.uint64)
        self._errors = {"fit": ReconstructionTotal(), "held_out": ReconstructionTotal()}

    def keep(self, block: CodedBlock) -> CodedBlock:
        """Keep what a block holds, and give it back."""
        rows = slice(block.start, block.start + len(block.codes))
        self.codes[rows], self._hashes[rows] = block.codes, block.hashes
        for name, total in self._errors.items():
            total.join(block.errors[name])
        return block

    def facts(self, tokenizer: Tokenizer, fitted: Mask) -> dict[str, Any]:
        """Give how codes are used, and the error on fitted and on held-out items."""
        errors = {name: total.result() for name, total in self._errors.items()}
        return {
            "duplicate_vectors": len(self._hashes) - len(np.unique(self._hashes)),
            "levels": per_level(self.codes, tokenizer.levels),
            "levels_fit": per_level(self.codes[fitted], tokenizer.levels),
            "reconstruction": errors if tokenizer.reconstructs else None,
        }


def _identified_facts(found: Identified, fitted: Mask) -> dict[str, Any]:
    sizes = found.vocabulary.sizes
    return {
        "duplicate_vectors": found.duplicates,
        "levels": per_level(found.codes, sizes),
        "levels_fit": per_level(found.codes[fitted], sizes),
        "reconstruction": None,
    }


def code_rows(
    items: pa.Table, blocks: Iterable[CodedBlock], fitted: Mask, progress: Progress, *, first: int = 0
) -> Iterator[pa.RecordBatch]:
    """Give the rows of table `codes`; items: (item_index, item_id) from the one numbered `first` on."""
    for block in blocks:
        stop = block.start + len(block.codes)
        rows = items.slice(block.start - first, len(block.codes)).append_column(
            "codes", codes_column(block.codes)
        )
        rows = rows.append_column("fitted", pa.array(fitted[block.start : stop]))
        yield from rows.combine_chunks().to_batches()
        progress(stop - first, len(items))


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


STAGE = Stage("tokenize", revision=8, parents=("split",), run=run)
