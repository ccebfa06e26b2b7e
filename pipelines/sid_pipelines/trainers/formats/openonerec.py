"""OpenOneRec: items' SIDs and behaviour as its prompt builders read them, and text as its trainer reads it.

The builders (`data/onerec_data`) make text of `pid2sid.parquet` and `metadata.parquet` with prompts of their
own; `pretrain/` and `sft/` skip them: samples as bare SIDs, and as a plain question. Instruction data of all
tasks in the same shards are in sid_pipelines/instructions.
"""

import json
import uuid
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import SPLITS, Feed, SampleBatch
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import DIALECTS

READER = "OpenOneRec"
LENGTH = 3  # video_rec.py 17: an item is c0, c1 and c2
HISTORY, TARGETS = 512, 10  # video_rec.py 18 and 19
QWEN3 = 151_669  # tokens of Qwen3's own tokenizer: the first SID token's number
PADDED = 256  # expand_qwen3_vocab.py fills its vocabulary up to a multiple of this
QUESTION = "A user has seen these items, oldest first:\n{history}\nWhich item comes next?"
IDS = uuid.UUID("5b1f9e0a-6a3c-5d0e-9a5e-2f1c8f0f7a11")  # ours; names every example by release, kind and row
TEXT = ("uuid", "source", "metadata", "images", "videos", "messages", "segments")
SHARD = pa.schema([(column, pa.string()) for column in TEXT])
SIDS = pa.schema([("pid", pa.int64()), ("sid", pa.list_(pa.int64())), ("codes", pa.list_(pa.int64()))])


class OpenOneRecSettings(Settings):
    """domain: whose columns of the behaviour table the items fill: video, ad or goods.

    embedding: whose vectors go along. rows_per_file: examples in a shard. list_prefix: this folder as the
    trainer will see it, before every name in `file_list.json`; empty where it runs in the shards' own folder.
    """

    domain: Literal["video", "ad", "goods"] = "video"
    embedding: str = "text"
    rows_per_file: int = Field(1000, ge=1, le=65_536)  # the reader takes one row group of a file, no more
    list_prefix: str = ""


def write(feed: Feed, out: Folder, settings: OpenOneRecSettings) -> str:
    """Write the files of one data set."""
    feed.require_levels(READER)
    feed.require_length(READER, LENGTH, LENGTH)
    feed.require_embedding(settings.embedding)
    _write_items(feed, out, settings.embedding)
    _write_behaviour(feed, out, settings.domain)
    for kind in ("pretrain", "sft"):
        _write_shards(feed, out, kind, settings)
    return _readme(feed, settings)


def _write_items(feed: Feed, out: Folder, embedding: str) -> None:
    says = "the SID of every item, which prompt builders read as `sid`; `codes` are those before collisions"
    out.parquet("pid2sid.parquet", says, SIDS, [_sids(feed)])
    captions = pa.schema([("pid", pa.int64()), ("dense_caption", pa.string())])
    rows = enumerate(feed.items(["text"]))
    batches = (
        pa.table([[pid for pid, _ in some], [row["text"] for _, row in some]], schema=captions)
        for some in iter(lambda: list(islice(rows, 8192)), [])
    )
    out.parquet("pid2caption.parquet", "the text that was embedded for every item", captions, batches)
    vectors = pa.schema([("pid", pa.int64()), ("embedding", pa.list_(pa.float32()))])
    says = f"vectors of `{embedding}`: for the trainer's own tokenizer (`tokenizer/`)"
    out.parquet("embedding.parquet", says, vectors, _vectors(feed, embedding, vectors))


def _sids(feed: Feed) -> pa.Table:
    pids = pa.array(np.arange(feed.n_items))
    return pa.table([pids, *map(_lists, (feed.sids[:, :LENGTH], feed.codes))], schema=SIDS)


def _lists(rows: Any) -> pa.ListArray:
    ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(rows.reshape(-1).astype(np.int64)))


def _vectors(feed: Feed, embedding: str, schema: pa.Schema) -> Iterator[pa.Table]:
    first = 0
    for rows in feed.vectors(embedding):
        ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
        lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(rows.reshape(-1)))
        yield pa.table([pa.array(np.arange(first, first + len(rows))), lists], schema=schema)
        first += len(rows)


def _write_behaviour(feed: Feed, out: Folder, domain: str) -> None:
    items = pa.list_(pa.int64())
    names = ("uid", "split", f"hist_{domain}_pid", f"target_{domain}_pid")
    schema = pa.schema(list(zip(names, (pa.int64(), pa.int64(), items, items), strict=True)))
    says = f"all samples: split 0 is train, 1 valid, 2 test; histories of the newest {HISTORY}"

    def batches() -> Iterator[pa.Table]:
        for number, split in enumerate(SPLITS):
            for batch in feed.samples(split, max_history=HISTORY):
                splits = np.full(len(batch), number, dtype=np.int64)
                history = pa.ListArray.from_arrays(
                    batch.offsets.astype(np.int32), batch.history.astype(np.int64)
                )
                targets = pa.ListArray.from_arrays(
                    batch.target_offsets.astype(np.int32), batch.targets.astype(np.int64)
                )
                users = pa.array(batch.user.astype(np.int64))
                yield pa.table([users, pa.array(splits), history, targets], schema=schema)

    out.parquet("metadata.parquet", says, schema, batches())


def _write_shards(feed: Feed, out: Folder, kind: str, settings: OpenOneRecSettings) -> None:
    """Write the train samples that have a history: `segments` to pretrain on, or `messages` to tune with."""
    count = sum(int((np.diff(batch.offsets) > 0).sum()) for batch in feed.samples("train", max_history=1))
    files = -(-count // settings.rows_per_file)
    names = [f"part-{number:05d}-of-{files:05d}.parquet" for number in range(files)]
    rows = _examples(feed, kind)
    for name in names:
        some = list(islice(rows, settings.rows_per_file))
        columns = [[row.get(column) for row in some] for column in TEXT]
        out.parquet(f"{kind}/{name}", f"examples of {kind}", SHARD, [pa.table(columns, schema=SHARD)])
    before = f"{settings.list_prefix}{kind}/" if settings.list_prefix else ""
    says = f"the shards of {kind}, which the trainer's `sources` names"
    out.json(f"{kind}/file_list.json", says, [before + name for name in names], indent=1)


def _examples(feed: Feed, kind: str) -> Iterator[dict[str, str]]:
    onerec = DIALECTS["onerec"]
    texts = [onerec.text(sid, feed.vocabulary) for sid in feed.sids.tolist()]
    fingerprint = feed.release.record["fingerprint"]
    for batch in feed.samples("train", max_history=HISTORY):
        for sample, (user, _, history) in enumerate(batch):
            if not len(history):
                continue
            row = int(batch.row[sample])
            asked = "".join(texts[item] for item in history.tolist())
            answer = "".join(texts[item] for item in _targets(batch, sample))
            yield {
                "uuid": str(uuid.uuid5(IDS, f"{fingerprint}/{kind}/{row}")),
                "source": f"{feed.dataset}_{kind}",
                "metadata": json.dumps({"uid": user, "split": "train", "row": row}),
                "images": "{}",
                "videos": "{}",
                **_told(kind, asked, answer),
            }


def _targets(batch: SampleBatch, sample: int) -> list[int]:
    first, last = batch.target_offsets[sample : sample + 2].tolist()
    targets: list[int] = batch.targets[first : min(last, first + TARGETS)].tolist()
    return targets


def _told(kind: str, asked: str, answer: str) -> dict[str, str]:
    if kind == "pretrain":
        return {"segments": json.dumps([{"type": "text", "text": asked + answer}])}
    said = (("user", QUESTION.format(history=asked)), ("assistant", answer))
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    return {"messages": json.dumps(messages)}


def _readme(feed: Feed, settings: OpenOneRecSettings) -> str:
    levels, domain = feed.vocabulary.sizes, settings.domain
    codes = max(levels)
    tokens = QWEN3 + LENGTH * codes + 2
    padded = -(-tokens // PADDED) * PADDED
    enough = (
        "`video_rec` and `item_understand`; the others want columns of Kuaishou's own, as likes and profiles"
        if domain == "video"
        else "`item_understand`; those of ads and goods want videos that were watched as well"
    )
    return f"""\
**Vocabulary.** Run `pretrain/tools/model_converter/expand_qwen3_vocab.py --itemic_layer_n {LENGTH}
--vocab_size_per_layer {codes}`: every level gets {codes} tokens, as many as the largest one has (here
{", ".join(map(str, levels))}). Qwen3's {QWEN3:,} tokens become {tokens:,}, and the model's embedding
{padded:,} rows, of which the last {padded - tokens} stand for nothing. In the config of the data set write
`"itemic_id_range": [{QWEN3}, {tokens - 1}]`; its examples' 151669 to 176246 are for 8,192 codes.

**Text that is ready.** `"sources": ".../sft/file_list.json"`, or `pretrain/`, in the config of the data set.
Names in the list are taken from where the trainer runs: run it in that folder, or export with
`--set list_prefix=/path/to/`, to which `sft/` and `pretrain/` are added. The reader takes one row group of
every file, and deals files out to workers: have more files than workers.

**Text by their builders.** In `data/onerec_data/run.sh` set `INPUT_METADATA` to `metadata.parquet`,
`PID2SID_MAPPING` to `pid2sid.parquet` and `CAPTION_INPUT` to `pid2caption.parquet`; `metadata.parquet` fills
`hist_{domain}_pid` and `target_{domain}_pid`. That is enough for
{enough}. Builders
use rows with split 0 and give examples a random uuid; ours are the same in every export.

- `pid` is `item_index`, `uid` is `user_index` of the release, both from 0.
- There are {feed.n_shared:,} items more than SIDs: what the model writes does not tell items of one SID
  apart.
- Samples without a history are left out of the text, and stand in `metadata.parquet`.
"""


FORMAT = Format(
    "openonerec",
    "OpenOneRec (Kuaishou-OneRec/OpenOneRec at 1f4a99e)",
    "pid2sid, behaviour, and text in Parquet shards",
    write,
    OpenOneRecSettings,
    papers=(5,),
)
