"""Collisions: apply the declared policy, then write the SIDs, the way back, the trie and the vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
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
from sid_tokenizers.collisions.base import Policy
from sid_tokenizers.metrics import ReconstructionTotal, collision_metrics, per_level
from sid_tokenizers.vocabulary import sid_key
from sid_warehouse import files
from sid_warehouse.arrays import codes_column, matrix
from sid_warehouse.db import connect
from sid_warehouse.stages import StageOutput


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
            _categories(work.inputs["clean"]),
            ordered=tokenizer.traits.ordered,
        )
    vocabulary = Vocabulary(done.levels)
    sids = sids_table(table, codes, done, vocabulary)
    work.out.write(SIDS, sids)
    work.out.write(SID_TO_ITEMS, way_back(done.sids, done.slots, sids["sid_key"]))
    write_for_decoding(work, done.sids, vocabulary)
    write_for_appends(work, params.policy, params.params, done)
    facts: dict[str, Any] = {
        **policy_facts(policy),
        "moved": int(done.moved.sum()),
        "duplicate_vectors": done.duplicates,
        **usage(codes, done.sids, fitted, done.levels),
        **_reconstruction(tokenizer, vectors, done, fitted),
        **quality,
    }
    moved, left = facts["moved"], count(facts["after"]["collided_items"], "collision")
    return Outcome(facts, f"{count(len(codes), 'SID')}, {moved} moved by {params.policy}, {left} left")


def _categories(clean: StageOutput) -> list[Path]:
    """Give where the items' categories stand: in a release they are published as `items`."""
    return clean.parts("items" if clean.folder.joinpath("items").exists() else "items_clean")


def policy_facts(policy: Policy) -> dict[str, Any]:
    """Give what a policy is and promises."""
    return {
        "policy": policy.name,
        "params": files.as_json(asdict(policy)),
        "unique": policy.unique,
        "length": policy.length,
        "capacity": getattr(policy, "capacity", None),
    }


def usage(codes: Codes, sids: Codes, fitted: npt.NDArray[np.bool_], levels: Sequence[int]) -> dict[str, Any]:
    """Give collisions before and after, and the use of levels, of all items and of those fitted on."""
    return {
        "before": collision_metrics(codes),
        "after": collision_metrics(sids),
        "before_fit": collision_metrics(codes[fitted]),
        "after_fit": collision_metrics(sids[fitted]),
        "levels": per_level(sids, levels),
        "levels_fit": per_level(sids[fitted], levels),
    }


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


def write_for_decoding(work: Work, sids: Codes, vocabulary: Vocabulary) -> None:
    """Write the trie over all SIDs, and the vocabulary that their tokens are in."""
    Trie.build(sids).save(work.out.folder / "trie.safetensors")
    vocabulary.save(work.out.folder / "vocabulary.json")


def write_for_appends(work: Work, policy: str, params: Mapping[str, Any], done: Resolution) -> None:
    """Write what the next `resolve` must be told."""
    from safetensors.numpy import save_file

    folder = work.out.folder / "collisions"
    folder.mkdir()
    files.write_json(folder / "policy.json", {"policy": policy, "params": dict(params)})
    save_file(
        {name: np.ascontiguousarray(array) for name, array in done.state.items()},
        folder / "state.safetensors",
    )


def sids_table(items: pa.Table, codes: Codes, done: Resolution, vocabulary: Vocabulary) -> pa.Table:
    """Give table `sids` of some items; items: (item_index, item_id)."""
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


def way_back(sids: Codes, slots: npt.NDArray[np.int32], keys: pa.ChunkedArray) -> pa.Table:
    """Give table `sid_to_items` of all items; keys: their sid_key."""
    order = np.lexsort([slots, *sids.T[::-1]])
    ordered = sids[order]
    first = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    distinct, counts = ordered[first], np.diff(np.r_[first, len(order)])
    offsets = np.concatenate([first, [len(order)]]).astype(np.int32)
    return pa.table(
        {
            "sid_key": keys.take(pa.array(order[first])),
            "sid": codes_column(distinct),
            "item_indexes": pa.ListArray.from_arrays(pa.array(offsets), pa.array(order.astype(np.int32))),
            "n": pa.array(counts.astype(np.int32)),
        }
    )


STAGE = Stage("collisions", revision=5, parents=("clean", "split", "tokenize"), run=run)
