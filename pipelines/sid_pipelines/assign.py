"""Assign: SIDs for new items by a release's frozen codebooks, in the place of tokenize and collisions.

    release, vectors -> sids, sid_to_items, delta_sids, delta_sid_to_items

Published SIDs stand as they are, in the very files of the base; new items are settled around them by the same
policy. drift.py says whether the codebooks still fit what arrives.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.based import base_rows
from sid_pipelines.collisions import (
    policy_facts,
    sids_table,
    usage,
    way_back,
    write_for_appends,
    write_for_decoding,
)
from sid_pipelines.drift import Limits, occupancy_drift, pressure, reasons
from sid_pipelines.quality import judge
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.tokenize import train_popularity
from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError, GateRefusedError
from sid_schemas.tables import DELTA_SID_TO_ITEMS, DELTA_SIDS, SID_TO_ITEMS, SIDS
from sid_tokenizers import Tokenizer, Vocabulary, load, resolve
from sid_tokenizers.base import Codes
from sid_tokenizers.collisions import Policy, Resolution, group_sizes, policy_named
from sid_tokenizers.metrics import ReconstructionTotal
from sid_warehouse import files, parquet
from sid_warehouse.arrays import matrix, padded_matrix
from sid_warehouse.believed import believed
from sid_warehouse.db import connect
from sid_warehouse.stages import StageOutput

JUDGED = 200  # new items whose neighbours are looked at
FITTED = ("tokenizer.json", "tokenizer.safetensors", "fit.json")
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class AssignParams:
    """What assign depends on beside the base: the policy, as the base declares it, and what drift may be.

    drift: "warn" only recommends retraining, "fail" refuses to publish.
    """

    policy: str
    params: Mapping[str, Any]
    drift: str = "warn"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Published:
    """The SIDs of a release. codes: (n, L); sids: (n, W), -1 where there is no digit; slots, keys: (n,)."""

    codes: Codes
    sids: Codes
    slots: npt.NDArray[np.int32]
    keys: pa.ChunkedArray
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, base: StageOutput) -> "Published":
        """Read them."""
        vocabulary = Vocabulary.load(base.folder / "vocabulary.json")
        table = base.read("sids", ["codes", "sid", "slot", "sid_key"])
        return cls(
            matrix(table["codes"]).astype(np.int32, copy=False),
            padded_matrix(table["sid"], len(vocabulary.levels), -1),
            table["slot"].to_numpy(),
            table["sid_key"],
            vocabulary.offsets,
        )


def run(work: Work) -> Outcome:
    """Write the SIDs of all items, and beside them what is new; `tokenizer/` and the trie too."""
    params: AssignParams = work.params
    base, first = work.inputs["base"], base_rows(work, "sids")
    vectors = StoredVectors.of(work.inputs["vectors"])
    tokenizer = load(base.folder / "tokenizer")
    policy = policy_named(params.policy, params.params)
    published = Published.of(base)
    total = ReconstructionTotal()
    codes = _encode(work, tokenizer, vectors, first, total)
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        popularity = None
        if "popularity" in policy.needs:
            popularity = train_popularity(connection, work.inputs["split"], first + len(codes))
        joined = _joined_alone(published, codes, policy)
        done = _settle(base, tokenizer, policy, published, codes, joined, vectors, popularity)
        drift = _drift(work, published, codes, total)
        why = reasons(drift, params.limits)
        if why and params.drift == "fail":
            raise GateRefusedError(
                f"assign: {'; '.join(why)}; nothing was published. Train codebooks anew with "
                "`sidmill retokenize`, or let it pass with [append] drift = 'warn'"
            )
        sids = np.concatenate([published.sids, done.sids])
        quality = judge(
            sids if tokenizer.traits.ordered else sids[:, : codes.shape[1]],
            vectors,
            np.arange(len(sids)) < first,
            connection,
            work.inputs["split"],
            work.inputs["sequences"].parts("items"),
            ordered=tokenizer.traits.ordered,
            queries=_judged(first, len(codes)),
        )
    grown = _write(work, base, published, codes, done, sids)
    _take_over(base.folder, work.out.folder)
    write_for_appends(work, params.policy, params.params, done)
    facts = {
        **policy_facts(policy),
        "moved": int(done.moved.sum()) + base.facts["collisions"]["moved"],
        "duplicate_vectors": base.facts["collisions"]["duplicate_vectors"] + done.duplicates,
        **usage(np.concatenate([published.codes, codes]), sids, np.arange(len(sids)) < first, done.levels),
        "reconstruction": None,
        "reconstruction_fit": base.facts["collisions"]["reconstruction_fit"],
        **quality,
        "added": len(codes),
        "vocabulary_grew": grown,
        "joined_alone": joined,
        "drift": {**drift, "limits": asdict(params.limits), "retrain": why},
    }
    moved = int(done.moved.sum())
    advice = "; retraining is recommended" if why else ""
    roles = {"tokenize": base.facts["tokenizer"], "collisions": facts}
    return Outcome(
        {"roles": roles}, f"{count(len(codes), 'new SID')}, {moved} moved by {params.policy}{advice}"
    )


def _encode(
    work: Work, tokenizer: Tokenizer, vectors: StoredVectors, first: int, total: ReconstructionTotal
) -> Codes:
    """Give the codes of the items from `first` on: (n, L)."""
    n, step = len(vectors), 65_536
    codes = np.empty((n - first, len(tokenizer.levels)), dtype=np.int32)
    for start in range(first, n, step):
        rows = np.arange(start, min(start + step, n))
        X = vectors.rows(rows)
        made = codes[rows - first] = tokenizer.encode(X)
        if tokenizer.reconstructs:
            total.add(X, tokenizer.decode(made))
        work.progress(int(rows[-1]) + 1 - first, n - first)
    return codes


def _settle(
    base: StageOutput,
    tokenizer: Tokenizer,
    policy: Policy,
    published: Published,
    codes: Codes,
    joined: int,
    vectors: StoredVectors,
    popularity: npt.NDArray[np.int64] | None,
) -> Resolution:
    from safetensors.numpy import load_file

    first = len(published.codes)
    with believed(base.folder):
        state = load_file(base.folder / "collisions" / "state.safetensors")
    if not len(codes):
        levels = Vocabulary.load(base.folder / "vocabulary.json").levels
        empty = np.empty(0, dtype=np.int32)
        nothing = np.empty((0, len(levels)), dtype=np.int32)
        return Resolution(nothing, empty, empty.astype(bool), empty, levels, state, 0)
    if joined and policy.length == "L or L+1":
        raise DataError(
            f"assign: {count(joined, 'published SID')} without a suffix would begin those of new items with "
            f"the same codes, and {policy.name} may not give published items one. Build anew with "
            "[collisions] policy = 'suffix' or 'next-nearest', which take new items, or `sidmill retokenize`"
        )
    done = resolve(
        codes,
        lambda rows: vectors.rows(rows + first),
        tokenizer,
        policy=policy,
        popularity=None if popularity is None else popularity[first:],
        taken=published.sids,
        state=state,
    )
    if Vocabulary(done.levels).offsets != published.offsets:
        raise AssertionError(f"assign: token ids would move: {published.offsets} to {done.levels}")
    return done


def _joined_alone(published: Published, codes: Codes, policy: Policy) -> int:
    """Give how many published items stood alone under their codes, and no longer do.

    Where the last digit says "alone", as GRID's 0 does, it is no longer true of them; exports that
    promise it must refuse.
    """
    if not policy.adds or not len(codes):
        return 0
    prefixes = published.sids[:, : codes.shape[1]]
    _, before = group_sizes(prefixes)
    _, after = group_sizes(np.concatenate([prefixes, codes]))
    return int(((before == 1) & (after[: len(prefixes)] > 1)).sum())


def _drift(work: Work, published: Published, codes: Codes, total: ReconstructionTotal) -> dict[str, Any]:
    base = work.inputs["base"]
    fit = files.read_json(base.folder / "tokenizer" / "fit.json")
    found: dict[str, Any] = {
        "items": len(codes),
        "levels": occupancy_drift(codes, fit["occupancy"]) if len(codes) and "occupancy" in fit else [],
        "pressure": pressure(codes, published.codes),
        "pressure_before": base.facts["collisions"]["before"]["collided_items"] / len(published.codes),
        "cold_user_rate": work.inputs["clean"].facts["cold_user_rate"],
        "reconstruction": total.result(),
        "error_ratio": None,
    }
    fitted = (base.facts["tokenizer"].get("reconstruction") or {}).get("fit")
    if found["reconstruction"] and fitted and fitted["relative_error"] > 0:
        found["error_ratio"] = found["reconstruction"]["relative_error"] / fitted["relative_error"]
    return found


def _judged(first: int, n: int) -> npt.NDArray[np.int64]:
    """Give the new items whose neighbours are judged: at most JUDGED, evenly spread."""
    return first + np.unique(np.linspace(0, max(n - 1, 0), min(n, JUDGED)).astype(np.int64))


def _write(
    work: Work, base: StageOutput, published: Published, codes: Codes, done: Resolution, sids: Codes
) -> int:
    """Write the four tables, the trie and the vocabulary; give by how many tokens the vocabulary grew."""
    vocabulary = Vocabulary(done.levels)
    embedded = work.inputs["vectors"]
    items = embedded.read(embedded.facts["name"], ["item_index", "item_id"]).slice(len(published.codes))
    new = sids_table(items, codes, done, vocabulary).cast(SIDS.arrow())
    work.out.extend(SIDS, base.parts("sids"), new)
    work.out.write(DELTA_SIDS, new)
    keys = pa.chunked_array([*published.keys.chunks, *new["sid_key"].chunks])
    slots = np.concatenate([published.slots, done.slots]).astype(np.int32)
    back = way_back(sids, slots, keys)
    work.out.write(SID_TO_ITEMS, back)
    touched = pc.is_in(back["sid_key"], new["sid_key"].combine_chunks())
    work.out.write(DELTA_SID_TO_ITEMS, back.filter(touched))
    write_for_decoding(work, sids, vocabulary)
    return len(vocabulary) - len(Vocabulary.load(base.folder / "vocabulary.json"))


def _take_over(base: Path, out: Path) -> None:
    """Take the fitted tokenizer over, file by file."""
    (out / "tokenizer").mkdir()
    for name in FITTED:
        parquet.link(base / "tokenizer" / name, out / "tokenizer" / name)


STAGE = Stage("assign", revision=1, parents=("base", "clean", "split", "sequences"), run=run)
