"""Assign: IDs for new items by what a release has frozen, in the place of tokenize and collisions.

    release, vectors -> sids, sid_to_items, delta_sids, delta_sid_to_items,
                        soft_sids, docids, item_paths, vectors_<name> where the release has them

Published IDs stand as they are, in the very files of the base; settled.py has how new ones come around them.
drift.py says whether the codebooks still fit what arrives. Roles are those of tokenize.py, and `base`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipelines.based import write_grown
from sid_pipelines.catalogue import catalogue_of
from sid_pipelines.collisions import (
    policy_facts,
    sids_table,
    usage,
    way_back,
    write_for_appends,
    write_for_decoding,
)
from sid_pipelines.contents import TABLES, VECTORS
from sid_pipelines.drift import Limits, drift_of, reasons
from sid_pipelines.identified import identify, write_beside
from sid_pipelines.quality import judge
from sid_pipelines.settled import Published, Settled, settled_codes, settled_ids, settled_nothing
from sid_pipelines.soft import write_soft
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.tokenize import train_popularity
from sid_pipelines.vectors import Stored, StoredVectors, coded_vectors
from sid_schemas import GateRefusedError
from sid_schemas.tables import DELTA_SID_TO_ITEMS, DELTA_SIDS, DOCIDS, named_sids, table_named
from sid_tokenizers import Continuous, Indexer, Tokenizer, load
from sid_tokenizers.collisions import Policy, policy_named
from sid_tokenizers.scheme import Scheme
from sid_warehouse import files, parquet
from sid_warehouse.db import connect

JUDGED = 200  # new items whose neighbours are looked at
FITTED = ("tokenizer.json", "tokenizer.safetensors", "fit.json")


@dataclass(frozen=True)
class AssignParams:
    """What assign depends on beside the base: the policy, as the base declares it, and what drift may be.

    drift: "warn" only recommends retraining, "fail" refuses to publish. name: of the embedding, where several
    are tokenized each on its own; tables are then `sids_<name>`.
    """

    policy: str
    params: Mapping[str, Any]
    drift: str = "warn"
    limits: Limits = field(default_factory=Limits)
    name: str = ""

    @property
    def made(self) -> Policy:
        """Give the policy with its parameters."""
        return policy_named(self.policy, self.params)


def run(work: Work) -> Outcome:
    """Write the IDs of all items, and beside them what is new; `tokenizer/` and the trie too."""
    params: AssignParams = work.params
    published = Published.of(work.inputs["base"], params.name)
    scheme, first = load(published.folder / "tokenizer"), len(published)
    embedded = work.inputs["vectors"]
    items = embedded.read(embedded.facts["name"], ["item_index", "item_id"]).slice(first)
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        new, beside = _settled(work, connection, scheme, published, items)
        drift = _drift(work, scheme, published, new)
        codes, sids = new.all_codes(published), new.all_sids(published)
        fitted = np.arange(len(sids)) < first
        quality = judge(
            sids if scheme.traits.ordered else sids[:, : codes.shape[1]],
            StoredVectors.of(embedded),
            fitted,
            connection,
            work.inputs["split"],
            work.inputs["sequences"].parts("items"),
            ordered=scheme.traits.ordered,
            queries=_judged(first, len(items)),
        )
    _write(work, items, published, new)
    _take_over(published.folder, work.out.folder)
    write_for_appends(work, params.policy, params.params, new.done)
    moved = int(new.done.moved.sum())
    facts = {
        **policy_facts(params.made, scheme, new.vocabulary),
        "moved": moved + published.resolved["moved"],
        "duplicate_vectors": published.resolved["duplicate_vectors"] + new.done.duplicates,
        **usage(codes, sids, fitted, new.done.levels),
        "reconstruction": None,
        "reconstruction_fit": published.resolved["reconstruction_fit"],
        **quality,
        "added": len(items),
        "vocabulary_grew": len(new.vocabulary) - len(published.vocabulary),
        "joined_alone": new.joined,
        "drift": drift,
    }
    advice = "; retraining is recommended" if drift["retrain"] else ""
    of = f" {params.name}" if params.name else ""
    roles = {f"tokenize{of}": {**published.tokenized, **beside}, f"collisions{of}": facts}
    return Outcome(
        {"roles": roles}, f"{count(len(items), 'new SID')}, {moved} moved by {params.policy}{advice}"
    )


def _settled(
    work: Work, connection: duckdb.DuckDBPyConnection, scheme: Scheme, published: Published, items: pa.Table
) -> tuple[Settled, dict[str, Any]]:
    """Give new items their IDs, write what stands beside these, and give the facts that it changes."""
    if not len(items):
        _link_beside(work)
        return settled_nothing(published), {}
    vectors, policy = coded_vectors(work.inputs, stacked=scheme.traits.stacked), work.params.made
    if isinstance(scheme, Tokenizer):
        popularity = None
        if "popularity" in policy.needs:
            popularity = train_popularity(connection, work.inputs["split"], len(vectors))
        new = settled_codes(published, scheme, policy, vectors, popularity, work.progress)
        _write_beside_codes(work, scheme, vectors, items, published, new)
        return new, {}
    assert isinstance(scheme, Indexer | Continuous)
    about = catalogue_of(work, scheme.needs)
    X = vectors.rows(items["item_index"].to_numpy().astype(np.int64))
    found = identify(scheme, X, about, taken=published.sids)
    return settled_ids(published, found), write_beside(work, scheme, items, found, about)


def _write_beside_codes(
    work: Work, tokenizer: Tokenizer, vectors: Stored, items: pa.Table, published: Published, new: Settled
) -> None:
    """Write `soft_sids` and `docids` of new items behind those of the base, where it has them."""
    if work.params.name:
        return
    if soft := published.tokenized.get("soft"):
        write_soft(work, tokenizer, vectors, soft)
    docids = tokenizer.docids(new.done.sids, new.done.levels)
    if docids is not None:
        write_grown(work, DOCIDS, items.append_column("docid", pa.array(docids, pa.string())))


def _link_beside(work: Work) -> None:
    """Take over what lies beside SIDs where no item is new."""
    base = work.inputs["base"]
    for table in () if work.params.name else base.manifest["rows"]:
        if table in TABLES["tokenize"] or table.startswith(VECTORS):
            write_grown(work, table_named(table, pq.read_schema(base.parts(table)[0])), ())


def _drift(work: Work, scheme: Scheme, published: Published, new: Settled) -> dict[str, Any]:
    """Give what tells of drift, and why to retrain; raises GateRefusedError where that is asked for."""
    params: AssignParams = work.params
    drift = drift_of(
        new.codes,
        published.codes,
        files.read_json(published.folder / "tokenizer" / "fit.json").get("occupancy", []),
        error=new.error,
        fitted_error=(published.tokenized.get("reconstruction") or {}).get("fit"),
        pressure_before=published.resolved["before"]["collided_items"] / len(published),
        cold_user_rate=work.inputs["clean"].facts["cold_user_rate"],
        codebooks=isinstance(scheme, Tokenizer),
    )
    why = reasons(drift, params.limits)
    if why and params.drift == "fail":
        raise GateRefusedError(
            f"assign: {'; '.join(why)}; nothing was published. Train codebooks anew with "
            "`sidmill retokenize`, or let it pass with [append] drift = 'warn'"
        )
    return {**drift, "limits": asdict(params.limits), "retrain": why}


def _judged(first: int, n: int) -> npt.NDArray[np.int64]:
    """Give the new items whose neighbours are judged: at most JUDGED, evenly spread."""
    return first + np.unique(np.linspace(0, max(n - 1, 0), min(n, JUDGED)).astype(np.int64))


def _write(work: Work, items: pa.Table, published: Published, new: Settled) -> None:
    """Write the SIDs and the way back, what is new of them apart, the trie and the vocabulary."""
    params: AssignParams = work.params
    sids_schema, back_schema = named_sids(params.name)
    table = sids_table(items, new.codes, new.done, new.vocabulary).cast(sids_schema.arrow())
    write_grown(work, sids_schema, table)
    keys = pa.chunked_array([*published.keys.chunks, *table["sid_key"].chunks])
    slots = np.concatenate([published.slots, new.done.slots]).astype(np.int32)
    sids = new.all_sids(published)
    back = way_back(sids, slots, keys)
    work.out.write(back_schema, back)
    if not params.name:
        work.out.write(DELTA_SIDS, table)
        touched = pc.is_in(back["sid_key"], table["sid_key"].combine_chunks())
        work.out.write(DELTA_SID_TO_ITEMS, back.filter(touched))
    write_for_decoding(work, sids, new.vocabulary)


def _take_over(fitted: Path, out: Path) -> None:
    """Take the fitted scheme over, file by file."""
    (out / "tokenizer").mkdir()
    for name in FITTED:
        parquet.link(fitted / "tokenizer" / name, out / "tokenizer" / name)


STAGE = Stage("assign", revision=4, parents=("base", "clean", "split", "sequences"), run=run)
