"""UniGRec: one row for each user and split in Parquet, all numbers from 1, and vectors to learn SIDs from.

Its SIDs are soft and learned on the way, so it reads none: what it takes of a release are the split, the
numbering and the vectors. The trainer expands prefixes by itself (`model/dataset.py` 24 to 32).
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from sid_pipelines.chunks import Chunk
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder

READER = "UniGRec"
HELD_BACK = {"train": 2, "valid": 1, "test": 0}  # newest events that a file does not have: process.ipynb
SEQUENCES = pa.schema([("user", pa.int64()), ("history", pa.list_(pa.int64())), ("target", pa.int64())])


class UniGRecSettings(Settings):
    """embedding: whose vectors SIDs are learned from. cf: the teacher's embedding, empty for none."""

    embedding: str = "text"
    cf: str = ""


def write(feed: Feed, out: Folder, settings: UniGRecSettings) -> str:
    """Write the files of one data set."""
    feed.require_leave_one_out(READER)
    for embedding in filter(None, (settings.embedding, settings.cf)):
        feed.require_embedding(embedding)
    for split, less in HELD_BACK.items():
        out.parquet(
            f"{split}.parquet",
            f"one row for each user: items without the newest {less}, of which the last is the target"
            if less
            else "one row for each user: all items, of which the last is the target",
            SEQUENCES,
            (_sequences(chunk, less) for chunk in feed.chunks(["user_index", "item_index"])),
        )
    _write_vectors(feed, out, "item_emb_td.parquet", settings.embedding, "embedding")
    if settings.cf:
        _write_vectors(feed, out, "cf_emb_sasrec256.parquet", settings.cf, "cf_embedding")
    teacher = (
        f"`cf_emb_sasrec256.parquet` has the vectors of `{settings.cf}`; scripts look for that name."
        if settings.cf
        else "There is no `cf_emb_sasrec256.parquet`: leave out `--use_sasrec_teacher`, or `--set cf=NAME`."
    )
    return f"""\
Put this folder at `dataset/{feed.dataset}` of the trainer, set `DATASET={feed.dataset}` in
`run_train_rqvae.sh` and `run_train_unigrec.sh`, and run these two.

- Users and items count from 1: number i here is `user_index` or `item_index` i - 1 of the release; 0 pads.
- UniGRec learns its SIDs, three levels and a digit for items that collide, while it trains, from
  `item_emb_td.parquet`; it reads none. The SIDs of {feed.ref} are not in this folder.
- {teacher}
"""


def _sequences(chunk: Chunk, less: int) -> pa.Table:
    """Give one row for each user; less: the newest events that are left out."""
    past = chunk.place < chunk.spread(chunk.sizes) - less - 1
    ends = np.concatenate([[0], np.cumsum(chunk.sizes - less - 1)])
    history = pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), pa.array(chunk.items[past] + 1, pa.int64())
    )
    users = chunk.users[chunk.edges[:-1]].astype(np.int64) + 1
    targets = chunk.items[chunk.edges[1:] - 1 - less].astype(np.int64) + 1
    return pa.table([pa.array(users), history, pa.array(targets)], schema=SEQUENCES)


def _write_vectors(feed: Feed, out: Folder, file: str, embedding: str, column: str) -> None:
    schema = pa.schema([("ItemID", pa.int64()), (column, pa.list_(pa.float32()))])

    def batches() -> Iterator[pa.Table]:
        first = 1
        for vectors in feed.vectors(embedding):
            ends = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
            rows = pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors.reshape(-1)))
            yield pa.table([pa.array(np.arange(first, first + len(vectors))), rows], schema=schema)
            first += len(vectors)

    out.parquet(file, f"vectors of `{embedding}`, row i is item i, which has number i + 1", schema, batches())


FORMAT = Format(
    "unigrec",
    "UniGRec (Jialei-03/UniGRec at bc499ce)",
    "one row for each user and split in Parquet, and vectors",
    write,
    UniGRecSettings,
    papers=(2,),
    protocols=("leave-one-out",),
)
