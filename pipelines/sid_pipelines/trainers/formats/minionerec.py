"""MiniOneRec: a CSV of samples for each split, whose lists are Python literals, and the catalogue thrice.

Its readers pass some columns to `eval` and others to pandas with its own idea of missing values, so text is
written so that both give it back: see `_title` and `_description`. Any protocol fits: each split has a file.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import SPLITS, Feed
from sid_pipelines.trainers.formats import lc_rec
from sid_pipelines.trainers.reading.missing import MISSING
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import DIALECTS

READER = "MiniOneRec"
LENGTH = 3  # data.py 748 to 751: an item is sids[0] + sids[1] + sids[2], whatever follows
DRAWN = 10_000  # rows that rl.py 102 draws of the train file, without replacement
PERIOD = "_5_2016-10-2018-11"  # the scripts' globs want names that end in 11.csv
HEADER = (
    "user_id", "history_item_title", "item_title", "history_item_id", "item_id", "history_item_sid",
    "item_sid",
)  # fmt: skip


class MiniOneRecSettings(Settings):
    """category: one of the five names that the trainer knows; it is in file names and in prompts.

    embedding: whose vectors go along. max_history: the newest items of a history that are kept.
    """

    category: Literal["Industrial_and_Scientific", "Office_Products", "Toys_and_Games", "Sports", "Books"] = (
        "Industrial_and_Scientific"
    )
    embedding: str = "text"
    max_history: int = Field(10, ge=1)


def write(feed: Feed, out: Folder, settings: MiniOneRecSettings) -> str:
    """Write the files of one data set."""
    feed.require_levels(READER)
    feed.require_length(READER, LENGTH, LENGTH)
    feed.require_unique(READER)
    _require_histories(feed)
    feed.require_embedding(settings.embedding)
    name, angle = settings.category, DIALECTS["angle"]
    titles = [_title(title) for title in feed.titles]
    sids = [angle.text(sid, feed.vocabulary) for sid in feed.sids.tolist()]
    for split in SPLITS:
        out.csv(
            f"{split}/{name}{PERIOD}.csv",
            f"the {split} samples, a row for each target",
            HEADER,
            _rows(feed, split, settings.max_history, titles, sids),
        )
    with out.text(f"info/{name}{PERIOD}.txt", "SID, title and number of every item, for decoding") as info:
        for item, (sid, title) in enumerate(zip(sids, titles, strict=True)):
            info.write(f"{sid}\t{title}\t{item}\n")
    lc_rec.write_index(feed, out, f"index/{name}.index.json")
    out.json_object(f"index/{name}.item.json", "the texts of every item", _texts(feed, titles))
    lc_rec.write_vectors(feed, out, f"index/{name}.emb-qwen-td.npy", settings.embedding, "float16")
    return _readme(feed, titles, name)


def _require_histories(feed: Feed) -> None:
    """Refuse train samples without a history: `SFTData`, which sft.py uses, asks for its last item."""
    empty = sum(int((np.diff(batch.offsets) == 0).sum()) for batch in feed.samples("train", max_history=1))
    if empty:
        raise feed.refuse(
            READER,
            "a history for every train sample (data.py 96)",
            f"{empty:,} train samples without one",
            "Make a release whose [split] gives every sample a history",
        )


def _rows(
    feed: Feed, split: str, max_history: int, titles: list[str], sids: list[str]
) -> Iterator[tuple[Any, ...]]:
    for batch in feed.samples(split, max_history=max_history):
        targets, edges = batch.targets.tolist(), batch.target_offsets.tolist()
        for sample, (user, _, history) in enumerate(batch):
            items = history.tolist()
            past = [titles[item] for item in items], [sids[item] for item in items]
            for target in targets[edges[sample] : edges[sample + 1]]:
                yield f"A{user}", past[0], titles[target], items, target, past[1], sids[target]


def _texts(feed: Feed, titles: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for (number, texts), title in zip(lc_rec.item_texts(feed), titles, strict=True):
        yield number, texts | {"title": title, "description": _description(texts["description"])}


def _title(title: str) -> str:
    """Give a title that pandas reads as text: one such as `None` stands in quotation marks.

    >>> _title("Alien (1979)"), _title("None")
    ('Alien (1979)', '"None"')
    """
    return f'"{title}"' if title in MISSING else title


def _description(text: str) -> str:
    """Give a description that the trainer does not evaluate: data.py 891 runs what begins with `[`.

    >>> _description("['a', 'b']"), _description("[a] b")
    (" ['a', 'b']", ' [a] b')
    """
    return f" {text}" if text.startswith("[") else text


def _readme(feed: Feed, titles: list[str], name: str) -> str:
    twice = sum(count for count in Counter(titles).values() if count > 1)
    rows = feed.count("train")
    draws = "does" if rows >= DRAWN else f"does not: lower `sample={DRAWN}` there"
    return f"""\
Put what is in this folder at `data/Amazon` of the trainer: `train/`, `valid/`, `test/`, `info/` and `index/`.
Its `sft.sh`, `rl.sh` and `evaluate.sh` find the files by `category="{name}"`; `sft.sh` and `rl.sh`
have the names of the two files in `index/` written out, for `Industrial_and_Scientific`.

- The category is one of five names that `sft.py` and `rl.py` know. It is a name in files and in prompts, no
  more: the data are {feed.ref}.
- `rl.py` 102 draws {DRAWN:,} rows of the train file, without replacement. There are
  {rows:,} samples: that {draws}.
- Titles are keys of the trainer's `title2sid`: of {twice:,} items that share a title with another one, it
  keeps the last.
- `rq/` trains its tokenizers on `index/{name}.emb-qwen-td.npy`, float16 as the trainer's
  own; with our SIDs that step is done already.
- Preferences of users (`PreferenceSFTDataset`) are written by a language model; no release has them.
"""


FORMAT = Format(
    "minionerec",
    "MiniOneRec (AkaliKong/MiniOneRec at 81b4ba9)",
    "CSV of samples for each split, info, index and item files",
    write,
    MiniOneRecSettings,
    papers=(3,),
)
