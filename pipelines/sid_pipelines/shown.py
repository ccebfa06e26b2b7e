"""Impressions, where the source has them, under our own numbers and with their split.

Lists stream through in batches and are sorted by user bucket by bucket, then walked along with the
interactions, so memory grows with users and items, not with lists.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipelines.audit import Finding, finding
from sid_pipelines.based import base_rows
from sid_pipelines.buckets import bounds, divided
from sid_pipelines.chunks import CONTEXT, TEST, TRAIN, VALID, Chunk, Labels, Mask, Rows, chunks
from sid_pipelines.stage import Work
from sid_schemas.tables import IMPRESSIONS, SPLIT_NAMES
from sid_warehouse.db import view

LISTED = ("items", "clicked", "positions", "propensities")
BATCH = 1 << 13  # lists read at a time
SHOWN = 2 << 20  # items shown that are sorted in memory at a time
HELD_BACK = np.array([TRAIN, CONTEXT, VALID, TEST])  # labels, the most held-out last
STRICTNESS = np.argsort(HELD_BACK)
EVENTS = ["user_index", "item_index", "ts", "split"]


@dataclass(frozen=True)
class Shown:
    """What was written: how many lists and shown items were left out, and what the audit found."""

    left_out: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def listed(work: Work) -> bool:
    """Say whether the dump has impressions."""
    return "raw_impressions" in work.inputs["ingest"].manifest["rows"]


def write(work: Work, connection: duckdb.DuckDBPyConnection) -> Shown:
    """Write `impressions`, where the source has them.

    connection: with views `users` and `items_clean`.
    """
    shown = Shown()
    if listed(work):
        _write_impressions(work, connection, shown)
    elif base_rows(work, IMPRESSIONS.name):
        work.out.extend(IMPRESSIONS, work.inputs["base"].parts(IMPRESSIONS.name))
    return shown


def _write_impressions(work: Work, connection: duckdb.DuckDBPyConnection, shown: Shown) -> None:
    split = work.inputs["split"]
    parts = split.parts("interactions")
    published = base_rows(work, IMPRESSIONS.name)
    already = _published(work, connection) if published else {}
    view(connection, "raw_impressions", work.inputs["ingest"].parts("raw_impressions"))
    of_known = "from raw_impressions join users using (user_id)"
    [(lists, shown_items)] = connection.sql(
        "select count(*), coalesce(sum(len(items)), 0) from raw_impressions"
    ).fetchall()
    weights = connection.sql(
        f"select user_index, count(*) + sum(len(items)) as n {of_known} group by user_index"
    ).fetchnumpy()
    per_user = np.zeros(connection.sql("from users").shape[0], dtype=np.int64)
    per_user[weights["user_index"]] = weights["n"]
    listed = connection.sql(f"select user_index, raw_impressions.* exclude (user_id) {of_known}")
    items = connection.sql("select item_id from items_clean order by item_index").to_arrow_table().column(0)
    counts: Counter[str] = Counter()
    numbered: Iterator[pa.RecordBatch] = (
        _known_items(batch, items, counts) for batch in listed.to_arrow_reader(BATCH)
    )
    if published:
        per_user[already["user_index"]] += already["n"].astype(np.int64)
        numbered = chain(_published_lists(work), numbered)
    tables = divided(numbered, bounds(per_user.astype(np.int32), SHOWN), work.out.spill / "lists")
    labeller = Labeller(split.facts.get("cuts"), _held_out_items(parts, len(items)), counts)
    rows = work.out.write(IMPRESSIONS, _labelled(tables, parts, labeller))
    shown.left_out["impressions"] = lists - (rows - published)
    shown.left_out["shown_items"] = int(shown_items) - counts["kept"]
    shown.findings.extend(labeller.findings(split.manifest["params"]["protocol"] == "cold-items"))


def _published(work: Work, connection: duckdb.DuckDBPyConnection) -> dict[str, npt.NDArray[np.int64]]:
    """Give how much each user's published lists hold."""
    view(connection, "published_lists", work.inputs["base"].parts(IMPRESSIONS.name))
    return connection.sql("""
        select user_index, count(*) + sum(len(items)) as n from published_lists
        group by user_index""").fetchnumpy()


def _published_lists(work: Work) -> Iterator[pa.RecordBatch]:
    """Give the published lists as `_known_items` gives new ones; their split is found anew, and the same."""
    columns = [name for name in IMPRESSIONS.names if name != "split"]
    types = ((name, IMPRESSIONS.arrow().field(name).type) for name in columns)
    plain = pa.schema([(name, pa.list_(of.value_type) if pa.types.is_list(of) else of) for name, of in types])
    for part in work.inputs["base"].parts(IMPRESSIONS.name):
        with pq.ParquetFile(part, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH, columns=columns):
                yield batch.cast(plain)


def _known_items(batch: pa.RecordBatch, items: pa.ChunkedArray, counts: Counter[str]) -> pa.RecordBatch:
    """Put numbers for items and leave unknown ones out, and lists that are then empty; count the kept."""
    numbers = pc.index_in(batch.column("items").flatten(), items)
    known = numbers.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(batch.column("items")).to_numpy()
    n_kept = np.bincount(np.repeat(np.arange(len(batch)), lengths)[known], minlength=len(batch))
    counts["kept"] += int(n_kept.sum())
    columns = {"user_index": batch.column("user_index")}
    for name in IMPRESSIONS.names:
        if name in LISTED:
            lists = batch.column(name)
            there = lists.is_valid().to_numpy(zero_copy_only=False)
            kept = pa.array(known[np.repeat(there, lengths)])
            values = (numbers if name == "items" else lists.flatten()).filter(kept)
            edges = pa.array(np.concatenate([[0], np.cumsum(n_kept * there)]), pa.int32())
            columns[name] = pa.ListArray.from_arrays(edges, values, mask=pa.array(~there))
        elif name == "n_shown":
            columns[name] = pa.array(lengths, pa.int32())
        elif name not in ("user_index", "split"):
            columns[name] = batch.column(name)
    return pa.RecordBatch.from_pydict(columns).filter(pa.array(n_kept > 0))


def _held_out_items(parts: Sequence[Path], n_items: int) -> Mask:
    """Say of each item whether it has a valid or test event."""
    held = np.zeros(n_items, dtype=bool)
    for chunk in chunks(parts, EVENTS):
        held[chunk.items[(chunk.labels == VALID) | (chunk.labels == TEST)]] = True
    return held


def _labelled(
    tables: Iterator[pa.Table], parts: Sequence[Path], labeller: "Labeller"
) -> Iterator[pa.RecordBatch]:
    """Yield the lists by user and time with column `split`, walking along with the users' events."""
    events = chunks(parts, EVENTS)
    chunk = next(events)
    for table in tables:
        keys = ("user_index", "ts", "source_file", "source_row")
        table = table.take(pc.sort_indices(table, [(key, "ascending") for key in keys])).combine_chunks()
        users, start = table["user_index"].to_numpy(), 0
        while start < len(table):
            while chunk.users[-1] < users[start]:
                chunk = next(events)
            stop = int(np.searchsorted(users, chunk.users[-1], side="right"))
            yield from labeller.label(table.slice(start, stop - start), chunk).to_batches()
            start = stop


@dataclass(frozen=True)
class Labeller:
    """Gives lists their split. cuts: the two moments of a split by global time, where it is one.

    Under global time a list's own time decides. Else a list has the most held-out split of the events
    clicked in it (same user, item and time), or where there is none that of the user's last event not
    later than the list; before all events, of the first.
    """

    cuts: Sequence[int] | None
    held_out_items: Mask
    counts: Counter[str]

    def label(self, table: pa.Table, chunk: Chunk) -> pa.Table:
        """Add column `split`. table: lists by user and time; chunk: all events of their users."""
        users, ts = table["user_index"].to_numpy(), table["ts"].to_numpy()
        lengths = pc.list_value_length(table["items"]).to_numpy()
        items = table["items"].combine_chunks().flatten().to_numpy()
        clicked = table["clicked"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        lists = np.repeat(np.arange(len(table)), lengths)
        before, moments, own = _joined(users, ts, chunk)
        most = _most_held_out(moments, chunk, lists[clicked], own, items[clicked])
        strictest = np.full(len(table), -1)
        np.maximum.at(strictest, lists[clicked], most)
        labels: Labels = np.where(strictest >= 0, HELD_BACK[strictest], chunk.labels[before]).astype(np.int8)
        if self.cuts:
            labels = ((ts >= self.cuts[0]).astype(np.int8) + (ts >= self.cuts[1])).astype(np.int8)
        train = labels[lists] == TRAIN
        self.counts["clicked_in_train"] += int((train & clicked).sum())
        held = most >= STRICTNESS[VALID]
        self.counts["clicked_held_out"] += int((train[clicked] & held).sum())
        self.counts["shown_in_train"] += int(train.sum())
        self.counts["held_out_shown"] += int((train & self.held_out_items[items]).sum())
        split = pa.DictionaryArray.from_arrays(pa.array(labels, pa.int8()), pa.array(SPLIT_NAMES))
        return table.append_column("split", split)

    def findings(self, whole_items: bool) -> list[Finding]:
        """Give what the audit says of lists. whole_items: whether items are held out whole."""
        found = [
            finding(
                "clicked_held_out",
                "clicked items of train lists are valid or test events",
                count=self.counts["clicked_held_out"],
                of=self.counts["clicked_in_train"],
                split="train",
                strict=True,
            )
        ]
        if whole_items:
            says = "items shown in train lists are held out"
            count, of = self.counts["held_out_shown"], self.counts["shown_in_train"]
            found.append(finding("held_out_items_shown", says, count=count, of=of, split="train"))
        return found


def _joined(users: npt.NDArray[np.int32], ts: Rows, chunk: Chunk) -> tuple[Rows, Rows, Rows]:
    """Join lists with events by user and time.

    Gives the event before each list, or the user's first: (lists,); a number of each event's user and
    time: (events,); and of each list's, -1 where no event has them: (lists,).
    """
    times = np.unique(np.concatenate([chunk.ts, ts]))
    keys = chunk.users.astype(np.int64) * len(times) + np.searchsorted(times, chunk.ts)
    wanted = users.astype(np.int64) * len(times) + np.searchsorted(times, ts)
    moments = np.cumsum(np.diff(keys, prepend=keys[:1]) != 0)
    last = np.searchsorted(keys, wanted, side="right") - 1
    own = np.where((last >= 0) & (keys[last] == wanted), moments[last], -1)
    first = np.searchsorted(chunk.users, users)
    return np.maximum(last, first), moments, own


def _most_held_out(
    moments: Rows, chunk: Chunk, lists: Rows, own: Rows, items: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    """Give the strictness of the event that each click is, or -1. lists, items: (clicks,)."""
    keys = moments << 32 | chunk.items
    strictness = STRICTNESS[chunk.labels]
    order = np.lexsort((strictness, keys))
    keys, strictness = keys[order], strictness[order]
    wanted = own[lists] << 32 | items
    last = np.searchsorted(keys, wanted, side="right") - 1
    found = (own[lists] >= 0) & (last >= 0) & (keys[last] == wanted)
    return np.where(found, strictness[last], -1)
