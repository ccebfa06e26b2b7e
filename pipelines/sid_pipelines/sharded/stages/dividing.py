"""Divide raw interactions by ranges of users: which items there are, where ranges begin, each bucket's rows.

    slices -> survey -> number (ALL) -> divide -> a bucket's rows, as one file of each shard

The first steps of clean.py. A row travels once, without its item's id, which a number stands for. Where a
user goes, PREFIX bytes of the id decide, behind what all ids begin with; users equal in these stay together.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.buckets import parted
from sid_pipelines.clean import CleanParams, ItemRule, item_rules
from sid_pipelines.rows import CARRIED, number_ids
from sid_pipelines.sharded.job import ALL, Task
from sid_pipelines.sharded.passing import named, pass_on, read_table, send, send_table
from sid_pipelines.sharded.shards import numbered
from sid_pipelines.sharded.slices import Slice, read
from sid_warehouse.db import view

SAMPLED = 1024  # users of a shard that say where buckets begin
PREFIX = 64  # bytes of a user's id, behind what all ids begin with, that decide on the bucket
ITEMS, USERS, RULES, FIRSTS, COMMON = "items", "users", "rules", "firsts", "common"
WORDS = ("event_type", "source_file")  # few, so dictionaries


@dataclass(frozen=True)
class Division:
    """What the steps are told. slices: of raw_interactions, by shard. catalogue: parts of raw_items."""

    clean: CleanParams
    slices: Mapping[str, tuple[Slice, ...]]
    catalogue: tuple[Path, ...]
    buckets: int


def survey(task: Task) -> Mapping[str, Any]:
    """List a shard's items, and some of its users: the first, the last, and some between."""
    division: Division = task.params
    table = pa.Table.from_batches(read(division.slices[task.key], ["user_id", "item_id"], ["item_id"]))
    items = pc.unique(table["item_id"].unify_dictionaries()).dictionary
    places = np.unique(np.linspace(0, len(table) - 1, SAMPLED).astype(np.int64))
    send_table(task, {ALL: f"{ITEMS}-{task.key}"}, pa.table({"item_id": items}))
    users = table["user_id"].take(pa.array(places)).to_pylist()
    users += pc.min_max(table["user_id"]).as_py().values()
    send_table(task, {ALL: f"{USERS}-{task.key}"}, pa.table({"user_id": pa.array(users, pa.string())}))
    return {}


def number(task: Task) -> Mapping[str, Any]:
    """Number all items in byte order of their ids, judge them by the catalogue, say where buckets begin."""
    division: Division = task.params
    refs = named(task)
    shards = list(division.slices)
    sampled = pa.concat_tables([read_table(refs[f"{USERS}-{shard}"]) for shard in shards])["user_id"]
    ends = pc.min_max(sampled).as_py().values()
    common = len(os.path.commonprefix([one.encode() for one in ends]))  # noqa: RUF071 (of bytes)
    users = np.sort(prefixes(sampled, common))
    firsts = np.unique(users[np.arange(1, division.buckets) * len(users) // division.buckets])
    with task.connect() as connection:
        view(connection, "described", division.catalogue)
        # One shard's list is read after the other; what is in memory are the ids that differ.
        listed = (batch for shard in shards for batch in read_table(refs[f"{ITEMS}-{shard}"]).to_batches())
        schema = pa.schema([("item_id", pa.string())])
        connection.register("listed", pa.RecordBatchReader.from_batches(schema, listed))
        number_ids(connection, "item", "listed")
        rules = item_rules(connection, division.clean)
        ids = connection.sql("from item_ids order by number").to_arrow_table()
    send_table(task, dict.fromkeys((*shards, ALL), ITEMS), ids)
    send_table(task, {shards[0]: RULES}, _rules_table(rules))
    # Every bucket has a user: the one it begins with; the first has one that is before all others.
    send(task, dict.fromkeys(shards, FIRSTS), firsts[firsts > users[0]])
    send(task, dict.fromkeys(shards, COMMON), np.array(common))
    return {"items": len(ids)}


def divide(task: Task) -> Mapping[str, Any]:
    """Send each bucket its rows of a shard."""
    if task.key == ALL:
        return pass_on(task)
    division: Division = task.params
    refs, columns = named(task), ["user_id", "item_id", *CARRIED]
    firsts, common = np.load(refs[FIRSTS]), int(np.load(refs[COMMON]))
    batches = read(division.slices[task.key], columns, ["item_id", *WORDS])
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    ids = read_table(refs[ITEMS])
    pieces: dict[int, list[pa.RecordBatch]] = {}
    for batch in table.to_batches():
        bucket = np.searchsorted(firsts, prefixes(batch["user_id"], common), side="right")
        renamed = batch.set_column(1, "item_index", _numbers(batch["item_id"], ids))
        for place, rows in parted(renamed, bucket):
            pieces.setdefault(place, []).append(rows)
    for place, batches_of in sorted(pieces.items()):
        key = numbered(place)
        send_table(task, {key: task.key}, pa.Table.from_batches(batches_of), file=key)
    if RULES in refs:
        for place in range(len(firsts) + 1):
            task.emit(numbered(place), refs[RULES], name=RULES)
    return {"rows": len(table)}


def prefixes(ids: pa.ChunkedArray | pa.Array, common: int) -> npt.NDArray[np.bytes_]:
    """Give PREFIX bytes of each id, in an array that sorts as ids do where they differ in these.

    common: how many bytes come before, which all ids have in common.
    """
    if isinstance(ids, pa.ChunkedArray):
        chunks = [prefixes(chunk, common) for chunk in ids.chunks]
        return np.concatenate([np.empty(0, f"S{PREFIX}"), *chunks])
    anything = pc.CastOptions(pa.string(), allow_invalid_utf8=True)  # a letter may be cut in two
    short = pc.cast(pc.binary_slice(pc.cast(ids, pa.binary()), common, common + PREFIX), options=anything)
    filled = pc.ascii_rpad(short, width=PREFIX, padding="\0")
    return np.frombuffer(filled.buffers()[2], f"S{PREFIX}", count=len(ids), offset=PREFIX * filled.offset)


def _numbers(of_rows: pa.DictionaryArray, ids: pa.Table) -> pa.Array:
    """Give each row's item as its number; ids: all items and their numbers."""
    places = pc.index_in(ids["item_id"], value_set=of_rows.dictionary)
    here = pc.is_valid(places)
    known = np.empty(len(of_rows.dictionary), dtype=np.int32)
    known[places.filter(here).to_numpy()] = ids["number"].filter(here).to_numpy()
    return pa.array(known[of_rows.indices.to_numpy()])


def _rules_table(rules: Sequence[ItemRule]) -> pa.Table:
    """Give the rules as a table: a column for each, its reason beside its name."""
    fields = [pa.field(rule.step, pa.bool_(), metadata={"reason": rule.reason}) for rule in rules]
    return pa.Table.from_arrays([pa.array(rule.ok) for rule in rules], schema=pa.schema(fields))


def rules_of(table: pa.Table) -> list[ItemRule]:
    """Give the rules that a table holds."""
    return [
        ItemRule(field.name, field.metadata[b"reason"].decode(), column.to_numpy())
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
