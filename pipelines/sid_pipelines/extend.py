"""Extend: what a new dump adds to a release, in the place of clean and split.

    release, raw_interactions -> users, items_clean (new ones only), interactions, waiting

admission.py says which events come in. A user's new events stand behind those that are published, so no
history changes. How they are labelled is declared: "frozen" keeps every published label and lets events train
where the protocol forbids nothing, else they are context; "train" lets all of them train, and what that leaks
is counted; "protocol" labels all events anew, so that the test set moves on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.admission import Admission
from sid_pipelines.audit import Audit
from sid_pipelines.chunks import CONTEXT, TEST, TRAIN, VALID, Chunk, Labels, Mask, chunks
from sid_pipelines.clean import CleanParams
from sid_pipelines.order import Events
from sid_pipelines.protocols import Labelling, Protocol, protocol_named
from sid_pipelines.split import SplitParams
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas.tables import (
    EVENTS,
    INTERACTIONS,
    ITEMS_CLEAN,
    RAW_ITEMS,
    SPLIT_NAMES,
    USERS,
    WAITING,
    WAITING_ITEMS,
)
from sid_warehouse import parquet
from sid_warehouse.db import connect, scan
from sid_warehouse.stages import StageOutput

OWN_HELD_OUT = {"train_after_own_held_out", "train_of_held_out_users"}


@dataclass(frozen=True)
class ExtendParams(SplitParams):
    """What extend depends on: the split and cleaning of the base, and how its dump is to be taken.

    dump: "delta", only new rows, or "snapshot", everything again under the same ids. rule: "frozen", "train"
    or "protocol". min_snapshot_overlap: the share of published events that a snapshot must have.
    """

    clean: CleanParams
    dump: str
    rule: str
    min_snapshot_overlap: float


def run(work: Work) -> Outcome:
    """Write `users` and `interactions` of all, `items_clean` of new items, and what waits."""
    params: ExtendParams = work.params
    base = work.inputs["base"]
    protocol = protocol_named(params.protocol, params.params)
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        admission = Admission(
            connection,
            base,
            work.inputs["ingest"],
            work.inputs.get("earlier"),
            "snapshot" if params.dump == "snapshot" else "delta",
            params.clean,
            protocol.sessions[1] if protocol.sessions else None,
        )
        admission.run(params.min_snapshot_overlap)
        work.out.extend(USERS, base.parts("users"), _rows(connection, "new_users order by user_index"))
        new_items = work.out.write(ITEMS_CLEAN, _rows(connection, "new_items order by item_index"))
        waiting = _write_waiting(work, connection)
        added = admission.ledger[-1]["interactions"]
        if added or params.rule == "protocol":
            facts = _write_interactions(work, connection, protocol)
        else:
            work.out.extend(INTERACTIONS, base.parts("interactions"))
            facts = {**base.facts["split"], "unchanged": True}
    new_users = work.out.rows["users"] - base.manifest["rows"]["users"]
    cleaned = {
        "ledger": admission.ledger,
        "dump": params.dump,
        "added": {"interactions": added, "users": new_users, "items": new_items},
        "waiting": waiting,
        **admission.facts,
    }
    roles = {"clean": cleaned, "split": facts | {"rule": params.rule}}
    said = [count(added, "new interaction"), count(new_users, "new user"), count(new_items, "new item")]
    return Outcome({"roles": roles}, f"{', '.join(said)}; {count(waiting, 'event')} wait")


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    yield from connection.sql(f"from {query}").to_arrow_reader()


def _write_waiting(work: Work, connection: duckdb.DuckDBPyConnection) -> int:
    """Write what an append after this one may admit; bytes must not depend on threads, so it is ordered."""
    columns = ", ".join(WAITING.names)
    order = "source_file, source_row, user_id, item_id"
    waiting = work.out.write(
        WAITING, connection.sql(f"select {columns} from waiting order by {order}").to_arrow_reader()
    )
    items = connection.sql(f"""
        select {", ".join(RAW_ITEMS.names)} from described
        anti join items using (item_id) anti join new_items using (item_id) order by item_id""")
    work.out.write(WAITING_ITEMS, items.to_arrow_reader())
    return waiting


def _write_interactions(
    work: Work, connection: duckdb.DuckDBPyConnection, protocol: Protocol
) -> dict[str, Any]:
    """Write all events in the declared order with their labels, and give the facts of the split."""
    params: ExtendParams = work.params
    base = work.inputs["base"]
    events = _events(work, connection)
    merged: Iterator[tuple[Chunk, Mask]] = _merged(base.parts("interactions"), events)
    kept: Mapping[str, Any] = {
        name: value for name, value in base.facts["split"].items() if name in ("cuts", "users", "items")
    }
    n_items = len(events.item_ids)
    if params.rule == "protocol":
        path = _spilled(work, merged)
        everything = Events(connection, [path], events.user_ids, events.item_ids, params.ties, params.seed)
        connection.execute(f"""
            create temp view events as from {scan([path])};
            create temp view items_clean as
                select item_index, item_id from items union all select item_index, item_id from new_items;
            drop view users;
            create temp view users as from {scan(parquet.parts(work.out.folder, "users"))}""")
        labelling = protocol.prepare(everything)
        merged = ((chunk, np.ones(len(chunk), dtype=bool)) for chunk in chunks([path]))
        labels_of = _anew(protocol, labelling, everything)
        kept = labelling.facts
    else:
        held_items = _held_out_items(base, n_items) if "train_of_held_out_items" in protocol.forbids else None
        labels_of = _Kept(protocol, kept.get("cuts"), held_items, all_train=params.rule == "train")
    kept = {**kept, "relaxed": params.rule == "train"}
    audit = Audit(protocol, kept, n_items)

    def labelled() -> Iterator[pa.RecordBatch]:
        for chunk, published in merged:
            labels = labels_of(chunk, published)
            audit.add(chunk, labels)
            split = pa.DictionaryArray.from_arrays(pa.array(labels, pa.int8()), pa.array(SPLIT_NAMES))
            table = chunk.table.select(EVENTS.names).append_column("split", split)
            yield from table.to_batches()

    work.out.write(INTERACTIONS, labelled())
    return {"protocol": params.protocol, "ties": params.ties, **kept, "audit": audit.result()}


def _events(work: Work, connection: duckdb.DuckDBPyConnection) -> Events:
    """Give the admitted events as clean would have written them, and all ids by number."""
    params: ExtendParams = work.params
    work.out.spill.mkdir(parents=True, exist_ok=True)
    path = work.out.spill / "admitted.parquet"
    columns = ["u as user_index", "i as item_index", *EVENTS.names[2:]]
    admitted = connection.sql(f"""
        select {", ".join(columns)} from candidates
        order by user_index, ts, source_file, source_row, n""")
    with pq.ParquetWriter(path, EVENTS.arrow()) as writer:
        for batch in admitted.to_arrow_reader():
            writer.write_table(pa.Table.from_batches([batch]).cast(EVENTS.arrow()))
    user_ids, item_ids = _ids(connection, "user"), _ids(connection, "item")
    return Events(connection, [path], user_ids, item_ids, params.ties, params.seed)


def _ids(connection: duckdb.DuckDBPyConnection, of: str) -> pa.Array:
    found = connection.sql(f"""
        select {of}_id from (
            select {of}_index, {of}_id from {of}s union all select {of}_index, {of}_id from new_{of}s)
        order by {of}_index""")
    return found.to_arrow_table()[f"{of}_id"].combine_chunks()


def _merged(published: list[Path], added: Events) -> Iterator[tuple[Chunk, Mask]]:
    """Yield whole users' events, published ones first, and which those are."""
    waiting = _Cursor(added)
    for chunk in chunks(published):
        new = waiting.up_to(int(chunk.users[-1]))
        if new is None:
            yield chunk, np.ones(len(chunk), dtype=bool)
            continue
        table = pa.concat_tables([_plain(chunk.table), _plain(new)])
        users = table["user_index"].to_numpy()
        order = np.argsort(users, kind="stable")
        yield Chunk(table.take(pa.array(order)).combine_chunks()), order < len(chunk)
    for chunk in waiting.rest():
        yield chunk, np.zeros(len(chunk), dtype=bool)


def _plain(table: pa.Table) -> pa.Table:
    """Give a table in the schema of interactions; what has no label yet gets one that is never read."""
    if "split" not in table.column_names:
        table = table.append_column("split", pa.array(["train"] * len(table), pa.string()))
    return table.select(INTERACTIONS.names).cast(INTERACTIONS.arrow())


class _Cursor:
    """The admitted events in the declared order, taken user by user."""

    def __init__(self, added: Events) -> None:
        self._chunks = (added.order(chunk) for chunk in added.stored())
        self._held: Chunk | None = next(self._chunks, None)

    def up_to(self, user: int) -> pa.Table | None:
        """Give all events of users not after one, or None."""
        taken = []
        while self._held is not None:
            stop = int(np.searchsorted(self._held.users, user, side="right"))
            if stop:
                taken.append(self._held.table.slice(0, stop))
            if stop < len(self._held):
                self._held = Chunk(self._held.table.slice(stop)) if stop else self._held
                break
            self._held = next(self._chunks, None)
        return pa.concat_tables(taken) if taken else None

    def rest(self) -> Iterator[Chunk]:
        """Give what is left, chunk by chunk."""
        while self._held is not None:
            yield Chunk(_plain(self._held.table))
            self._held = next(self._chunks, None)


def _spilled(work: Work, merged: Iterator[tuple[Chunk, Mask]]) -> Path:
    path = work.out.spill / "merged.parquet"
    with pq.ParquetWriter(path, EVENTS.arrow()) as writer:
        for chunk, _ in merged:
            writer.write_table(chunk.table.select(EVENTS.names).cast(EVENTS.arrow()))
    return path


def _anew(protocol: Protocol, labelling: Labelling, events: Events) -> Any:
    return lambda chunk, published: protocol.label(chunk, labelling, events)


@dataclass(frozen=True)
class _Kept:
    """Labels that are published stay. cuts: of a split by global time. held_items: held out whole."""

    protocol: Protocol
    cuts: list[int] | None
    held_items: Mask | None
    all_train: bool

    def __call__(self, chunk: Chunk, published: Mask) -> Labels:
        labels: Labels = np.where(published, chunk.labels, TRAIN).astype(np.int8)
        if self.all_train:
            return labels
        forbidden = np.zeros(len(chunk), dtype=bool)
        if OWN_HELD_OUT & set(self.protocol.forbids):
            held = chunk.any_of_user(published & ((labels == VALID) | (labels == TEST)))
            forbidden |= chunk.spread(held)
        if self.cuts:
            forbidden |= chunk.ts >= self.cuts[0]
        if self.held_items is not None:
            forbidden |= self.held_items[chunk.items]
        labels[~published & forbidden] = CONTEXT
        return labels


def _held_out_items(base: StageOutput, n_items: int) -> Mask:
    held = np.zeros(n_items, dtype=bool)
    for chunk in chunks(base.parts("interactions"), ["user_index", "item_index", "split"]):
        held[chunk.items[(chunk.labels == VALID) | (chunk.labels == TEST)]] = True
    return held


STAGE = Stage("extend", revision=4, parents=("base", "ingest"), run=run)
