"""Sort a stream of rows by user and time out of core: divided by ranges of users, then sorted range by range.

A bucket holds the rows of neighbouring users, so the sorted buckets one after another are the sorted
whole. Rows of a user at the same time keep the order in which they came.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ROWS = 2 << 20  # of a bucket; what is sorted in memory at a time
BATCH = 1 << 17  # rows of a batch


def bounds(events: npt.NDArray[np.int32], rows: int = ROWS) -> npt.NDArray[np.int32]:
    """Give the first user of every bucket but the first, so that a bucket has about so many rows.

    events: (n_users,) rows of each user. One user's rows are never divided.
    """
    total = np.cumsum(events, dtype=np.int64)
    marks = np.arange(rows, int(total[-1]) if len(total) else 0, rows)
    return np.unique(np.searchsorted(total, marks) + 1).astype(np.int32)


def divided(
    batches: Iterable[pa.RecordBatch], firsts: npt.NDArray[np.int32], folder: Path
) -> Iterator[pa.Table]:
    """Yield the rows of all batches bucket by bucket, in the order in which they came.

    Batches have a column user_index. firsts: what `bounds` gave. folder: where buckets wait on disk, if
    there are more than one; each is gone once the next is asked for.
    """
    if not len(firsts):
        held = list(batches)
        if held:
            yield pa.Table.from_batches(held)
        return
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"bucket-{number:05d}.arrow" for number in range(len(firsts) + 1)]
    writers: list[pa.RecordBatchStreamWriter | None] = [None] * len(paths)
    for batch in batches:
        bucket = np.searchsorted(firsts, batch.column("user_index").to_numpy(), side="right")
        for number, rows in parted(batch, bucket):
            writer = writers[number]
            if writer is None:
                # A stream, as dictionaries may differ from batch to batch, which a file does not allow.
                writer = writers[number] = pa.ipc.new_stream(paths[number], batch.schema)
            writer.write_batch(rows)
    for writer in writers:
        if writer is not None:
            writer.close()
    for path in paths:
        if path.exists():
            with pa.memory_map(str(path)) as file:
                yield pa.ipc.open_stream(file).read_all().unify_dictionaries()
            path.unlink()


def parted(batch: pa.RecordBatch, bucket: npt.NDArray[np.int64]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of each bucket that has any, in the order in which they came; bucket: of each row."""
    order = np.argsort(bucket, kind="stable")
    edges = np.searchsorted(bucket[order], np.arange(bucket.max(initial=-1) + 2))
    batch = batch.take(pa.array(order))
    for number in np.flatnonzero(np.diff(edges)):
        yield int(number), batch.slice(edges[number], edges[number + 1] - edges[number])


def sorted_by_user(
    batches: Iterable[pa.RecordBatch], firsts: npt.NDArray[np.int32], folder: Path
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of all batches by (user_index, ts), stably; see `divided`."""
    for table in divided(batches, firsts, folder):
        order = np.lexsort((table["ts"].to_numpy(), table["user_index"].to_numpy()))
        yield from table.take(pa.array(order)).combine_chunks().to_batches(max_chunksize=BATCH)
