"""Clean: what is left out and why, step by step; a ledger says what each step took.

    raw_interactions, raw_items -> events, users, items_clean

Rows are judged by number (rows.py), and everything is judged by user but for how many events an item has. So
memory grows with users and items, and by a byte with rows; and the same functions judge buckets of users
(sharded/stages/clean.py), where only the k-core goes back and forth.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from sid_pipelines.buckets import bounds, sorted_by_user
from sid_pipelines.kcore import degrees, k_core, largest_k, single_pass
from sid_pipelines.ledger import Tally, ledger
from sid_pipelines.rows import (
    CONTENT,
    Indexes,
    Mask,
    Parts,
    Rows,
    number_ids,
    numbers,
    renumbered,
)
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError
from sid_schemas.tables import EVENTS, ITEMS_CLEAN, USERS
from sid_warehouse.db import connect, literal, view


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

    k_core_method: whether the k-core is iterated to its fixed point, or each side is filtered once.
    max_reject_rate: share of raw rows that may be rejects; above it the run stops and shows the first.
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
    raw, folder = work.inputs["ingest"], work.out.spill
    with connect(spill=folder, memory=work.resources.duckdb) as connection:
        view(connection, "described", raw.parts("raw_items"))
        source = Parts(raw.parts("raw_interactions"))
        for of in ("user", "item"):
            number_ids(connection, of, source.sql(f"{of}_id"))
        rows = Rows(connection, source, *(numbers(connection, of, source, folder) for of in ("user", "item")))
        tally = Tally(rows)
        judge(rows, tally, params, item_rules(connection, params), folder)
        ledger([tally.steps], tally.items())
        _k_core(rows, tally, params)
        entries = ledger([tally.steps], tally.items())
        _write(work, rows, params.universe)
    return outcome(work, entries)


def outcome(work: Work, entries: list[dict[str, Any]]) -> Outcome:
    """Give what the stage reports of what was written; entries: the ledger."""
    written = work.out.rows
    parts = [
        count(written["events"], "interaction"),
        count(written["users"], "user"),
        count(written["items_clean"], "item"),
    ]
    return Outcome({"ledger": entries}, ", ".join(parts))


@dataclass(frozen=True)
class ItemRule:
    """A step that judges items: ok says which of them stay, (items,) bool by number."""

    step: str
    reason: str
    ok: Mask


def item_rules(connection: duckdb.DuckDBPyConnection, params: CleanParams) -> list[ItemRule]:
    """Judge items by what the dump says of them; needs `item_ids` and `described`."""
    [(described,)] = connection.sql("select count(*) from described").fetchall()
    rules = []
    if params.without_metadata == "drop" or (params.without_metadata == "auto" and described):
        rules.append(("no_metadata", "the dump does not describe the item", "true"))
    for name in params.require:
        given = "len(category_path) > 0" if name == "category_path" else f"{name} is not null"
        rules.append((f"no_{name}", f"the item has no {name}", given))
    return [
        ItemRule(step, reason, _items_where(connection, f"select item_id from described where {given}"))
        for step, reason, given in rules
    ]


def _items_where(connection: duckdb.DuckDBPyConnection, among: str) -> Mask:
    found = connection.sql(f"select item_id in ({among}) as ok from item_ids order by number").fetchnumpy()
    return np.asarray(found["ok"], dtype=bool)


def judge(rows: Rows, tally: Tally, params: CleanParams, rules: Sequence[ItemRule], folder: Path) -> None:
    """Take out all rows but those below the k-core, step by step; folder: for what must wait on disk."""
    _filters(rows, tally, params)
    _dedupe(rows, tally, params, folder)
    _bots(rows, tally, params)
    for rule in rules:
        rows.keep_if(rule.ok, rows.items)
        tally.enter(rule.step, rule.reason)


def _filters(rows: Rows, tally: Tally, params: CleanParams) -> None:
    """Judge rows by what they hold."""
    if params.events:
        among = ", ".join(literal(name) for name in params.events)
        rows.kill(f"select n from {rows.source.sql('event_type')} where event_type not in ({among})")
        tally.enter("event_types", f"the event is none of {', '.join(params.events)}")
    bounds_of = {"below": (params.min_value, "<"), "above": (params.max_value, ">")}
    for name, (bound, beyond) in bounds_of.items():
        if bound is not None:
            rows.kill(
                f"select n from {rows.source.sql('value')} where coalesce(value {beyond} {bound}, true)"
            )
            tally.enter(f"value_{name}", f"the value is {name} {bound:g}, or there is none")
    if params.since is not None or params.until is not None:
        outside = [f"ts < {params.since}"] if params.since is not None else []
        outside += [f"ts >= {params.until}"] if params.until is not None else []
        rows.kill(f"select n from {rows.source.sql('ts')} where {' or '.join(outside)}")
        tally.enter("time_window", "the event is outside the time window")


def _dedupe(rows: Rows, tally: Tally, params: CleanParams, folder: Path) -> None:
    """Judge rows of one user and item among themselves."""
    if params.exact_duplicates == "keep" and params.dedupe == "all":
        return
    # n counts in the order of source_file and source_row; it decides only where nothing else differs.
    content = "n" if params.ties == "source" else ", ".join([*CONTENT[1:], "n"])
    connection = rows.connection
    connection.execute("create temp table pairs (n bigint, u integer, i integer)")
    for repeated in rows.repeated_pairs(folder):
        connection.register("found", repeated)
        connection.execute("insert into pairs from found")
        connection.unregister("found")
    connection.execute(f"""
        create temp table repeats as
        select pairs.*, {", ".join(CONTENT)} from pairs join {rows.source.sql(*CONTENT)} using (n);
        drop table pairs""")
    left = "repeats"
    if params.exact_duplicates == "drop":
        connection.execute(f"""
            create temp table exact as
            select n from repeats qualify row_number() over (
                partition by u, i, ts, event_type, value order by {content}) > 1""")
        rows.kill("select n from exact")
        tally.enter("exact_duplicates", "the same user, item, time, type and value stood there already")
        left = "(from repeats anti join exact using (n))"
    if params.dedupe == "all":
        return
    order = f"ts, {content}"
    if params.dedupe == "last":
        order = ", ".join(f"{column} desc" for column in order.split(", "))
    rows.kill(f"""
        select n from {left} qualify row_number() over (partition by u, i order by {order}) > 1""")
    tally.enter("repeated_items", f"the user has an event on the item already; the {params.dedupe} stays")


def _bots(rows: Rows, tally: Tally, params: CleanParams) -> None:
    most = params.max_events_per_user
    if most is not None:
        rows.keep_if(degrees(rows.users, rows.alive) <= most, rows.users)
        tally.enter("bots", f"the user has more than {most:,} events")


def _k_core(rows: Rows, tally: Tally, params: CleanParams) -> None:
    before = rows.alive.copy()
    method(params)(rows.users, rows.items, params.k_core_user, params.k_core_item, rows.alive)
    if not rows.alive.any():
        raise empty_core(params, int(np.count_nonzero(before)), largest_k(rows.users, rows.items, before))
    tally.enter("k_core", core_reason(params))


def method(params: CleanParams) -> Callable[..., Mask]:
    """Give the function that the parameters ask for: `k_core` or `single_pass`."""
    return k_core if params.k_core == "iterative" else single_pass


def empty_core(params: CleanParams, before: int, best: int | None) -> DataError:
    """Say that none of so many interactions is in the core; best: the largest k that keeps any, if known."""
    hint = ""
    if best is not None:
        hint = f" (k = {best} keeps some)" if best > 1 else " (no k above 1 keeps any)"
    return DataError(
        f"clean: the {params.k_core_user}/{params.k_core_item}-core (users/items) is empty: nothing is left "
        f"of {before:,} interactions. Lower [clean] k_core{hint} or use a larger dump"
    )


def core_reason(params: CleanParams) -> str:
    """Say whom the k-core takes out."""
    how = (
        "to the fixed point"
        if params.k_core == "iterative"
        else "in a single pass, so some below it are left"
    )
    return f"fewer than {params.k_core_user} events of the user or {params.k_core_item} of the item, {how}"


def _write(work: Work, rows: Rows, universe: str) -> None:
    """Write users, items and events under new, dense indexes in byte order of the ids."""
    connection = rows.connection
    per_user = degrees(rows.users, rows.alive)
    ids = connection.sql("select user_id from user_ids order by number").to_arrow_reader()
    work.out.write(USERS, users_left(ids, per_user > 0))
    items, catalogue = items_indexed(connection, degrees(rows.items, rows.alive) > 0, universe)
    work.out.write(ITEMS_CLEAN, catalogue)
    left = renumbered(rows.source, rows.alive, (rows.users, rows.items), (dense(per_user > 0), items))
    work.out.write(EVENTS, sorted_by_user(left, bounds(per_user[per_user > 0]), work.out.spill / "buckets"))


def users_left(ids: Iterable[pa.RecordBatch], alive: Mask, first: int = 0) -> Iterator[pa.RecordBatch]:
    """Yield table `users`: those alive of all ids in the order of their numbers; first: the first index."""
    start = 0
    for batch in ids:
        kept = batch.column(0).filter(pa.array(alive[start : start + batch.num_rows]))
        start += batch.num_rows
        indexes = pa.array(np.arange(first, first + len(kept), dtype=np.int32))
        first += len(kept)
        yield pa.RecordBatch.from_arrays([indexes, kept], names=["user_index", "user_id"])


def items_indexed(
    connection: duckdb.DuckDBPyConnection, alive: Mask, universe: str
) -> tuple[Indexes, Iterable[pa.RecordBatch]]:
    """Give the items' new indexes, -1 for those that have none, and table `items_clean`.

    alive: (items,) bool by number in `item_ids`; `described` is what the dump says of items.
    """
    connection.register(
        "kept_items", pa.table({"number": np.arange(len(alive), dtype=np.int32), "ok": alive})
    )
    others = "full" if universe == "catalog" else "left"
    connection.execute(f"""
        create temp table survivors as
        select item_id, number from item_ids join kept_items using (number) where ok;
        create temp table items as
        select (row_number() over (order by item_id) - 1)::int as item_index, number, item_id,
            title, description, brand, price, coalesce(category_path, []) as category_path, image_ref,
            coalesce(domain, 'unknown') as domain
        from survivors {others} join described using (item_id)""")
    placed = connection.sql("select number, item_index from items where number is not null").fetchnumpy()
    indexes = np.full(len(alive), -1, dtype=np.int32)
    indexes[placed["number"]] = placed["item_index"]
    return indexes, connection.sql("from items order by item_index").to_arrow_reader()


def dense(alive: Mask, first: int = 0) -> Indexes:
    """Give each number's new index, counting those alive from the first; -1 for the others."""
    return np.where(alive, np.cumsum(alive) - 1 + first, -1).astype(np.int32)


STAGE = Stage("clean", revision=8, parents=("ingest",), run=run)
