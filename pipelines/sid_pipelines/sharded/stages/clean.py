"""Clean by shards: rows go to buckets of users, which are judged one by one as the local stage judges all.

    raw_interactions -> survey -> number (ALL) -> divide (dividing.py) -> judge -> gather (ALL)
        -> peel -> add_up (ALL) ... (rounds.py) -> place (ALL) -> write -> events, users, items_clean

A bucket is a range of user ids in byte order, so users of later buckets have higher indexes; its rows are in
the order of the dump. Items have numbers over the whole data set. What the ledger says adds up over buckets.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sid_pipelines import clean
from sid_pipelines.buckets import bounds, sorted_by_user
from sid_pipelines.clean import CleanParams
from sid_pipelines.kcore import degrees
from sid_pipelines.ledger import Tally, entry, items_left, ledger
from sid_pipelines.rows import Rows, number_ids, numbers, renumbered
from sid_pipelines.sharded.job import ALL, Ref, Results, Step, Task
from sid_pipelines.sharded.passing import named, pass_on, read_table, send, send_table
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.sharded.slices import cut
from sid_pipelines.sharded.stages.dividing import ITEMS, RULES, Division, divide, number, rules_of, survey
from sid_pipelines.sharded.stages.rounds import DEGREES, LEFT, ROWS, SETTLED, largest, pairs, rounds
from sid_pipelines.sharded.tables import check_count
from sid_pipelines.stage import Outcome, Work
from sid_schemas.tables import EVENTS, ITEMS_CLEAN, USERS
from sid_warehouse import parquet
from sid_warehouse.db import view

ROUNDS = 7  # of a job; real data take three to seven, and what is left over costs next to nothing
HINTED = 1 << 27  # rows of which one task can say why their core is empty
IDS, JUDGED, INDEXES, FIRST = "ids", "judged", "indexes", "first"


def run(work: Work, shards: Shards) -> Outcome:
    """Write what the local stage writes; raises what it raises, and WarehouseError where rows were lost."""
    raw = work.inputs["ingest"]
    total = raw.manifest["rows"]["raw_interactions"]
    if not total:
        return clean.run(work)
    count = shards.number(total)
    slices = {numbered(n): one for n, one in enumerate(cut(raw.parts("raw_interactions"), count))}
    catalogue = tuple(part.absolute() for part in raw.parts("raw_items"))
    division = Division(work.params, slices, catalogue, count)
    begin = [Step(kernel.__name__, kernel, division) for kernel in (survey, number, divide, judge, gather)]
    end = [*rounds(work.params, ROUNDS), Step("place", place, division), Step("write", write)]
    refs = [Ref(key, "rows", rows=sum(one.rows for one in of)) for key, of in slices.items()]
    first = last = shards.run("clean", refs, *begin, *end)
    entries = _judged(first, total)
    jobs = 1
    while not last.facts["place"][ALL]["settled"]:
        last = shards.run(f"rounds-{jobs:03d}", last.refs, *end)
        jobs += 1
    entries.append(_core_entry(work.params, entries[-1]["interactions"], last, shards))
    for table in (USERS, ITEMS_CLEAN, EVENTS):
        work.out.extend(table, last.paths(table.name))
    if work.params.universe == "interactions":
        check_count("clean", "items", entries[-1]["items"], work.out.rows["items_clean"])
    return clean.outcome(work, entries)


def judge(task: Task) -> Mapping[str, Any]:
    """Judge a bucket's rows by all but the k-core; send on what is left, and what items have left."""
    if task.key == ALL:
        return pass_on(task)
    division: Division = task.params
    refs = named(task)
    rules = rules_of(read_table(refs.pop(RULES)))
    source = Held(pa.concat_tables([read_table(path) for path in refs.values()]))
    with task.connect() as connection:
        connection.register("held", source.table)
        number_ids(connection, "user", source.sql("user_id"))
        users = numbers(connection, "user", source, task.spill)
        rows = Rows(connection, source, users, source.table["item_index"].to_numpy())
        tally = Tally(rows)
        clean.judge(rows, tally, division.clean, rules, task.spill)
        ids = connection.sql("select user_id from user_ids order by number").to_arrow_table()
    same = (np.arange(len(ids), dtype=np.int32), np.arange(len(tally.last), dtype=np.int32))
    left = renumbered(source, rows.alive, (rows.users, rows.items), same)
    send_table(task, {task.key: ROWS}, pa.Table.from_batches(left))
    send_table(task, {task.key: IDS}, ids)
    seen = np.flatnonzero(tally.last >= 0)
    judged = np.stack([seen, degrees(rows.items, rows.alive)[seen], tally.last[seen]]).astype(np.int32)
    send(task, {ALL: f"{JUDGED}-{task.key}"}, judged)
    return {"rows": rows.n, "steps": tally.steps}


class Held:
    """A bucket's rows in memory as a source, which DuckDB knows as `held`."""

    def __init__(self, table: pa.Table) -> None:
        """Number the rows."""
        self.n = len(table)
        self.table = table.append_column("n", pa.array(np.arange(self.n)))

    def sql(self, *columns: str) -> str:
        """Give the SQL of all rows' columns and their number `n`."""
        return f"(select {', '.join([*columns, 'n'])} from held)"

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns of all rows in order."""
        yield from self.table.select(list(columns)).to_batches()


def gather(task: Task) -> Mapping[str, Any]:
    """Add up how many events each item has in all buckets, and say how many items each step left."""
    if task.key != ALL:
        return pass_on(task)
    refs = named(task)
    buckets = [name.removeprefix(f"{JUDGED}-") for name in refs if name.startswith(JUDGED)]
    items = len(read_table(refs[ITEMS], (1,)))
    counts, last = np.zeros(items, dtype=np.int32), np.full(items, -1, dtype=np.int8)
    for bucket in buckets:
        seen, events, step = np.load(refs[f"{JUDGED}-{bucket}"])
        counts[seen] += events
        last[seen] = np.maximum(last[seen], step)
    send(task, dict.fromkeys((ALL, *buckets), DEGREES), counts)
    return pass_on(task, without=(JUDGED,)) | {"items": items_left(last, 0)}


def place(task: Task) -> Mapping[str, Any]:
    """Give users and items of the core their new indexes, and write the items."""
    refs = named(task)
    if task.key != ALL or SETTLED not in refs:
        return pass_on(task) | ({"settled": False} if task.key == ALL else {})
    division: Division = task.params
    alive = np.load(refs[DEGREES]) > 0
    left = {name.removeprefix(f"{LEFT}-"): np.load(refs[name]) for name in refs if name.startswith(LEFT)}
    events, users = (int(found) for found in sum(left.values()))
    facts = {"settled": True, "interactions": events, "users": users, "items": int(np.count_nonzero(alive))}
    if not events:
        return facts
    with task.connect() as connection:
        view(connection, "described", division.catalogue)
        connection.register("item_ids", read_table(refs[ITEMS]))
        indexes, catalogue = clean.items_indexed(connection, alive, division.clean.universe)
        parquet.write(task.out, ITEMS_CLEAN, catalogue)
    for part in parquet.parts(task.out, ITEMS_CLEAN.name):
        task.emit(ITEMS_CLEAN.name, part, name=part.name)
    send(task, dict.fromkeys(left, INDEXES), indexes)
    first = 0
    for bucket, (_, users_of) in left.items():
        send(task, {bucket: FIRST}, np.array(first), file=f"{FIRST}-{bucket}")
        first += int(users_of)
    return facts


def write(task: Task) -> Mapping[str, Any]:
    """Write a bucket's users and events under their new indexes, where these are known."""
    refs = named(task)
    if INDEXES not in refs:
        return pass_on(task)
    of_users, of_items, alive = pairs(refs)
    ids, first = read_table(refs[IDS]), int(np.load(refs[FIRST]))
    per_user = np.zeros(len(ids), dtype=np.int32)
    found = degrees(of_users, alive)
    per_user[: len(found)] = found
    to = (clean.dense(per_user > 0, first), np.load(refs[INDEXES]))
    left = renumbered(Held(read_table(refs[ROWS])), alive, (of_users, of_items), to)
    firsts = bounds(per_user[per_user > 0]) + np.int32(first)
    written = {
        USERS: parquet.write(task.out, USERS, clean.users_left(ids.to_batches(), per_user > 0, first)),
        EVENTS: parquet.write(task.out, EVENTS, sorted_by_user(left, firsts, task.spill / "buckets")),
    }
    for table in written if written[EVENTS] else ():
        for part in parquet.parts(task.out, table.name):
            task.emit(table.name, part, name=f"{task.key}-{part.name}")
    return {"interactions": written[EVENTS], "users": written[USERS]}


def _judged(done: Results, total: int) -> list[dict[str, Any]]:
    """Give the ledger until the k-core; raises DataError as the local stage does."""
    told = [facts for key, facts in sorted(done.facts["judge"].items()) if key != ALL]
    check_count("clean", "rows judged", total, sum(facts["rows"] for facts in told))
    [items] = (facts["items"] for facts in done.of("gather") if facts)
    steps = [facts["steps"] for facts in told]
    return ledger(steps, [*items, *(0 for _ in steps[0])])  # a step that left nothing left no items


def _core_entry(params: CleanParams, before: int, done: Results, shards: Shards) -> dict[str, Any]:
    """Give the ledger's entry of the k-core; raises DataError where it is empty."""
    left = done.facts["place"][ALL]
    if not left["interactions"]:
        refs = [Ref(ALL, ref.key, ref.path, ref.rows) for ref in done.refs if ref.name == ROWS]
        best = None
        if before <= HINTED:
            best = shards.run("largest-k", refs, Step("largest", largest)).facts["largest"][ALL]["k"]
        raise clean.empty_core(params, before, best)
    for name in ("interactions", "users"):
        check_count("clean", name, left[name], sum(facts.get(name, 0) for facts in done.of("write")))
    return entry("k_core", clean.core_reason(params), left, before)
