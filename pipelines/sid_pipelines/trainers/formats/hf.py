"""Hugging Face `datasets`: samples, items and SIDs as Parquet, with a card that `load_dataset` opens.

Unlike the tables of a release this stands for itself: histories are written out, and every sample has the
SIDs and token ids of its history and target, so that a trainer of its own needs nothing but `datasets`.
Source: huggingface.co/docs/hub/datasets-manual-configuration.
"""

import numpy as np
import pyarrow as pa

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import SPLITS, Feed, SampleBatch
from sid_pipelines.trainers.reading.token_lists import TokenLists
from sid_pipelines.trainers.writing.folder import Folder

I32, I64, STR = pa.int32(), pa.int64(), pa.string()
READER = "the data set card's samples"
HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
SAMPLES = pa.schema(
    [
        ("sample", I64),  # row of the split's table in the release
        ("user", STR),
        ("history", pa.list_(I32)),
        ("history_ts", pa.list_(I64)),
        ("target", I32),
        ("target_ts", I64),
        ("input_ids", pa.list_(I32)),
        ("labels", pa.list_(I32)),
    ]
)
ITEMS = pa.schema(
    [
        ("item_index", I32),
        ("item_id", STR),
        ("title", STR),
        ("text", STR),
        ("category_path", pa.list_(STR)),
        ("popularity_train", I32),
    ]
)
SIDS = pa.schema(
    [
        ("item_index", I32),
        ("item_id", STR),
        ("sid", pa.list_(I32)),
        ("token_ids", pa.list_(I32)),
        ("text", STR),
        ("slot", I32),
    ]
)


class HfSettings(Settings):
    """max_history: the newest items of a history that are written, 0 for all."""

    max_history: int = 50


def write(feed: Feed, out: Folder, settings: HfSettings) -> str:
    """Write one file for each split, items, SIDs, and the head of the card."""
    feed.require_one_target(READER)
    users, tokens = pa.array(feed.user_ids, STR), TokenLists(feed)
    there = [split for split in SPLITS if feed.count(split)]
    for split in there:
        batches = (
            _samples(batch, users, tokens) for batch in feed.samples(split, max_history=settings.max_history)
        )
        out.parquet(f"samples/{HUB_SPLITS[split]}.parquet", f"the {split} samples", SAMPLES, batches)
    out.parquet("items/train.parquet", "the items", ITEMS, feed.tables("items", ITEMS.names))
    out.parquet("sids/train.parquet", "the SID of every item", SIDS, feed.tables("sids", SIDS.names))
    out.card = _card(feed, there)
    vocabulary = feed.vocabulary
    return f"""
```python
from datasets import load_dataset

samples = load_dataset("path/to/this/folder")  # {", ".join(HUB_SPLITS[split] for split in there)}
items = load_dataset("path/to/this/folder", "items", split="train")
sids = load_dataset("path/to/this/folder", "sids", split="train")
```

A sample's `history` is items, oldest first; `input_ids` are their SIDs as numbers of one vocabulary, `labels`
those of the target. It has {len(vocabulary)} numbers: {vocabulary.pad} pads, {vocabulary.bos} begins,
{vocabulary.eos} ends, and code 0 of each place is {", ".join(map(str, vocabulary.offsets))}.
Where SIDs differ in length, so do the numbers of each item. `sample` is the row of the split's table in the
release. Before you upload this folder, look at the licence of the data: that is yours to declare.
"""


def _samples(batch: SampleBatch, users: pa.Array, tokens: TokenLists) -> pa.RecordBatch:
    offsets = batch.offsets.astype(np.int32)
    columns = {
        "sample": batch.row,
        "user": users.take(batch.user),
        "history": pa.ListArray.from_arrays(offsets, batch.history),
        "history_ts": pa.ListArray.from_arrays(offsets, batch.history_ts),
        "target": batch.target,
        "target_ts": batch.target_ts,
        "input_ids": tokens.of(batch.history, batch.offsets),
        "labels": tokens.each(batch.target),
    }
    return pa.record_batch(columns, schema=SAMPLES)


def _card(feed: Feed, splits: list[str]) -> str:
    lines = ["pretty_name: " + feed.ref, "configs:", "- config_name: samples", "  default: true"]
    lines.append("  data_files:")
    for split in splits:
        hub = HUB_SPLITS[split]
        lines += [f"  - split: {hub}", f"    path: samples/{hub}.parquet"]
    for name in ("items", "sids"):
        lines += [f"- config_name: {name}", f"  data_files: {name}/train.parquet"]
    return "\n".join(lines)


FORMAT = Format(
    "hf",
    "Hugging Face datasets (datasets 5.2.0)",
    "Parquet by split, items and SIDs, and a card, for `load_dataset`",
    write,
    HfSettings,
)
