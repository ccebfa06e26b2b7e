"""What became of events and samples between two releases, whose users and items have common numbers.

diff.py has made the views a_interactions, b_train, ... and the tables item_numbers and user_numbers. Events
are compared by SQL; histories by a hash of each slice of a sequence, so that none is ever written out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "valid", "test")
USERS = 65_536  # sequences at a time
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
MIXERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)
Hashes = npt.NDArray[np.uint64]


def compare_events(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """Count by split the events of a and of b, those only in one, and those in another split than before.

    An event is known by user, item, time, type and value; of several alike as many as there are in both are
    the same. added, removed: only in b, only in a. left, joined: in both, but in a as events of this split
    (left) or in b (joined), and of another one in the other release.
    """
    sides = " union all ".join(
        f"""select users.number as user, items.number as item, ts, event_type, value, split,
            {int(side == "a")} as in_a, {int(side == "b")} as in_b
        from {side}_interactions as event
        join user_numbers as users on users.{side} = event.user_index
        join item_numbers as items on items.{side} = event.item_index"""
        for side in ("a", "b")
    )
    event = "user, item, ts, event_type, value"
    rows = connection.sql(f"""
        with counted as (
            select {event}, split, sum(in_a) as a, sum(in_b) as b from ({sides}) group by {event}, split
        ), told as (
            select split, a, b, greatest(a - b, 0) as gone, greatest(b - a, 0) as come,
                sum(gone) over same as all_gone, sum(come) over same as all_come,
                sum(gone) over earlier - gone as gone_before, sum(come) over earlier - come as come_before
            from counted where a <> b
            window same as (partition by {event}), earlier as (partition by {event} order by split)
        ), paired as (
            select split, gone, come,
                least(gone, greatest(least(all_gone, all_come) - gone_before, 0)) as away,
                least(come, greatest(least(all_gone, all_come) - come_before, 0)) as here
            from told
        ), totals as (select split, sum(a) as a, sum(b) as b from counted group by split)
        select split, any_value(a), any_value(b), coalesce(sum(come - here), 0),
            coalesce(sum(gone - away), 0), coalesce(sum(away), 0), coalesce(sum(here), 0)
        from totals left join paired using (split) group by split""").fetchall()
    names = ("a", "b", "added", "removed", "left", "joined")
    found = {split: dict(zip(names, map(int, counts), strict=True)) for split, *counts in rows}
    return {split: found[split] for split in sorted(found, key=_split_order)}


def _split_order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)


def compare_samples(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """Count by split the samples of a and b that are the same, changed, or only in one.

    A sample is known by user, target item and target time; it is the same where its history, items and times
    in order, and its further targets are the same too, and changed where they are not.
    """
    connection.execute("""
        create table samples (side varchar, split varchar, "user" bigint, item bigint, ts bigint,
            history integer, targets integer, content ubigint)""")
    for side in ("a", "b"):
        for chunk in _samples(connection, side):
            connection.register("chunk", chunk)
            connection.execute("insert into samples select ?, * from chunk", [side])
            connection.unregister("chunk")
    rows = connection.sql("""
        with counted as (
            select split, "user", item, ts, count(*) filter (side = 'a') as a,
                count(*) filter (side = 'b') as b
            from samples group by split, "user", item, ts, history, targets, content
        ), known as (
            select split, sum(a) as a, sum(b) as b, sum(least(a, b)) as same,
                least(sum(greatest(a - b, 0)), sum(greatest(b - a, 0))) as changed
            from counted group by split, "user", item, ts
        )
        select split, sum(a), sum(b), sum(same), sum(changed), sum(b - same - changed),
            sum(a - same - changed)
        from known group by split""").fetchall()
    names = ("a", "b", "same", "changed", "added", "removed")
    found = {split: dict(zip(names, map(int, counts), strict=True)) for split, *counts in rows}
    return {split: found.get(split, dict.fromkeys(names, 0)) for split in SPLITS}


def _samples(connection: duckdb.DuckDBPyConnection, side: str) -> Iterator[pa.Table]:
    """Yield the samples of one release with their history as a hash, some users at a time."""
    users, items = (_numbers(connection, kind, side) for kind in ("user", "item"))
    for sequences in _sequences(connection, side):
        index, listed, times = sequences.columns
        index = index.to_numpy()
        found: pa.Table = connection.sql(
            " union all ".join(
                f"""select '{split}' as split, user_index, "start", "end", target, target_ts, n_targets
                from {side}_{split} where user_index between $1 and $2"""
                for split in SPLITS
            ),
            params=[int(index.min()), int(index.max())],
        ).to_arrow_table()
        row = np.full(int(index.max()) - int(index.min()) + 1, -1, dtype=np.int64)
        row[index - index.min()] = np.arange(len(index))
        of = row[found["user_index"].to_numpy() - index.min()]
        if (of < 0).any():  # users between these who stand in another part
            found, of = found.filter(pa.array(of >= 0)), of[of >= 0]
        offsets = listed.offsets.to_numpy().astype(np.int64)
        start, end, n = (found[name].to_numpy() for name in ("start", "end", "n_targets"))
        first = offsets[of]
        content = slice_hashes(
            items[listed.values.to_numpy()], times.values.to_numpy(), first + start, first + end + n
        )
        yield pa.table(
            {
                "split": found["split"],
                "user": users[found["user_index"].to_numpy()],
                "item": items[found["target"].to_numpy()],
                "ts": found["target_ts"],
                "history": end - start,
                "targets": n,
                "content": content,
            }
        )


def _sequences(connection: duckdb.DuckDBPyConnection, side: str) -> Iterator[pa.RecordBatch]:
    parts = connection.sql(f"select distinct filename from {side}_sequences order by filename").fetchall()
    for (part,) in parts:
        with pq.ParquetFile(Path(part), pre_buffer=False) as file:
            for batch in file.iter_batches(USERS, columns=["user_index", "items", "ts"]):
                if batch.num_rows:
                    yield batch


def _numbers(connection: duckdb.DuckDBPyConnection, kind: str, side: str) -> npt.NDArray[np.int64]:
    """Give the common number of each index of one release: (n,) int64."""
    found = connection.sql(
        f"select {side} as index, number from {kind}_numbers where {side} is not null"
    ).fetchnumpy()
    numbers = np.zeros(int(found["index"].max(initial=-1)) + 1, dtype=np.int64)
    numbers[found["index"]] = found["number"]
    return numbers


def slice_hashes(
    items: npt.NDArray[np.int64], ts: npt.NDArray[np.int64], start: npt.NDArray[Any], end: npt.NDArray[Any]
) -> Hashes:
    """Give a 64-bit hash of items[start:end] and ts[start:end] for each of many slices: (m,) uint64.

    A polynomial over mixed values, so that a slice's hash is the difference of two running sums; equal
    slices have equal hashes wherever they stand, and others differ but for a chance of one in 2**64.
    """
    first, second, third = (np.uint64(one) for one in MIXERS)
    values = items.astype(np.uint64) * first + ts.astype(np.uint64) * second
    values ^= values >> np.uint64(31)
    values *= third
    values ^= values >> np.uint64(29)
    powers = np.cumprod(np.full(len(values), BASE, dtype=np.uint64))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(values * powers)])
    inverse = np.full(len(sums), pow(BASE, -1, 2**64), dtype=np.uint64)
    inverse[0] = 1
    hashes: Hashes = (sums[end] - sums[start]) * np.cumprod(inverse)[start]
    return hashes
