"""PRISM: sequences and items as Parquet, tags with vectors, behaviour vectors, and the SID of every item as
JSON.

Its tokenizer reads items, tags and behaviour (src/sid_tokenizer/prism/multimodal_dataset.py), its
recommender the sequences and the SIDs (src/recommender/prism/dataset.py). Items count from 1, as 0 pads. The
source embeds a tag's words; ours is the mean of its items' vectors [D].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.writing.folder import Folder
from sid_pipelines.trainers.writing.plain_pickle import map_array_file

READER = "PRISM"
CF_WIDTH = 64
I64, F32, STR = pa.int64(), pa.float32(), pa.string()
SEQUENCES = pa.schema([("user", I64), ("history", pa.list_(I64)), ("target", I64)])
ITEMS = pa.schema(
    [
        ("ItemID", I64),
        ("attribute_embedding", pa.list_(F32)),
        ("category_tag_ids", pa.list_(I64)),
        ("category_tag_texts", pa.list_(STR)),
        ("num_categories", I64),
        ("popularity_score", F32),
    ]
)
TAGS = pa.schema([("tag_id", I64), ("tag_text", STR), ("tag_embedding", pa.list_(F32))])
Matrix = npt.NDArray[np.float32]


class PrismSettings(Settings):
    """embedding: whose vectors are the content. cf: the embedding of behaviour, 64 numbers."""

    embedding: str = "text"
    cf: str = "collaborative"


@dataclass(frozen=True)
class Tags:
    """The tags of a catalogue, numbered from 1 in order of their words, and of each item, broad to narrow."""

    words: list[str]
    of: list[list[int]]

    @classmethod
    def read(cls, feed: Feed) -> "Tags":
        """Read one row for each item; all paths begin with the data set, the level that PRISM leaves out."""
        paths = [
            [feed.dataset, *dict.fromkeys(one_line(tag) for tag in row["category_path"] if one_line(tag))]
            for row in feed.items(["category_path"])
        ]
        words = sorted({tag for path in paths for tag in path})
        numbers = {tag: number for number, tag in enumerate(words, 1)}
        return cls(words, [[numbers[tag] for tag in path] for path in paths])


def write(feed: Feed, out: Folder, settings: PrismSettings) -> str:
    """Write what the tokenizer reads, then what the recommender reads."""
    feed.require_leave_one_out(READER)
    feed.require_levels(READER)
    feed.require_length(READER)
    if (width := feed.dim(settings.cf)) != CF_WIDTH:
        expected = f"behaviour vectors of {CF_WIDTH} numbers"
        raise feed.refuse(READER, expected, f"{width} in {settings.cf!r}", "Embed with dim = 64")
    feed.require_embedding(settings.embedding)
    tags = Tags.read(feed)
    out.parquet("item_emb.parquet", "items: vector, tags, popularity", ITEMS, _items(feed, settings, tags))
    out.parquet(
        "tag_embeddings.parquet", "tags: the mean vector of their items", TAGS, _tags(feed, settings, tags)
    )
    map_array_file(
        out.file("tag_mapping.npy", "{tag: number}"), ((tag, n) for n, tag in enumerate(tags.words, 1))
    )
    out.npy(
        "lightgcn/item_embeddings_collab.npy",
        f"vectors of `{settings.cf}`, float32, row i is item i; row 0 is zeros",
        (feed.n_items + 1, CF_WIDTH),
        "float32",
        _after_padding(feed.vectors(settings.cf), CF_WIDTH),
    )
    for name, kept in (("train", -2), ("valid", -1), ("test", 0)):
        says = (
            f"one row a user: {'all' if not kept else f'all but the last {-kept}'} items, the last the target"
        )
        out.parquet(f"{name}.parquet", says, SEQUENCES, _sequences(feed, kept))
    with out.text("semantic_id_mappings.json", "the SID of every item, by number") as file:
        file.write('{"item_to_codes": {\n')
        lines = (f'"{item}": {sid.tolist()}' for item, sid in enumerate(feed.sids, 1))
        file.write(",\n".join(lines) + "\n}}\n")
    return f"""
Give this folder as `--data_path` of `train_prism.py`, and as the recommender's data folder;
`semantic_id_mappings.json` is its mapping of SIDs, so its own tokenizer need not run.

- Train rows are whole: the trainer takes every prefix itself (src/recommender/prism/dataset.py 372 to 385).
- It numbers codes anew by the highest code that each level has (272 to 285), not by the codebook's size.
- Its first level of tags is left out everywhere; it is the data set's name here, as `Beauty` is there.
- Popularity is of train events; its script would count the last one of each user alone
  (add_popularity_score.py 50).
- `num_categories` is read and not used. Vectors have {feed.dim(settings.embedding)} numbers, there 768.
- `tag_mapping.npy` is an object array as `np.save` writes it: a dict of text and whole numbers.
- `item_codebook_mappings.npz`, which multimodal fusion reads, comes of a trained PRISM alone and is not here.
"""


def _items(feed: Feed, settings: PrismSettings, tags: Tags) -> Iterator[pa.RecordBatch]:
    counts = np.array([row["popularity_train"] for row in feed.items(["popularity_train"])], dtype=np.float64)
    logs = np.log1p(counts)
    low, high = float(logs.min()), float(logs.max())
    scores = (logs - low) / (high - low) if high > low else np.full(len(logs), 0.5)
    start = 0
    for vectors in feed.vectors(settings.embedding):
        rows = slice(start, start := start + len(vectors))
        mine = tags.of[rows]
        columns: dict[str, Any] = {
            "ItemID": np.arange(rows.start, rows.stop) + 1,
            "attribute_embedding": _lists(vectors),
            "category_tag_ids": mine,
            "category_tag_texts": [[tags.words[tag - 1] for tag in path] for path in mine],
            "num_categories": [len(path) for path in mine],
            "popularity_score": scores[rows].astype(np.float32),
        }
        yield pa.record_batch(columns, schema=ITEMS)


def _tags(feed: Feed, settings: PrismSettings, tags: Tags) -> Iterator[pa.RecordBatch]:
    sums = np.zeros((len(tags.words), feed.dim(settings.embedding)), dtype=np.float64)
    sizes = np.zeros(len(tags.words))
    items = iter(tags.of)
    for vectors in feed.vectors(settings.embedding):
        for vector, path in zip(vectors, items, strict=False):
            sums[np.array(path) - 1] += vector
            sizes[np.array(path) - 1] += 1
    means = (sums / sizes[:, None]).astype(np.float32)
    columns = {"tag_id": np.arange(len(means)) + 1, "tag_text": tags.words, "tag_embedding": _lists(means)}
    yield pa.record_batch(columns, schema=TAGS)


def _sequences(feed: Feed, kept: int) -> Iterator[pa.RecordBatch]:
    """Yield one row for each user who has a history left when the last items are not."""
    for chunk in feed.chunks(["user_index", "item_index"]):
        ends = chunk.edges[1:] + kept - 1  # the target's row
        there = ends > chunk.edges[:-1]
        starts, ends = chunk.edges[:-1][there], ends[there]
        offsets = np.concatenate([[0], np.cumsum(ends - starts)])
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, ends - starts)
        history = pa.ListArray.from_arrays(offsets.astype(np.int32), chunk.items[places].astype(np.int64) + 1)
        users = chunk.users[starts].astype(np.int64)
        targets = chunk.items[ends].astype(np.int64) + 1
        yield pa.record_batch({"user": users, "history": history, "target": targets}, schema=SEQUENCES)


def _after_padding(batches: Iterator[Matrix], width: int) -> Iterator[Matrix]:
    yield np.zeros((1, width), dtype=np.float32)
    yield from batches


def _lists(vectors: Matrix) -> pa.ListArray:
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(offsets, vectors.reshape(-1))


FORMAT = Format(
    "prism",
    "PRISM (DengzhaoFang/PRISM at 9d5f430)",
    "sequences and items as Parquet, tags, behaviour vectors, SIDs as JSON",
    write,
    PrismSettings,
    papers=(38,),
    protocols=("leave-one-out",),
)
