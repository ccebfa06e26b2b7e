"""Clean: what is left out and why, step by step; a ledger says what each step took.

    raw_interactions, raw_items -> events, users, items_clean

Rows are judged by number: one byte per row says whether it is still there, and two integers, mapped from
disk, which user and item it is of. So memory grows with users and items, and by that byte with rows; the
raw table is read again only for what a step needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.buckets import bounds, divided, sorted_by_user
from sid_pipelines.kcore import CHUNK, degrees, k_core, largest_k, single_pass
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError
from sid_schemas.tables import EVENTS, ITEMS_CLEAN, USERS
from sid_warehouse.db import connect, literal, scan, view
from sid_warehouse.stages import StageOutput

Mask = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.int32]
CONTENT = ("ts", "event_type", "value", "session_id", "query", "position")
CARRIED = (*CONTENT, "source_file", "source_row")


@dataclass(frozen=True)
class CleanParams:
    """What clean depends on.

    exact_duplicates: drop or keep rows equal in user, item, time, type and value. dedupe: which of a
    user's repeated events on one item stays: first, last or all. events: types that stay, all if empty.
    min_value, max_value: bounds of the value; an event without a value fails a bound. since, until: ms,
    the first that stays and the first that does not. max_events_per_user: users with more are bots.
    without_metadata: what happens to items the dump does not describe: keep, drop, or auto (drop where
    the dump describes items at all). require: fields an item must have. k_core_user, k_core_item: events
    that each user and item must have; 0 or 1 is no filter. k_core: "iterative" or "single-pass".
    ties: how equal times are ordered where one of them must be chosen: "hash" (by content, whatever the
    row order) or "source" (as in the file). universe: "interactions" gives an ID to items that survive,
    "catalog" to every described item too.
    """

    exact_duplicates: str
    dedupe: str
    events: tuple[str, ...]
    min_value: float | None
    max_value: float | None
    since: int | None
    until: int | None
    max_events_per_user: int | None
    without_metadata: str
    require: tuple[str, ...]
    k_core_user: int
    k_core_item: int
    k_core: str
    ties: str
    universe: str


def run(work: Work) -> Outcome:
    """Write `events`, `users` and `items_clean`, and the ledger as facts."""
    params: CleanParams = work.params
    raw = work.inputs["ingest"]
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        view(connection, "described", raw.parts("raw_items"))
        rows = Rows(connection, raw, work.out.spill)
        ledger = Ledger(rows)
        ledger.enter("raw", "what ingest could read")
        _filters(rows, ledger, params)
        _dedupe(rows, ledger, params)
        _bots(rows, ledger, params)
        _metadata(rows, ledger, params)
        _k_core(rows, ledger, params)
        _write(work, rows, params.universe)
    written = work.out.rows
    parts = [
        count(written["events"], "interaction"),
        count(written["users"], "user"),
        count(written["items_clean"], "item"),
    ]
    return Outcome({"ledger": ledger.entries}, ", ".join(parts))


class Rows:
    """The raw interactions by number: users and items as integers, and which rows are still there.

    users, items: (n,) int32, mapped from disk; numbers are in byte order of the ids. alive: (n,) bool.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, raw: StageOutput, folder: Path) -> None:
        """Number the users, the items and the rows."""
        self.connection, self.folder = connection, folder
        self.parts = raw.parts("raw_interactions")
        lengths = [pq.read_metadata(part).num_rows for part in self.parts]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        self.n = self.starts[-1]
        self.alive: Mask = np.ones(self.n, dtype=bool)
        folder.mkdir(parents=True, exist_ok=True)
        self.users = self._numbers("user")
        self.items = self._numbers("item")

    def _numbers(self, of: str) -> Indexes:
        """Give each row's user or item as a number, after making table `<of>_ids` of all ids."""
        self.connection.execute(f"""
            create temp table {of}_ids as
            select {of}_id, (row_number() over (order by {of}_id) - 1)::int as number
            from (select distinct {of}_id from {scan(self.parts)})""")
        path = self.folder / f"{of}s.i32"
        numbers: Indexes = (
            np.memmap(path, np.int32, "w+", shape=(self.n,)) if self.n else np.empty(0, np.int32)
        )
        for start, part in zip(self.starts, self.parts, strict=False):
            found = self.connection.sql(f"""
                select file_row_number as row, number
                from {scan([part], "file_row_number = true")} join {of}_ids using ({of}_id)""")
            for batch in found.to_arrow_reader():
                numbers[start + batch.column(0).to_numpy()] = batch.column(1).to_numpy()
        return numbers

    def raw(self, *columns: str) -> str:
        """Give the SQL of the raw rows' columns and their number `n`."""
        numbered = [
            f"select {', '.join(columns)}, file_row_number + {start} as n "
            f"from {scan([part], 'file_row_number = true')}"
            for start, part in zip(self.starts, self.parts, strict=False)
        ]
        return f"({' union all '.join(numbered)})"

    def kill(self, sql: str) -> None:
        """Take out the rows whose number `n` a SELECT gives."""
        for batch in self.connection.sql(sql).to_arrow_reader():
            self.alive[batch.column("n").to_numpy()] = False

    def keep_if(self, ok: Mask, of: Indexes) -> None:
        """Keep only rows whose user or item is ok: (users or items,) bool."""
        for start in range(0, self.n, CHUNK):
            part = slice(start, start + CHUNK)
            self.alive[part] &= ok[of[part]]

    def repeated_pairs(self) -> Iterator[pa.Table]:
        """Yield (n, u, i) of the rows whose user and item have another row, bucket by bucket of users."""
        firsts = bounds(degrees(self.users, self.alive))
        for table in divided(self._pairs(), firsts, self.folder / "buckets"):
            keys = table["user_index"].to_numpy().astype(np.int64) << 32 | table["i"].to_numpy()
            order = np.argsort(keys, kind="stable")
            same = keys[order[1:]] == keys[order[:-1]]
            again = np.zeros(len(keys), dtype=bool)
            again[order[1:][same]] = again[order[:-1][same]] = True
            yield table.filter(pa.array(again)).select(["n", "user_index", "i"])

    def _pairs(self) -> Iterator[pa.RecordBatch]:
        for start in range(0, self.n, CHUNK):
            part = slice(start, start + CHUNK)
            here = np.flatnonzero(self.alive[part])
            columns = {"user_index": self.users[part][here], "i": self.items[part][here], "n": start + here}
            yield pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})

    def batches(self, users: Indexes, items: Indexes) -> Iterator[pa.RecordBatch]:
        """Yield the rows that are left, in order; users, items: number -> new index."""
        for start, part in zip(self.starts, self.parts, strict=False):
            file = pq.ParquetFile(part, pre_buffer=False, read_dictionary=["event_type", "source_file"])
            for batch in file.iter_batches(1 << 17, columns=list(CARRIED)):
                rows = slice(start, start + batch.num_rows)
                alive = self.alive[rows]
                start += batch.num_rows
                kept = batch.filter(pa.array(alive))
                columns = [pa.array(users[self.users[rows][alive]]), pa.array(items[self.items[rows][alive]])]
                columns += [kept.column(name) for name in CARRIED]
                yield pa.RecordBatch.from_arrays(columns, names=["user_index", "item_index", *CARRIED])


class Ledger:
    """The steps in order, each with what it left and what it took."""

    def __init__(self, rows: Rows) -> None:
        """Start empty."""
        self.rows = rows
        self.entries: list[dict[str, Any]] = []

    def enter(self, step: str, reason: str) -> None:
        """Enter what is left after a step; raises DataError where that is nothing."""
        rows = self.rows
        before = self.entries[-1]["interactions"] if self.entries else rows.n
        left = int(np.count_nonzero(rows.alive))
        entry = {"step": step, "reason": reason, "interactions": left}
        for name, of in (("users", rows.users), ("items", rows.items)):
            # A step that took nothing left as many as there were.
            same = self.entries and before == left
            entry[name] = self.entries[-1][name] if same else int(np.count_nonzero(degrees(of, rows.alive)))
        self.entries.append(entry | {"removed": before - left})
        if not left:
            raise DataError(f"clean: step '{step}' ({reason}) leaves nothing of {before:,} interactions")


def _filters(rows: Rows, ledger: Ledger, params: CleanParams) -> None:
    """Judge rows by what they hold."""
    if params.events:
        among = ", ".join(literal(name) for name in params.events)
        rows.kill(f"select n from {rows.raw('event_type')} where event_type not in ({among})")
        ledger.enter("event_types", f"the event is none of {', '.join(params.events)}")
    bounds_of = {"below": (params.min_value, "<"), "above": (params.max_value, ">")}
    for name, (bound, beyond) in bounds_of.items():
        if bound is not None:
            rows.kill(f"select n from {rows.raw('value')} where coalesce(value {beyond} {bound}, true)")
            ledger.enter(f"value_{name}", f"the value is {name} {bound:g}, or there is none")
    if params.since is not None or params.until is not None:
        outside = [f"ts < {params.since}"] if params.since is not None else []
        outside += [f"ts >= {params.until}"] if params.until is not None else []
        rows.kill(f"select n from {rows.raw('ts')} where {' or '.join(outside)}")
        ledger.enter("time_window", "the event is outside the time window")


def _dedupe(rows: Rows, ledger: Ledger, params: CleanParams) -> None:
    """Judge rows of one user and item among themselves."""
    if params.exact_duplicates == "keep" and params.dedupe == "all":
        return
    # n counts in the order of source_file and source_row; it decides only where nothing else differs.
    content = "n" if params.ties == "source" else ", ".join([*CONTENT[1:], "n"])
    connection = rows.connection
    connection.execute("create temp table pairs (n bigint, u integer, i integer)")
    for repeated in rows.repeated_pairs():
        connection.register("found", repeated)
        connection.execute("insert into pairs from found")
        connection.unregister("found")
    connection.execute(f"""
        create temp table repeats as
        select pairs.*, {", ".join(CONTENT)} from pairs join {rows.raw(*CONTENT)} using (n);
        drop table pairs""")
    left = "repeats"
    if params.exact_duplicates == "drop":
        connection.execute(f"""
            create temp table exact as
            select n from repeats qualify row_number() over (
                partition by u, i, ts, event_type, value order by {content}) > 1""")
        rows.kill("select n from exact")
        ledger.enter("exact_duplicates", "the same user, item, time, type and value stood there already")
        left = "(from repeats anti join exact using (n))"
    if params.dedupe == "all":
        return
    order = f"ts, {content}"
    if params.dedupe == "last":
        order = ", ".join(f"{column} desc" for column in order.split(", "))
    rows.kill(f"""
        select n from {left} qualify row_number() over (partition by u, i order by {order}) > 1""")
    ledger.enter("repeated_items", f"the user has an event on the item already; the {params.dedupe} stays")


def _bots(rows: Rows, ledger: Ledger, params: CleanParams) -> None:
    most = params.max_events_per_user
    if most is not None:
        rows.keep_if(degrees(rows.users, rows.alive) <= most, rows.users)
        ledger.enter("bots", f"the user has more than {most:,} events")


def _metadata(rows: Rows, ledger: Ledger, params: CleanParams) -> None:
    """Judge rows by what the dump says of their item."""
    connection = rows.connection
    [(described,)] = connection.sql("select count(*) from described").fetchall()
    if params.without_metadata == "drop" or (params.without_metadata == "auto" and described):
        rows.keep_if(_items_where(rows, "item_id in (select item_id from described)"), rows.items)
        ledger.enter("no_metadata", "the dump does not describe the item")
    for name in params.require:
        given = "len(category_path) > 0" if name == "category_path" else f"{name} is not null"
        rows.keep_if(
            _items_where(rows, f"item_id in (select item_id from described where {given})"), rows.items
        )
        ledger.enter(f"no_{name}", f"the item has no {name}")


def _items_where(rows: Rows, condition: str) -> Mask:
    found = rows.connection.sql(f"select ({condition}) as ok from item_ids order by number").fetchnumpy()
    return np.asarray(found["ok"], dtype=bool)


def _k_core(rows: Rows, ledger: Ledger, params: CleanParams) -> None:
    k_user, k_item = params.k_core_user, params.k_core_item
    before = rows.alive.copy()
    method = k_core if params.k_core == "iterative" else single_pass
    method(rows.users, rows.items, k_user, k_item, rows.alive)
    if not rows.alive.any():
        best = largest_k(rows.users, rows.items, before)
        hint = f"k = {best} keeps some" if best > 1 else "no k above 1 keeps any"
        raise DataError(
            f"clean: the {k_user}/{k_item}-core (users/items) is empty: nothing is left of "
            f"{np.count_nonzero(before):,} interactions. Lower [clean] k_core ({hint}) or use a larger dump"
        )
    how = (
        "to the fixed point"
        if params.k_core == "iterative"
        else "in a single pass, so some below it are left"
    )
    ledger.enter("k_core", f"fewer than {k_user} events of the user or {k_item} of the item, {how}")


def _write(work: Work, rows: Rows, universe: str) -> None:
    """Write users, items and events under new, dense indexes in byte order of the ids."""
    connection = rows.connection
    per_user = degrees(rows.users, rows.alive)
    users = _dense(per_user > 0)
    alive_items = degrees(rows.items, rows.alive) > 0
    connection.register("kept_users", _numbered("user_index", users))
    connection.register("kept_items", _numbered("alive", alive_items))
    connection.execute("""
        create temp table users as
        select user_index, user_id from user_ids join kept_users using (number) where user_index >= 0;
        create temp table survivors as
        select item_id, number from item_ids join kept_items using (number) where alive""")
    others = "full" if universe == "catalog" else "left"
    connection.execute(f"""
        create temp table items as
        select (row_number() over (order by item_id) - 1)::int as item_index, number, item_id,
            title, description, brand, price, coalesce(category_path, []) as category_path, image_ref,
            coalesce(domain, 'unknown') as domain
        from survivors {others} join described using (item_id)""")
    work.out.write(USERS, connection.sql("from users order by user_index").to_arrow_reader())
    work.out.write(ITEMS_CLEAN, connection.sql("from items order by item_index").to_arrow_reader())
    placed = connection.sql("select number, item_index from items where number is not null").fetchnumpy()
    items = np.full(len(alive_items), -1, dtype=np.int32)
    items[placed["number"]] = placed["item_index"]
    firsts = bounds(per_user[per_user > 0])
    work.out.write(EVENTS, sorted_by_user(rows.batches(users, items), firsts, work.out.spill / "buckets"))


def _numbered(name: str, values: npt.NDArray[Any]) -> pa.Table:
    return pa.table({"number": np.arange(len(values), dtype=np.int32), name: values})


def _dense(alive: Mask) -> Indexes:
    """Give each number's new index, counting those alive; -1 for the others."""
    return np.where(alive, np.cumsum(alive) - 1, -1).astype(np.int32)


STAGE = Stage("clean", revision=6, parents=("ingest",), run=run)
