"""Split: give every event its split under a declared protocol and a declared total order.

Leave-one-out: a user's last event is the test target, the one before it the validation target, the
rest trains. What it leaks: other users' train events may be later than a user's test event, so a model
may learn from the future of the catalogue. A split by global time does not (and is not comparable).

Ties: events of one user at the same time are ordered by a seeded hash of user, time and item, or as
in the source file; never by item number, which would teach a model that higher numbers come later
(LRURec issue 1).
"""

from dataclasses import dataclass
from typing import Any

import duckdb

from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas.tables import INTERACTIONS
from sid_warehouse.db import connect, view

SHORTEST = 3  # events a user needs to be in all three splits; shorter users only train


@dataclass(frozen=True)
class SplitParams:
    """What split depends on: the protocol, the tie rule ("hash" or "source") and the hash's seed."""

    protocol: str
    ties: str
    seed: int


def run(work: Work) -> Outcome:
    """Write `interactions`: events in the declared order, each with its split."""
    params: SplitParams = work.params
    clean = work.inputs["clean"]
    with connect(spill=work.out.spill, memory=work.resources.memory) as connection:
        for table in ("events", "users", "items_clean"):
            view(connection, table, clean.parts(table))
        connection.execute(f"""
            create temp table ordered as
            select events.*, count(*) over (partition by user_index) as length,
                row_number() over (partition by user_index order by {_order(params)}) as place
            from events join users using (user_index) join items_clean using (item_index)""")
        connection.execute(f"""
            create temp table divided as
            select *, case
                when length < {SHORTEST} or place < length - 1 then 'train'
                when place = length then 'test' else 'valid' end as split
            from ordered""")
        work.out.write(
            INTERACTIONS,
            connection.sql(
                "select * exclude (length, place) from divided order by user_index, place"
            ).to_arrow_reader(),
        )
        audit = _audit(connection)
    facts = {"protocol": params.protocol, "ties": params.ties, "audit": audit}
    parts = [count(audit["events"][name], f"{name} event") for name in ("train", "valid", "test")]
    return Outcome(facts, f"{', '.join(parts)}; {audit['test_tie_rate']:.1%} of test targets tie")


def _order(params: SplitParams) -> str:
    """Give the ORDER BY of one user's events: total, and independent of row order under "hash"."""
    if params.ties == "source":
        return "ts, source_file, source_row"
    content = "concat_ws(chr(31), user_id, ts, item_id, event_type, value)"
    return f"ts, md5('{params.seed}' || chr(31) || {content}), source_file, source_row"


def _audit(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Count what a reader of results must know: sizes, ties at the cut, cold targets, later events."""

    def number(sql: str) -> int:
        return int(connection.sql(sql).fetchall()[0][0])

    def unseen(split: str, column: str) -> int:
        trained = f"select {column} from divided where split = 'train'"
        return number(f"select count(*) from divided where split = '{split}' and {column} not in ({trained})")

    events = {
        split: number(f"select count(*) from divided where split = '{split}'")
        for split in ("train", "valid", "test")
    }
    ties = number("""
        select count(*) from divided as target join divided as other using (user_index, ts)
        where target.split = 'test' and other.place = target.place - 1""")
    later = number("""
        select count(*) from divided where split = 'test'
        and ts < (select max(ts) from divided where split = 'train')""")
    return {
        "events": events,
        "short_users": number(f"select count(distinct user_index) from divided where length < {SHORTEST}"),
        "test_ties": ties,
        "test_tie_rate": ties / max(events["test"], 1),
        "unseen_items": {split: unseen(split, "item_index") for split in ("valid", "test")},
        "unseen_users": {split: unseen(split, "user_index") for split in ("valid", "test")},
        "test_targets_before_last_train_event": later,
        "leaks": "leave-one-out: other users' train events may be later than a test target",
    }


STAGE = Stage("split", revision=2, parents=("clean",), run=run)
