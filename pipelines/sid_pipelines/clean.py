"""Clean: dedupe, drop what has no metadata, k-core to the fixed point; a ledger says what each step took.

    raw_interactions, raw_items -> events, users, items_clean

The k-core is iterated until nothing changes. A single pass, as several reference scripts do it, leaves
users and items below k (TRAINER_FORMATS 3.6).
"""

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError
from sid_schemas.tables import EVENTS, ITEMS_CLEAN, USERS
from sid_warehouse.db import connect, view

Indexes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CleanParams:
    """What clean depends on.

    dedupe: which of a user's repeated events on one item stays: first, last or all. ties: how equal
    times are ordered: "hash" (by content, whatever the row order) or "source" (as in the file).
    k_core_user, k_core_item: events that each user and item must have; 0 or 1 is no filter.
    universe: "interactions" gives an ID to items that survive, "catalog" to every described item.
    """

    dedupe: str
    k_core_user: int
    k_core_item: int
    ties: str
    universe: str


def run(work: Work) -> Outcome:
    """Write `events`, `users` and `items_clean`, and the ledger as facts."""
    params: CleanParams = work.params
    raw = work.inputs["ingest"]
    with connect(spill=work.out.spill, memory=work.resources.memory) as connection:
        view(connection, "raw", raw.parts("raw_interactions"))
        view(connection, "described", raw.parts("raw_items"))
        ledger = Ledger(connection)
        ledger.step("raw", "raw", "what ingest could read")
        _dedupe(connection, ledger, params)
        ledger.apply(
            "no_metadata",
            "select * from {last} where item_id in (select item_id from described)",
            "the dump does not describe the item",
        )
        _k_core(connection, ledger, params)
        _write(connection, work, ledger.last, params.universe)
    rows = work.out.rows
    parts = [
        count(rows["events"], "interaction"),
        count(rows["users"], "user"),
        count(rows["items_clean"], "item"),
    ]
    return Outcome({"ledger": ledger.rows}, ", ".join(parts))


class Ledger:
    """The steps in order, each with what it left and what it took."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Start empty."""
        self.connection = connection
        self.rows: list[dict[str, Any]] = []
        self.last = "raw"

    def apply(self, step: str, select: str, reason: str) -> None:
        """Make table `step` by a SELECT over `{last}`, then enter it."""
        self.connection.execute(f"create temp table {step} as {select.format(last=self.last)}")
        if self.last != "raw":
            self.connection.execute(f"drop table {self.last}")
        self.step(step, step, reason)

    def step(self, step: str, table: str, reason: str) -> None:
        """Enter what a table holds."""
        [(interactions, users, items)] = self.connection.sql(
            f"select count(*), count(distinct user_id), count(distinct item_id) from {table}"
        ).fetchall()
        before = self.rows[-1] if self.rows else None
        removed = before["interactions"] - interactions if before else 0
        entry = {"step": step, "reason": reason, "interactions": interactions, "users": users}
        self.rows.append(entry | {"items": items, "removed": removed})
        self.last = table
        if not interactions:
            raise DataError(f"clean: step '{step}' ({reason}) leaves nothing of {removed:,} interactions")


def _dedupe(connection: duckdb.DuckDBPyConnection, ledger: Ledger, params: CleanParams) -> None:
    ledger.apply(
        "exact_duplicates",
        """select * from {last} qualify row_number() over (
            partition by user_id, item_id, ts, event_type, value
            order by source_file, source_row) = 1""",
        "the same user, item, time, type and value stood there already",
    )
    if params.dedupe == "all":
        return
    content = "source_file, source_row" if params.ties == "source" else "event_type, value"
    order = f"ts, {content}"
    if params.dedupe == "last":
        order = ", ".join(f"{column} desc" for column in order.split(", "))
    ledger.apply(
        "repeated_items",
        f"""select * from {{last}} qualify row_number() over (
            partition by user_id, item_id order by {order}) = 1""",
        f"the user has an event on the item already; the {params.dedupe} stays",
    )


def _k_core(connection: duckdb.DuckDBPyConnection, ledger: Ledger, params: CleanParams) -> None:
    k_user, k_item = params.k_core_user, params.k_core_item
    connection.execute(f"""
        create temp table numbered as
        select *, (dense_rank() over (order by user_id) - 1)::int as u,
            (dense_rank() over (order by item_id) - 1)::int as i,
            row_number() over (order by source_file, source_row) - 1 as n
        from {ledger.last}""")
    pairs = connection.sql("select u, i from numbered order by n").to_arrow_table()
    users, items = pairs["u"].to_numpy(), pairs["i"].to_numpy()
    keep = k_core(users, items, k_user, k_item)
    if not keep.any():
        best = largest_k(users, items)
        hint = f"k = {best} keeps some" if best > 1 else "no k above 1 keeps any"
        raise DataError(
            f"clean: the {k_user}/{k_item}-core (users/items) is empty: nothing is left of "
            f"{len(keep):,} interactions. Lower [clean] k_core ({hint}) or use a larger dump"
        )
    kept = pa.table({"n": np.flatnonzero(keep)})
    connection.register("kept", kept)
    ledger.apply(
        "k_core",
        "select numbered.* exclude (u, i, n) from numbered semi join kept using (n)",
        f"fewer than {k_user} events of the user or {k_item} of the item, to the fixed point",
    )
    connection.unregister("kept")


def k_core(users: Indexes, items: Indexes, k_user: int, k_item: int) -> npt.NDArray[np.bool_]:
    """Give which events survive when users below k_user and items below k_item go, again and again.

    users, items: (n,) dense indexes of each event. Returns (n,) bool: the largest set in which every
    user has at least k_user events and every item k_item. It does not depend on row order.
    """
    keep = np.ones(len(users), dtype=bool)
    while True:
        alive_users, alive_items = users[keep], items[keep]
        enough = (np.bincount(alive_users)[alive_users] >= k_user) & (
            np.bincount(alive_items)[alive_items] >= k_item
        )
        if enough.all():
            return keep
        keep[np.flatnonzero(keep)[~enough]] = False


def largest_k(users: Indexes, items: Indexes) -> int:
    """Give the largest k whose k/k-core is not empty."""
    k = 1
    while k_core(users, items, k + 1, k + 1).any():
        k += 1
    return k


def _write(connection: duckdb.DuckDBPyConnection, work: Work, table: str, universe: str) -> None:
    connection.execute(f"""
        create temp table users as
        select (row_number() over (order by user_id) - 1)::int as user_index, user_id
        from (select distinct user_id from {table})""")
    survivors = "" if universe == "catalog" else f"semi join {table} using (item_id)"
    connection.execute(f"""
        create temp table items as
        select (row_number() over (order by item_id) - 1)::int as item_index, described.*
        from described {survivors}""")
    work.out.write(USERS, connection.sql("from users order by user_index").to_arrow_reader())
    work.out.write(ITEMS_CLEAN, connection.sql("from items order by item_index").to_arrow_reader())
    events = connection.sql(f"""
        select user_index, item_index, ts, event_type, value,
            event.source_file, event.source_row
        from {table} as event join users using (user_id) join items using (item_id)
        order by user_index, ts, event.source_file, event.source_row""")
    work.out.write(EVENTS, events.to_arrow_reader())


STAGE = Stage("clean", revision=2, parents=("ingest",), run=run)
