"""Sequences by ranges of users: a range is read once, tables are joined from their parts.

    walk (a range of users) -> join (a table) -> items, sequences, train, valid, test and their .arrow twins

What ranges count of samples and of items, 20 bytes each, is added up where the table of items is made. One
task each writes an .arrow twin, as its record batches do not follow ranges, and the impressions, which stream
through whole.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines import sequences, shown
from sid_pipelines.based import view_items, view_texts
from sid_pipelines.chunks import Chunk
from sid_pipelines.packed import pack, unpack
from sid_pipelines.sharded.given import Given
from sid_pipelines.sharded.job import Ref, Step, Task
from sid_pipelines.sharded.ranges import Divided, UserRange, user_ranges
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.sharded.tables import check_count, filled, named_files, parts_of, pass_parts, send_parts
from sid_pipelines.stage import Outcome, Work
from sid_schemas import Table
from sid_schemas.tables import IMPRESSIONS, ITEMS, SEQUENCES
from sid_warehouse import parquet
from sid_warehouse.db import view

COUNTS, TALLY = "counts.parquet", "tally.safetensors"
TWINNED: tuple[Table, ...] = (SEQUENCES, *sequences.SPLITS.values())


def run(work: Work, shards: Shards) -> Outcome:
    """Write what the local stage writes; what goes on from a release takes most over, and runs here."""
    if "base" in work.inputs:
        return sequences.run(work)
    users, split = work.inputs["clean"].manifest["rows"]["users"], work.inputs["split"]
    events = split.manifest["rows"]["interactions"]
    ranges = user_ranges(split.parts("interactions"), users, shards.number(events))
    known = Divided(Given.of(work), tuple(ranges))
    keys = [numbered(number) for number in range(len(ranges))]
    refs = [Ref(key, key) for key in (*keys, *([IMPRESSIONS.name] if shown.listed(work) else []))]
    made = shards.run("sequences", refs, Step("walk", walk, known), Step("join", join, known))
    told, found = made.facts["walk"], made.facts["join"][ITEMS.name]
    tally = sequences.Tally(work.params)
    tally.merge(found["tally"], {})
    tally.check()
    for table in (ITEMS, *([IMPRESSIONS] if shown.listed(work) else []), *TWINNED):
        work.out.extend(table, parts_of(made, table))
    for table in TWINNED:
        [twin] = made.paths(f"{table.name}.arrow")
        parquet.link(twin, work.out.folder / twin.name)
    check_count("sequences", "events", events, sum(told[key]["events"] for key in keys))
    counted = {ITEMS.name: work.inputs["clean"].manifest["rows"]["items_clean"]}
    counted[SEQUENCES.name] = sum(told[key]["users"] for key in keys)
    counted |= {table.name: tally.counts[table.name, "samples"] for table in sequences.SPLITS.values()}
    for name, rows in counted.items():
        check_count("sequences", f"rows of {name}", rows, work.out.rows[name])
    return sequences.outcome(work, shown.Shown(**told.get(IMPRESSIONS.name, {})), found["findings"])


def walk(task: Task) -> Mapping[str, Any]:
    """Write the sequences and samples of a range of users, a chunk at a time, and count items and samples."""
    work = task.params.given.work(task)
    if task.key == IMPRESSIONS.name:
        return _impressions(task, work)
    own: UserRange = task.params.ranges[int(task.key)]
    tally, events, users, counts = sequences.Tally(work.params), 0, 0, []
    with task.connect() as connection:
        for chunk in own.chunks(sequences.COLUMNS):
            users += _append(task, SEQUENCES, sequences.histories([chunk], tally))
            for label, table in sequences.SPLITS.items():
                _append(task, table, sequences.samples([chunk], label, work.params))
            counts.append(_counted(connection, chunk))
            events += len(chunk)
    pq.write_table(pa.concat_tables(counts), task.out / COUNTS, compression="none")
    pack(task.out / TALLY, *tally.counted())
    for name in (COUNTS, TALLY):
        task.emit(ITEMS.name, task.out / name, name=f"{name} {task.key}")
    for table in TWINNED:
        send_parts(task, table)
    return {"events": events, "users": users}


def _append(task: Task, table: Table, batches: Iterator[pa.RecordBatch]) -> int:
    """Write rows behind those of the chunks before, as parts of their own."""
    there = len(list((task.out / table.name).glob("part-*")))
    return parquet.write(task.out, table, batches, first_part=there)


def _counted(connection: duckdb.DuckDBPyConnection, chunk: Chunk) -> pa.Table:
    connection.register("events", chunk.table.select(["item_index", "ts", "split"]))
    found = connection.sql(sequences.COUNTS).to_arrow_table()
    connection.unregister("events")
    return found


def _impressions(task: Task, work: Work) -> Mapping[str, Any]:
    with task.connect() as connection:
        for table in ("users", "items_clean"):
            view(connection, table, work.inputs["clean"].parts(table))
        lists = shown.write(work, connection)
    send_parts(task, IMPRESSIONS)
    return asdict(lists)


def join(task: Task) -> Mapping[str, Any]:
    """Make the table of items of what was counted, or one table's twin of its parts, which are sent on."""
    if task.key == ITEMS.name:
        return _items(task)
    for table in (IMPRESSIONS, *TWINNED):
        if task.key == table.name:
            pass_parts(task, table)
    for table in TWINNED:
        if task.key == table.name:
            _write_twin(task, table)
    return {}


def _items(task: Task) -> Mapping[str, Any]:
    work = task.params.given.work(task)
    tally = sequences.Tally(work.params)
    for path in named_files(task, TALLY):
        tally.merge(*unpack(path))
    with task.connect() as connection:
        view(connection, "item_counts", named_files(task, COUNTS))
        view_items(connection, work)
        view_texts(connection, work)
        work.out.write(ITEMS, sequences.items_counted(connection))
    send_parts(task, ITEMS)
    return {"tally": tally.counted()[0], "findings": tally.findings()}


def _write_twin(task: Task, table: Table) -> None:
    parquet.extend(task.spill, table, filled(task.refs), ())
    parquet.write_ipc(task.spill, table)
    twin: Path = task.out / f"{table.name}.arrow"
    (task.spill / twin.name).replace(twin)
    task.emit(twin.name, twin)
