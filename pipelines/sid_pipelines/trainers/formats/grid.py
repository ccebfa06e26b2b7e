"""GRID: users' items and items' texts as gzip TFRecords, SIDs and vectors as torch tensors.

The trainer turns item numbers into SIDs as it reads, so one folder of sequences serves any number of SID
tensors. Paths are those of its configs, not of its README (`configs/experiment/tiger_train_flat.yaml` 75, 138
and 168 against README 43 to 46).
"""

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sid_pipelines.chunks import TRAIN
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.reading.digits import grid_digit, told_apart
from sid_pipelines.trainers.writing import tfrecords
from sid_pipelines.trainers.writing.folder import Folder

READER = "GRID"
FOLDERS = {"training": "train", "evaluation": "valid", "testing": "test"}
SHORTEST = 2  # items of a row: one to read, one to predict


class GridSettings(Settings):
    """What may be chosen for GRID.

    embedding: whose vectors go along. digit: `release` writes the release's SIDs, with a last digit only
    where items share one; `grid` writes the tokenizer's codes before collisions were resolved, and the digit
    that GRID itself would give them. text: `ascii` writes items' texts as the trainer can read them, `utf-8`
    as they are. files: in each folder; the trainer wants as many as GPUs times `num_workers` (8).
    """

    embedding: str = "text"
    digit: Literal["release", "grid"] = "release"
    text: Literal["ascii", "utf-8"] = "ascii"
    files: int = Field(default=8, ge=1, le=1000)


def write(feed: Feed, out: Folder, settings: GridSettings) -> str:
    """Write sequences, items, SIDs and vectors."""
    feed.require_embedding(settings.embedding)
    feed.require_samples(READER, "valid", "test")
    feed.require_one_target(READER)
    sids, says = _sids(feed, settings)
    varints = [tfrecords.varint(item) for item in range(feed.n_items)]
    rows = {}
    for folder, split in FOLDERS.items():
        records = (_sequence(user, items, varints) for user, items in _rows(feed, split))
        rows[folder] = _write(out, folder, f"items of users, oldest first: {split}", records, settings.files)
    texts = _Texts(feed, ascii=settings.text == "ascii")
    _write(out, "items", "the number and the text of every item", texts, settings.files)
    depth, n = sids.shape[1], feed.n_items
    out.tensor("sids.pt", f"SIDs, int64 ({depth}, {n}): column i is item i", (depth, n), "int64", [sids.T])
    out.tensor(
        f"embeddings_{settings.embedding}.pt",
        f"vectors of `{settings.embedding}`, float32, row i is item i: for its own tokenizers",
        (n, feed.dim(settings.embedding)),
        "float32",
        feed.vectors(settings.embedding),
    )
    short = {folder: _count(feed, split) - rows[folder] for folder, split in FOLDERS.items()}
    return _readme(settings, depth, int(sids.max()), says, rows, short, texts.changed)


def _sids(feed: Feed, settings: GridSettings) -> tuple[npt.NDArray[np.int64], str]:
    """Give the SIDs that are written, (n_items, D), and what they are."""
    if settings.digit == "release":
        sids, added = told_apart(feed, READER)
        says = "the release's SIDs"
        return sids, says + (", and a digit: 0, or 1 to k where k items share one" if added else "")
    codes = feed.codes.astype(np.int64)
    if (codes < 0).any():
        raise feed.refuse(READER, "codes of one length", "paths of several", "Choose a tokenizer of codes")
    says = (
        "the tokenizer's codes before collisions were resolved, and a digit: 0, or 1 to k where k share them"
    )
    return np.column_stack([codes, grid_digit(codes)]), says


def _rows(feed: Feed, split: str) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """Yield (user, items) of a folder's rows that are long enough; the last item is what is predicted.

    `train`: all train events of a user, as the trainer takes every part of them by itself.
    """
    if split == "train":
        for user in feed.users():
            items = user.items[user.split == TRAIN]
            if len(items) >= SHORTEST:
                yield user.index, items
        return
    for batch in feed.samples(split):
        for index, target, history in batch:
            if len(history) >= SHORTEST - 1:
                yield index, np.append(history, np.int32(target))


def _count(feed: Feed, split: str) -> int:
    return feed.n_users if split == "train" else feed.count(split)


def _sequence(user: int, items: npt.NDArray[np.int32], varints: list[bytes]) -> bytes:
    return tfrecords.example(
        sequence_data=tfrecords.int64_list(b"".join([varints[item] for item in items.tolist()])),
        user_id=tfrecords.int64_list(tfrecords.varint(user)),
    )


class _Texts:
    """The records of the items; counts the texts that changed on the way to ASCII."""

    def __init__(self, feed: Feed, *, ascii: bool) -> None:
        self.feed, self.ascii, self.changed = feed, ascii, 0

    def __iter__(self) -> Iterator[bytes]:
        for row in self.feed.items(["item_index", "text"]):
            text = to_ascii(row["text"]) if self.ascii else row["text"]
            self.changed += text != row["text"]
            yield tfrecords.example(
                id=tfrecords.int64_list(tfrecords.varint(row["item_index"])),
                text=tfrecords.bytes_list(text.encode()),
            )


def to_ascii(text: str) -> str:
    """Give a text in ASCII: letters lose their marks, what has no likeness becomes a question mark.

    >>> to_ascii("Amélie, 愛")
    'Amelie, ?'
    """
    apart = unicodedata.normalize("NFKD", text)
    return "".join(one for one in apart if not unicodedata.combining(one)).encode("ascii", "replace").decode()


def _write(out: Folder, folder: str, says: str, records: Iterable[bytes], files: int) -> int:
    """Write records in turn to the files of a folder; gives how many. A file is made by its first record."""
    count = 0
    with ExitStack() as stack:
        opened: list[IO[bytes]] = []
        for count, record in enumerate(tfrecords.framed(records), start=1):
            number = (count - 1) % files
            if number == len(opened):
                name = f"{folder}/part-{number:05d}.tfrecord.gz"
                opened.append(stack.enter_context(out.gzip(name, says)))
            opened[number].write(record)
    return count


def _readme(
    settings: GridSettings,
    depth: int,
    largest: int,
    says: str,
    rows: dict[str, int],
    short: dict[str, int],
    changed: int,
) -> str:
    left_out = ", ".join(f"{n:,} of `{folder}`" for folder, n in short.items() if n) or "none here"
    return f"""
This folder is the trainer's `data_dir`; its configs read `training`, `evaluation`, `testing` and `items`
(its README calls the first three otherwise; the configs win).

    python -m src.train experiment=tiger_train_flat data_dir=<this folder> \\
        semantic_id_path=<this folder>/sids.pt num_hierarchies={depth}

- `sids.pt` holds {says}. Give `num_hierarchies={depth}`, which counts all of its rows.
- The trainer gives every level as many codes as the largest number there needs: {largest + 1:,} here.
- To tokenize with GRID itself give it `embedding_path=<this folder>/embeddings_{settings.embedding}.pt` and
  the vectors' width as `embedding_dim`. It calls its own file `merged_predictions_tensor.pt`; any name is
  read.
- The last item of a row is what is predicted. Training takes every part of a row by itself, so prefixes are
  not written. Rows: {", ".join(f"{folder} {n:,}" for folder, n in rows.items())}.
- Rows of one item are left out, {left_out}: evaluation stops at them (`label_function.py`), training takes
  nothing from them.
- Each worker of evaluation and testing reads files of its own and fails without any: keep `num_workers` times
  GPUs at or below the number of files (`--set files={settings.files}`), or set the trainer's `num_workers`
  lower.
- Texts of items are read as ASCII (`pre_processing.py`, `astype(str)` of bytes), which stops at the first
  "é". Written as {settings.text}: {changed:,} texts were changed for that. Vectors are of the texts as
  they were.
"""


FORMAT = Format(
    "grid",
    "GRID (snap-research/GRID at 63e19a8)",
    "TFRecords of users and items, SIDs and vectors as tensors",
    write,
    GridSettings,
    papers=(39,),
)
