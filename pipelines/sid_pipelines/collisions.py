"""Collisions: apply the declared policy, then write the SIDs, the way back, the trie and the vocabulary."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sid_pipelines.arrays import codes_column, matrix, read_vectors
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas.tables import SID_TO_ITEMS, SIDS
from sid_tokenizers import Trie, Vocabulary, load, resolve
from sid_tokenizers.base import Codes
from sid_tokenizers.metrics import collision_metrics, neighbour_overlap, per_level, reconstruction
from sid_tokenizers.vocabulary import sid_key


@dataclass(frozen=True)
class CollisionParams:
    """What collisions depends on."""

    policy: str


def run(work: Work) -> Outcome:
    """Write `sids`, `sid_to_items`, `trie.safetensors` and `vocabulary.json`."""
    params: CollisionParams = work.params
    coded = work.inputs["tokenize"]
    table = coded.read("codes")
    codes = matrix(table["codes"]).astype(np.int32, copy=False)
    X = read_vectors(work.inputs["embed"])
    tokenizer = load(coded.folder / "tokenizer")
    resolution = resolve(codes, X, tokenizer, policy=params.policy)
    sids = resolution.sids
    vocabulary = Vocabulary(tuple(tokenizer.levels))

    work.out.write(SIDS, _sids(table, codes, sids, resolution.slots, vocabulary))
    work.out.write(SID_TO_ITEMS, _way_back(sids, resolution.slots))
    Trie.build(sids).save(work.out.folder / "trie.safetensors")
    vocabulary.save(work.out.folder / "vocabulary.json")
    moved = int(resolution.moved.sum())
    facts: dict[str, Any] = {
        "policy": params.policy,
        "moved": moved,
        "before": collision_metrics(codes),
        "after": collision_metrics(sids),
        "levels": per_level(sids, vocabulary.levels),
        "reconstruction": reconstruction(X, tokenizer.decode(sids)),
        "neighbour_overlap_at_10": neighbour_overlap(X, sids),
    }
    left = count(facts["after"]["collided_items"], "collision")
    return Outcome(facts, f"{count(len(sids), 'SID')}, {moved} moved by {params.policy}, {left} left")


def _sids(
    items: pa.Table,
    codes: Codes,
    sids: Codes,
    slots: np.ndarray[tuple[int], np.dtype[np.int32]],
    vocabulary: Vocabulary,
) -> pa.Table:
    rows = sids.tolist()
    tokens = [vocabulary.tokens(row) for row in rows]
    return pa.table(
        {
            "item_index": items["item_index"],
            "item_id": items["item_id"],
            "codes": codes_column(codes),
            "sid": codes_column(sids),
            "sid_key": pa.array([sid_key(row) for row in rows], pa.string()),
            "suffix": pa.nulls(len(rows), pa.int32()),
            "slot": pa.array(slots),
            "token_ids": codes_column(vocabulary.token_ids(sids)),
            "tokens": pa.array(tokens, pa.list_(pa.string())),
            "text": pa.array(["".join(row) for row in tokens], pa.string()),
        }
    )


def _way_back(sids: Codes, slots: np.ndarray[tuple[int], np.dtype[np.int32]]) -> pa.Table:
    order = np.lexsort([slots, *sids.T[::-1]])
    distinct, counts = np.unique(sids, axis=0, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.table(
        {
            "sid_key": pa.array([sid_key(row) for row in distinct.tolist()], pa.string()),
            "sid": codes_column(distinct),
            "item_indexes": pa.ListArray.from_arrays(pa.array(offsets), pa.array(order.astype(np.int32))),
            "n": pa.array(counts.astype(np.int32)),
        }
    )


STAGE = Stage("collisions", revision=1, parents=("embed", "tokenize"), run=run)
