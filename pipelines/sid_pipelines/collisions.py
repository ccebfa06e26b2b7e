"""Collisions: apply the declared policy, then write the SIDs, the way back, the trie and the vocabulary."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.identified import vocabulary_of
from sid_pipelines.quality import judge
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.tokenize import train_popularity
from sid_pipelines.vectors import ROWS, StoredVectors, coded_vectors
from sid_schemas.tables import DOCIDS, named_sids
from sid_tokenizers import Continuous, Indexer, Tokenizer, Trie, Vocabulary, load, resolve
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.collisions import Resolution, policy_named
from sid_tokenizers.collisions.base import Policy
from sid_tokenizers.metrics import ReconstructionTotal, collision_metrics, per_level
from sid_tokenizers.scheme import Scheme
from sid_tokenizers.vocabulary import sid_key
from sid_warehouse import files, parquet
from sid_warehouse.arrays import codes_column, matrix, padded_matrix
from sid_warehouse.db import connect
from sid_warehouse.stages import StageOutput

Errors = tuple[ReconstructionTotal, ReconstructionTotal]  # of a block: over all items, over those fitted on


@dataclass(frozen=True)
class CollisionParams:
    """What collisions depends on: the policy and its own parameters.

    name: of the embedding, where several are tokenized each on its own; tables are then `sids_<name>`.
    """

    policy: str
    params: Mapping[str, Any]
    name: str = ""


def run(work: Work) -> Outcome:
    """Write `sids`, `sid_to_items`, `trie.safetensors`, `vocabulary.json` and what an append will need.

    The IDs of a scheme that gives every item one of its own stay as they are.
    """
    coded = work.inputs["tokenize"]
    table = coded.read("codes")
    fitted = table["fitted"].to_numpy()
    scheme = load(coded.folder / "tokenizer")
    policy = policy_named(work.params.policy, work.params.params)
    cost = reconstruction_cost(())
    if isinstance(scheme, Tokenizer):
        codes = matrix(table["codes"]).astype(np.int32, copy=False)
        vectors = coded_vectors(work.inputs, stacked=scheme.traits.stacked)
        # Rows are items in byte order of their ids, so that ties need no further rule.
        popularity = popularity_of(work, len(codes))
        done = resolve(codes, vectors.rows, scheme, policy=policy, popularity=popularity)
        vocabulary = Vocabulary(done.levels)
        if scheme.reconstructs:
            cost = reconstruction_cost(errors_of(scheme, vectors.blocks(), done.sids, fitted))
    else:
        codes, vocabulary = _identified(scheme, table)
        done = as_they_are(codes, vocabulary, coded.facts["duplicate_vectors"])
    work.out.write(named_sids(work.params.name)[0], sids_table(table, codes, done, vocabulary))
    return finished(work, scheme, codes, fitted, done, vocabulary, cost)


def finished(
    work: Work,
    scheme: Scheme,
    codes: Codes,
    fitted: npt.NDArray[np.bool_],
    done: Resolution,
    vocabulary: Vocabulary,
    cost: Mapping[str, Any],
) -> Outcome:
    """Write what follows from the SIDs, whose table is there already, judge them, and give all facts."""
    params: CollisionParams = work.params
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        quality = judge(
            # Without order a digit that says nothing of likeness must not count as a code shared.
            done.sids if scheme.traits.ordered else done.sids[:, : codes.shape[1]],
            StoredVectors.of(work.inputs["vectors"]),
            fitted,
            connection,
            work.inputs["split"],
            _categories(work.inputs["clean"]),
            ordered=scheme.traits.ordered,
        )
    sids_schema, back_schema = named_sids(params.name)
    keys = parquet.read(work.out.folder, sids_schema.name, ["sid_key"])["sid_key"]
    work.out.write(back_schema, way_back(done.sids, done.slots, keys))
    docids = scheme.docids(done.sids, done.levels) if isinstance(scheme, Tokenizer) else None
    if docids is not None and not params.name:
        items = work.inputs["tokenize"].read("codes", ["item_index", "item_id"])
        work.out.write(DOCIDS, items.append_column("docid", pa.array(docids, pa.string())))
    write_for_decoding(work, done.sids, vocabulary)
    write_for_appends(work, params.policy, params.params, done)
    facts: dict[str, Any] = {
        **policy_facts(policy_named(params.policy, params.params), scheme, vocabulary),
        "moved": int(done.moved.sum()),
        "duplicate_vectors": done.duplicates,
        **usage(codes, done.sids, fitted, done.levels),
        **cost,
        **quality,
    }
    moved, left = facts["moved"], count(facts["after"]["collided_items"], "collision")
    return Outcome(facts, f"{count(len(codes), 'SID')}, {moved} moved by {params.policy}, {left} left")


def popularity_of(work: Work, n: int) -> npt.NDArray[np.int64]:
    """Give how many train events each of n items has: (n,) int64."""
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        return train_popularity(connection, work.inputs["split"], n)


def _identified(scheme: Scheme, table: pa.Table) -> tuple[Codes, Vocabulary]:
    """Give the IDs of a scheme that leaves nothing to resolve, and the vocabulary they are in."""
    assert isinstance(scheme, Indexer | Continuous)
    longest = int(pc.max(pc.list_value_length(table["codes"])).as_py())
    codes = padded_matrix(table["codes"], longest, -1)
    return codes, vocabulary_of(scheme, codes)


def as_they_are(codes: Codes, vocabulary: Vocabulary, duplicates: int) -> Resolution:
    """Give IDs of which each is one item's as what came of resolving them."""
    none = np.zeros(len(codes), dtype=np.int32)
    return Resolution(codes, none, none.astype(bool), None, vocabulary.sizes, {}, duplicates)


def _categories(clean: StageOutput) -> list[Path]:
    """Give where the items' categories stand: in a release they are published as `items`."""
    return clean.parts("items" if clean.folder.joinpath("items").exists() else "items_clean")


def policy_facts(policy: Policy, scheme: Scheme, vocabulary: Vocabulary) -> dict[str, Any]:
    """Give what a policy is, and what IDs of a scheme are under it."""
    return {
        "policy": policy.name,
        "params": files.as_json(asdict(policy)),
        "unique": policy.unique or scheme.traits.unique,
        "length": "varies" if vocabulary.places else policy.length,
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


def errors_of(
    tokenizer: Tokenizer,
    blocks: Iterable[tuple[int, Vectors]],
    sids: Codes,
    fitted: npt.NDArray[np.bool_],
) -> Iterator[Errors]:
    """Give the error of the final codes, block by block of (first item, vectors): what resolution cost.

    sids: (n, W) and fitted: (n,) of all items. Gives that of all items, and of those fitted on.
    """
    length = len(tokenizer.levels)
    for start, X in blocks:
        rows = slice(start, start + len(X))
        decoded = tokenizer.decode(sids[rows, :length])
        every, fit = ReconstructionTotal(), ReconstructionTotal()
        every.add(X, decoded)
        fit.add(X[fitted[rows]], decoded[fitted[rows]])
        yield every, fit


def reconstruction_cost(blocks: Iterable[Errors]) -> dict[str, dict[str, float] | None]:
    """Give the error over all items and over those fitted on from that of blocks, added up in their order."""
    all_items, fit = ReconstructionTotal(), ReconstructionTotal()
    for every, inside in blocks:
        all_items.join(every)
        fit.join(inside)
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
            sid = row if row[-1] >= 0 else [code for code in row if code >= 0]
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


STAGE = Stage("collisions", revision=8, parents=("clean", "split", "tokenize"), run=run)
