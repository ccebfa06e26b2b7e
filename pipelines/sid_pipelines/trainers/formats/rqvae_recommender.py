"""RQ-VAE-Recommender: the P5 bundle, a text file of sequences, JSON of ids, texts as Python literals.

The trainer makes SIDs by itself, from texts that it embeds: those of the release are not read by it. P5,
OpenP5 and others read the same two files; `meta.json.gz` is evaluated line by line (`data/amazon.py` 22 to
25).
"""

import math
from typing import Any

from sid_pipelines.trainers.base import Format, Name, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder

READER = "RQ-VAE-Recommender"


class RqVaeRecommenderSettings(Settings):
    """name: of the data set, the trainer's `dataset_split`; empty for the release's."""

    name: Name = ""


def write(feed: Feed, out: Folder, settings: RqVaeRecommenderSettings) -> str:
    """Write the bundle of one data set."""
    feed.require_leave_one_out(READER)
    name = settings.name or feed.dataset
    folder = f"raw/{name}"
    with out.text(f"{folder}/sequential_data.txt", "a user and all items, oldest first, from 1") as file:
        for user in feed.users():
            file.write(" ".join(map(str, [user.index + 1, *(user.items + 1).tolist()])) + "\n")
    write_datamaps(feed, out, f"{folder}/datamaps.json")
    says = "the texts of every item, a Python literal a line"
    with out.text(f"{folder}/meta.json.gz", says) as file:
        columns = ("item_id", "title", "brand", "category_path", "price")
        for row, title in zip(feed.items(columns), feed.titles, strict=True):
            file.write(f"{literal(row, title)!r}\n")
    return _readme(feed, name)


def write_datamaps(feed: Feed, out: Folder, name: str) -> None:
    """Write P5's four maps between source ids and numbers from 1, both as text."""
    maps: dict[str, dict[str, str]] = {}
    for kind, ids in (("user", feed.user_ids), ("item", feed.item_ids)):
        numbers = {one: str(number) for number, one in enumerate(ids, start=1)}
        maps |= {f"{kind}2id": numbers, f"id2{kind}": {number: one for one, number in numbers.items()}}
    out.json_object(name, "source ids to numbers from 1, and back", maps.items())


def literal(row: dict[str, Any], title: str) -> dict[str, Any]:
    """Give a line of `meta.json.gz`: text, numbers and lists alone, so that its `repr` is a literal."""
    price = row["price"]
    return {
        "asin": row["item_id"],
        "title": title,
        "brand": row["brand"],
        "categories": [list(row["category_path"])],
        "price": price if price is not None and math.isfinite(price) else None,
    }


def _readme(feed: Feed, name: str) -> str:
    return f"""
This folder is the trainer's `dataset_folder`. Set in `configs/rqvae_amazon.gin` and
`configs/decoder_amazon.gin`

    train.dataset_folder="<this folder>"
    train.dataset_split={name!r}

As `raw/{name}` is there nothing is downloaded; `processed/` is made on the first start, which embeds the
texts with sentence-t5-xxl (11 GB). Users and items count from 1: item_index + 1.

- The trainer reads no SIDs: it fits an RQ-VAE of its own and takes them from its checkpoint. The release's
  codes and vectors have no way in here.
- Its training target is the last item but one of a user (`data/amazon.py` 80), which is the validation
  target (86): training sees what it validates on. That is a flaw of the trainer, not of these files; its
  test target, the last item, is held out. Do not choose checkpoints by its validation.
- It keeps the newest 20 items of a history.
- Every item has a line in `meta.json.gz`, in order: it joins texts to items by `asin`, and items without a
  line would move all others up. A missing brand becomes "Unknown" there, a missing price "None" or "nan".
- `meta.json.gz` is evaluated as Python. Ours holds text, numbers and lists alone.
"""


FORMAT = Format(
    "rqvae-recommender",
    "RQ-VAE-Recommender (EdoardoBotta/RQ-VAE-Recommender at 0e4ae0c)",
    "the P5 bundle: sequences, id maps, texts",
    write,
    RqVaeRecommenderSettings,
    protocols=("leave-one-out",),
)
