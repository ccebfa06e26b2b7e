"""Tokenize: fit a tokenizer on the items seen in training and encode all items."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from sid_pipelines.arrays import codes_column, read_vectors
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas.tables import CODES
from sid_tokenizers import tokenizer_named
from sid_tokenizers.metrics import collision_metrics, duplicate_vectors, per_level, reconstruction
from sid_warehouse import files
from sid_warehouse.db import connect, scan
from sid_warehouse.stages import StageOutput


@dataclass(frozen=True)
class TokenizeParams:
    """What tokenize depends on: the scheme and its constructor's parameters."""

    tokenizer: str
    params: Mapping[str, Any]


def run(work: Work) -> Outcome:
    """Write `codes` and the fitted tokenizer; fit on items with a train event only."""
    params: TokenizeParams = work.params
    X = read_vectors(work.inputs["embed"])
    with connect(spill=work.out.spill, memory=work.resources.memory) as connection:
        fitted = train_items(connection, work.inputs["split"], len(X))
    tokenizer = tokenizer_named(params.tokenizer)(**params.params)
    tokenizer.fit(X[fitted])
    codes = tokenizer.encode(X)
    fit = {
        "fit_scope": "items with a train event",
        "fit_items": int(fitted.sum()),
        "fit_sha256": hashlib.sha256(X[fitted].tobytes()).hexdigest(),
    }
    tokenizer.save(work.out.folder / "tokenizer")
    parents = {name: output.manifest["key"] for name, output in work.inputs.items()}
    files.write_json(work.out.folder / "tokenizer" / "fit.json", {**fit, "parents": parents})
    items = work.inputs["embed"].read(work.inputs["embed"].facts["name"], ["item_index", "item_id"])
    work.out.write(CODES, items.append_column("codes", codes_column(codes)))
    decoded = tokenizer.decode(codes)
    facts: dict[str, Any] = {
        "tokenizer": params.tokenizer,
        "params": dict(params.params),
        **fit,
        "duplicate_vectors": duplicate_vectors(X),
        "collisions": collision_metrics(codes),
        "levels": per_level(codes, list(tokenizer.levels)),
        "levels_fit": per_level(codes[fitted], list(tokenizer.levels)),
        "reconstruction": {
            "fit": reconstruction(X[fitted], decoded[fitted]),
            "held_out": reconstruction(X[~fitted], decoded[~fitted]),
        },
    }
    rate = facts["collisions"]["collision_rate"]
    used = "/".join(str(level["used"]) for level in facts["levels"])
    summary = f"fitted on {count(facts['fit_items'], 'item')}, codes used {used}, {rate:.2%} collide"
    return Outcome(facts, summary)


def train_items(connection: duckdb.DuckDBPyConnection, split: StageOutput, n: int) -> npt.NDArray[np.bool_]:
    """Give which of n items have a train event: (n,) bool."""
    seen = connection.sql(f"""
        select distinct item_index from {scan(split.parts("interactions"))}
        where split = 'train'""").fetchnumpy()["item_index"]
    mask = np.zeros(n, dtype=bool)
    mask[np.asarray(seen, dtype=np.int64)] = True
    return mask


STAGE = Stage("tokenize", revision=1, parents=("split", "embed"), run=run)
