"""Items from the rows that describe them, and rejects: in one task where rows are few, else by ranges of ids.

    close_rest -> divide (some files of descriptions) -> settle (a range of item ids) -> gather

What comes after reading.py in ingest.py. The local stage's `write_items` settles a range as it settles all.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.ingest import write_items, write_rejects
from sid_pipelines.sharded.job import Ref, Task
from sid_pipelines.sharded.passing import named, pass_on
from sid_pipelines.sharded.shards import MOST, number_of, numbered
from sid_pipelines.sharded.tables import named_files, named_refs, pass_parts, send_parts
from sid_pipelines.tallies import Spilled
from sid_schemas.tables import RAW_ITEM_PAIRS, RAW_ITEMS, REJECTS
from sid_warehouse import files, parquet
from sid_warehouse.db import scan

SAMPLE = 1_000  # ids of each shard of items that their bounds are taken from, about
DESCRIBED, REJECTED = "described", "rejected"  # rows on their way
REST = "rest"  # the task that sees all of those
BOUNDS = "bounds"  # first ids of ranges


def close_rest(task: Task, count: int, *, pairs: bool) -> dict[str, int]:
    """Settle descriptions and sort rejects where they are few, or make shards of them.

    count: of shards, 0 where the number of rows decides. pairs: whether to tell of pairs of items.
    """
    described = named_refs(task, DESCRIBED)
    shards = number_of(count, sum(ref.rows for ref in described))
    if described and shards > 1:
        _spread(task, described, shards)
        return {}
    with task.connect() as connection:
        conflicts, settled = Spilled(task.spill / "conflicts.parquet"), {}
        if described:
            settled = _settle(task, connection, conflicts, pairs=pairs)
        rejected = named_files(task, REJECTED)
        if conflicts.rows:
            conflicts.close()
            rejected.append(conflicts.path)
        _sort_rejects(task, connection, rejected)
    return settled


def _spread(task: Task, described: Sequence[Ref], shards: int) -> None:
    """Deal files of descriptions to at most MOST tasks, each of which is told where ranges of ids begin."""
    bounds = task.out / f"{BOUNDS}.json"
    files.write_json(bounds, _bounds(described, shards))
    dealt = [f"{DESCRIBED}-{numbered(n)}" for n in range(min(len(described), MOST))]
    for key in dealt:
        task.emit(key, bounds, name=BOUNDS)
    for number, ref in enumerate(described):
        task.emit(dealt[number % len(dealt)], Path(ref.path), name=ref.name, rows=ref.rows)
    for ref in named_refs(task, REJECTED):
        task.emit(REJECTED, Path(ref.path), name=ref.name, rows=ref.rows)


def _bounds(described: Sequence[Ref], shards: int) -> list[str]:
    """Give the first id of every range but the first, from a sample that is the same each time."""
    every = max(sum(ref.rows for ref in described) // (SAMPLE * shards), 1)
    ids = sorted({one for ref in described for one in _sample(Path(ref.path), every)})
    return sorted({ids[len(ids) * n // shards] for n in range(1, shards)})


def _sample(path: Path, every: int) -> list[str]:
    """Give every so many-th id of a file; the ids of one file are in memory, no more."""
    column = pq.read_table(path, columns=["item_id"])["item_id"]
    ids: list[str] = column.take(pa.array(np.arange(0, len(column), every))).to_pylist()
    return ids


def divide(task: Task) -> dict[str, Any]:
    """Divide some descriptions by the range that the item's id falls into."""
    if task.key == REJECTED:
        return pass_on(task)
    bounds, ranges = files.read_json(named(task)[BOUNDS]), dict[int, Spilled]()
    for path in named_files(task, DESCRIBED):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                places = np.array([bisect_right(bounds, one) for one in batch.column("item_id").to_pylist()])
                for place in np.unique(places).tolist():
                    spilled = ranges.setdefault(place, Spilled(task.out / f"{numbered(place)}.parquet"))
                    spilled.add(pa.Table.from_batches([batch.filter(pa.array(places == place))]))
    for place, spilled in sorted(ranges.items()):
        send_spilled(task, spilled, numbered(place), DESCRIBED)
    return {}


def settle(task: Task) -> dict[str, Any]:
    """Settle the items of one range. params: whether to tell of pairs of items."""
    if task.key == REJECTED:
        return pass_on(task)
    conflicts = Spilled(task.out / f"{REJECTED}.parquet")
    with task.connect() as connection:
        settled = _settle(task, connection, conflicts, pairs=task.params, key=task.key)
    send_spilled(task, conflicts, REJECTED)
    return settled


def gather(task: Task) -> dict[str, Any]:
    """Sort all rejects, or send on what one range gave."""
    if task.key != REJECTED:
        pass_parts(task, RAW_ITEMS, RAW_ITEM_PAIRS)
        return {}
    with task.connect() as connection:
        _sort_rejects(task, connection, task.paths)
    return {}


def _settle(
    task: Task, connection: duckdb.DuckDBPyConnection, conflicts: Spilled, *, pairs: bool, key: str = ""
) -> dict[str, int]:
    """Write and send items and pairs as the local stage makes them of the descriptions that came in.

    Gives how many descriptions there were, and what was made of them. key: as of `send_parts`.
    """
    source, write = scan(named_files(task, DESCRIBED)), partial(parquet.write, task.out)
    [(descriptions,)] = connection.sql(f"select count(*) from {source}").fetchall()
    made = write_items(connection, source, conflicts, write, pairs=pairs)
    for table in (RAW_ITEMS, RAW_ITEM_PAIRS) if pairs else (RAW_ITEMS,):
        send_parts(task, table, key)
    return {"descriptions": descriptions, **made}


def _sort_rejects(task: Task, connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
    write_rejects(connection, scan(paths) if paths else None, partial(parquet.write, task.out))
    send_parts(task, REJECTS)


def send_spilled(task: Task, spilled: Spilled, key: str, what: str = "") -> None:
    """End a file that was spilled, and send it where it holds rows. what: it holds, else its name says so."""
    if spilled.started:
        spilled.close()
    if spilled.rows:
        task.emit(key, spilled.path, name=f"{what or spilled.path.stem} {task.key}", rows=spilled.rows)
