"""Collisions: apply the declared policy, then write the SIDs, the way back, the trie and the vocabulary."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.quality import judge
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.tokenize import train_popularity
from sid_pipelines.vectors import ROWS, StoredVectors
from sid_schemas.tables import SID_TO_ITEMS, SIDS
from sid_tokenizers import Tokenizer, Trie, Vocabulary, load, resolve
from sid_tokenizers.base import Codes
from sid_tokenizers.collisions import Resolution, policy_named
from sid_tokenizers.metrics import ReconstructionTotal, collision_metrics, per_level
from sid_tokenizers.vocabulary import sid_key
from sid_warehouse import files
from sid_warehouse.arrays import codes_column, matrix
from sid_warehouse.db import connect


@dataclass(frozen=True)
class CollisionParams:
    """What collisions depends on: the policy and its own parameters."""

    policy: str
    params: Mapping[str, Any]


def run(work: Work) -> Outcome:
    """Write `sids`, `sid_to_items`, `trie.safetensors`, `vocabulary.json` and what an append will need."""
    params: CollisionParams = work.params
    coded = work.inputs["tokenize"]
    table = coded.read("codes")
    codes = matrix(table["codes"]).astype(np.int32, copy=False)
    fitted = table["fitted"].to_numpy()
    vectors = StoredVectors.of(work.inputs["vectors"])
    tokenizer = load(coded.folder / "tokenizer")
    policy = policy_named(params.policy, params.params)
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        popularity = train_popularity(connection, work.inputs["split"], len(codes))
        # Rows are items in byte order of their ids, so that ties need no further rule.
        done = resolve(codes, vectors.rows, tokenizer, policy=policy, popularity=popularity)
        quality = judge(
            # Without order a digit that says nothing of likeness must not count as a code shared.
            done.sids if tokenizer.traits.ordered else done.sids[:, : codes.shape[1]],
            vectors,
            fitted,
            connection,
            work.inputs["split"],
            work.inputs["clean"],
            ordered=tokenizer.traits.ordered,
        )
    vocabulary = Vocabulary(done.levels)
    work.out.write(SIDS, _sids(table, codes, done, vocabulary))
    work.out.write(SID_TO_ITEMS, _way_back(done.sids, done.slots))
    Trie.build(done.sids).save(work.out.folder / "trie.safetensors")
    vocabulary.save(work.out.folder / "vocabulary.json")
    _keep_for_appends(work, params, done)
    facts: dict[str, Any] = {
        "policy": params.policy,
        "params": files.as_json(asdict(policy)),
        "unique": policy.unique,
        "length": policy.length,
        "capacity": getattr(policy, "capacity", None),
        "moved": int(done.moved.sum()),
        "duplicate_vectors": done.duplicates,
        "before": collision_metrics(codes),
        "after": collision_metrics(done.sids),
        "before_fit": collision_metrics(codes[fitted]),
        "after_fit": collision_metrics(done.sids[fitted]),
        "levels": per_level(done.sids, done.levels),
        "levels_fit": per_level(done.sids[fitted], done.levels),
        **_reconstruction(tokenizer, vectors, done, fitted),
        **quality,
    }
    moved, left = facts["moved"], count(facts["after"]["collided_items"], "collision")
    return Outcome(facts, f"{count(len(codes), 'SID')}, {moved} moved by {params.policy}, {left} left")


def _reconstruction(
    tokenizer: Tokenizer, vectors: StoredVectors, done: Resolution, fitted: npt.NDArray[np.bool_]
) -> dict[str, dict[str, float] | None]:
    """Give the error of the final codes, over all items and those fitted on: what resolution cost."""
    length, all_items, fit = len(tokenizer.levels), ReconstructionTotal(), ReconstructionTotal()
    if tokenizer.reconstructs:
        for start, X in vectors.blocks():
            rows = slice(start, start + len(X))
            decoded = tokenizer.decode(done.sids[rows, :length])
            all_items.add(X, decoded)
            fit.add(X[fitted[rows]], decoded[fitted[rows]])
    return {"reconstruction": all_items.result(), "reconstruction_fit": fit.result()}


def _keep_for_appends(work: Work, params: CollisionParams, done: Resolution) -> None:
    from safetensors.numpy import save_file

    folder = work.out.folder / "collisions"
    folder.mkdir()
    files.write_json(folder / "policy.json", {"policy": params.policy, "params": dict(params.params)})
    save_file(
        {name: np.ascontiguousarray(array) for name, array in done.state.items()},
        folder / "state.safetensors",
    )


def _sids(items: pa.Table, codes: Codes, done: Resolution, vocabulary: Vocabulary) -> pa.Table:
    keys, tokens = [], []
    for start in range(0, len(codes), ROWS):
        for row in done.sids[start : start + ROWS].tolist():
            sid = row if row[-1] >= 0 else row[:-1]
            keys.append(sid_key(sid))
            tokens.append(vocabulary.tokens(sid))
    n = len(codes)
    suffix = np.full(n, -1) if done.suffix is None else done.suffix
    return pa.table(
        {
            "item_index": items["item_index"],
            "item_id": items["item_id"],
            "codes": codes_column(codes),
            "sid": codes_column(done.sids),
            "sid_key": pa.array(keys, pa.string()),
            "suffix": pa.array(suffix, pa.int32(), mask=suffix < 0),
            "slot": pa.array(done.slots),
            "token_ids": codes_column(vocabulary.token_ids(done.sids)),
            "tokens": pa.array(tokens, pa.list_(pa.string())),
            "text": pa.array(["".join(row) for row in tokens], pa.string()),
        }
    )


def _way_back(sids: Codes, slots: npt.NDArray[np.int32]) -> pa.Table:
    order = np.lexsort([slots, *sids.T[::-1]])
    ordered = sids[order]
    first = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    distinct, counts = ordered[first], np.diff(np.r_[first, len(order)])
    offsets = np.concatenate([first, [len(order)]]).astype(np.int32)
    keys = [sid_key([code for code in row if code >= 0]) for row in distinct.tolist()]
    return pa.table(
        {
            "sid_key": pa.array(keys, pa.string()),
            "sid": codes_column(distinct),
            "item_indexes": pa.ListArray.from_arrays(pa.array(offsets), pa.array(order.astype(np.int32))),
            "n": pa.array(counts.astype(np.int32)),
        }
    )


STAGE = Stage("collisions", revision=4, parents=("clean", "split", "tokenize"), run=run)
