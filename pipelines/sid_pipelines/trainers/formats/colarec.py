"""ColaRec: a corpus of items with their three codes and texts, and events by split as CSV, all from 1.

Codes count from 1 too, as 0 pads and begins. `cid_neg_dict.json` names for each item those that share all
codes but the last: the trainer takes them for its positive pairs, never for negatives (src/datasets.py 159
to 172); the source publishes that file without the code that makes it, so which items those are is our
reading [D].
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sid_pipelines.chunks import TEST, TRAIN, VALID
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.writing.folder import Folder

READER = "ColaRec"
LENGTH = 3  # code_length, model_train.py 66
TEXTS = ("title", "brand", "category_path")


def write(feed: Feed, out: Folder, settings: Settings) -> str:
    """Write corpus, three event files, and which items share all codes but the last."""
    feed.require_length(READER, LENGTH, LENGTH)
    feed.require_unique(READER)
    kept, lost = _who_trains(feed)
    out.json_object("corpus_512.json", "every item's number, codes and text, by number", _corpus(feed))
    header = ("user_id", "item_id")
    out.csv("train_time_inter.csv", "train events; time in ms", (*header, "time"), _events(feed, TRAIN, kept))
    out.csv("valid_inter.csv", "what is held out for validation", header, _events(feed, VALID, kept))
    out.csv("test_inter.csv", "what is held out for testing", header, _events(feed, TEST, kept))
    out.json_object(
        "cid_neg_dict.json", "`sec`: the items that share all codes but the last, without it", _siblings(feed)
    )
    highest = int(feed.sids.max()) + 1
    return f"""
Put this folder at `datasets/{feed.dataset}` and start `model_train.py --dataset {feed.dataset}
--cid_token_num {highest}`: a code is at most {highest}. `model_eval.py` has 32 written in (model_eval.py
69); change that line for more codes. Both want `pretrained/t5-small`.

- A test history is what trains, without the valid item in between (src/datasets.py 331 to 335).
- The trainer sorts by `time` alone (src/data_process_utils.py 38): events of one user at the same time may
  swap.
- {lost:,} of {feed.n_users:,} users have no train event, which the trainer needs of everyone; they are not
  there, and users are numbered from 1 without them, in the release's order.
"""


def _corpus(feed: Feed) -> Iterator[tuple[str, dict[str, Any]]]:
    for row, sid in zip(feed.items(("item_index", *TEXTS)), feed.sids, strict=True):
        number = row["item_index"] + 1
        yield str(number), {"atom_id": number, "cid": (sid + 1).tolist(), "content": _content(row)}


def _content(row: dict[str, Any]) -> str:
    """Give a text as data_process_utils.py 75 to 92 makes it: each field after its name, empty ones left
    out."""
    fields = {
        "title": one_line(row["title"] or ""),
        "brand": one_line(row["brand"] or ""),
        "categories": one_line(" ".join(row["category_path"])),
    }
    return " ".join(f"{name} {text}" for name, text in fields.items() if text)


def _who_trains(feed: Feed) -> tuple[dict[int, int], int]:
    """Give each user who trains a number from 1, and how many do not."""
    numbers: dict[int, int] = {}
    for user in feed.users():
        if (user.split == TRAIN).any():
            numbers[user.index] = len(numbers) + 1
    return numbers, feed.n_users - len(numbers)


def _events(feed: Feed, label: int, kept: dict[int, int]) -> Iterator[tuple[int, ...]]:
    for user in feed.users():
        if number := kept.get(user.index):
            mine = user.split == label
            for item, ts in zip(user.items[mine].tolist(), user.ts[mine].tolist(), strict=True):
                yield (number, item + 1, ts) if label == TRAIN else (number, item + 1)


def _siblings(feed: Feed) -> Iterator[tuple[str, dict[str, list[int]]]]:
    families: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for item, sid in enumerate(feed.sids.tolist()):
        families[tuple(sid[:-1])].append(item + 1)
    for item, sid in enumerate(feed.sids.tolist()):
        yield str(item + 1), {"sec": [one for one in families[tuple(sid[:-1])] if one != item + 1]}


FORMAT = Format(
    "colarec",
    "ColaRec (Junewang0614/ColaRec at 9137576)",
    "corpus JSON with codes from 1, and events by split as CSV",
    write,
    papers=(25,),
)
