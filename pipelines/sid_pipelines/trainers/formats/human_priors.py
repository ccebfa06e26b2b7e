"""Don't Waste It (heads for human priors): histories, item texts, and the categories that heads are for.

A category is what an event is (its type) or what its item is (the broadest category). The trainer takes a
Python module for them, which the folder has as data alone: numbers and names.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.trainers.base import Format, Name, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.formats.events import COLUMNS
from sid_pipelines.trainers.reading.lists import Categories, lists
from sid_pipelines.trainers.writing.folder import Folder

READER = "Don't Waste It"
FEWEST, OTHER = 10, "(other)"  # items of a head: it logs so many of each
HISTORIES = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.list_(pa.string())),
        pa.field("timestamp", pa.list_(pa.int64())),
        pa.field("event_id", pa.list_(pa.int64())),
    ]
)
INFORMATION = pa.schema(
    [
        pa.field("item_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("description", pa.string()),
        pa.field("brand_name", pa.string()),
        pa.field("category_name", pa.string()),
        pa.field("tag", pa.string()),
        pa.field("interact_count", pa.int64()),
        pa.field("image", pa.string()),
    ]
)
README = """
Put `dataset` where `data_path` is, `information/{name}.parquet` where `text_path` points, and
`{name}_tag_dict.py` into `code/REC/data`. Start with `--dataset {name} --category_by {by} --eval_num_cats
{categories} --num_prior_head {categories} --tag_version v1 --eval_pred_len 1 --text_keys
'["title","category_name","brand_name"]'`.

* `dataset/{name}.parquet`: a row is a user; lists of items, times in seconds and event types, oldest first.
  Ids are texts; the trainer numbers items by their ids in order (`dataload.py` 144 to 147).
* The trainer splits by itself: the last `eval_pred_len` events test, as many before them validate. With 1
  that is the release's own split; the paper's 8 is not.
* It drops users with no more events than `min_seq_len` or 2 x `eval_pred_len`, whichever is more
  (`dataload.py` 113).
* `tag` is each item's {level} category, `none` where it has none: every item has one. `interact_count`
  counts train events.
* Heads: {counts}. Tags of fewer than 10 items share the head `(other)`, as the trainer logs 10 items of each
  (`dataload.py` 336 to 339) and stops where there are fewer. Shares of train events add up to all of them.
* `image` is what the source says: a path or an address. The trainer opens `cover/{name}/<item id>.jpg`
  unless `use_image_online` is set, and then takes addresses alone.
"""


class HumanPriorsSettings(Settings):
    """name: of the data set in file names, empty for the release's.

    by: what a head is for, a type of event or a category of items. level: of category paths, 1 the broadest.
    """

    name: Name = ""
    by: Literal["event", "item"] = "event"
    level: int = 1


def write(feed: Feed, out: Folder, settings: HumanPriorsSettings) -> str:
    """Write histories, item texts and the heads."""
    feed.require_leave_one_out(READER)
    name = settings.name or feed.dataset
    if not name.isidentifier():
        raise feed.refuse(READER, "a name that Python can import", repr(name), "Set another with --set name=")
    tags = _tags(feed, settings.level)
    types, counts = _counted(feed, settings.by, tags)
    out.parquet(f"dataset/{name}.parquet", "every user's events as lists", HISTORIES, _histories(feed, types))
    out.parquet(f"information/{name}.parquet", "texts and tag of every item", INFORMATION, _items(feed, tags))
    with out.text(
        f"{name}_tag_dict.py", "what the heads are for, and how many train events each has"
    ) as file:
        file.write(f"tag_to_general = {_heads(settings.by, counts, tags)!r}\n")
    return README.format(
        name=name,
        by=settings.by,
        categories=len(counts),
        level="broadest" if settings.level == 1 else f"level {settings.level}",
        counts=", ".join(f"{head} {count:,}" for head, count in counts.items()),
    )


def _tags(feed: Feed, level: int) -> list[str]:
    found = Categories.at(feed, level)
    names = [one or "none" for one in found.names]
    return [names[number] for number in found.of.tolist()]


def _counted(feed: Feed, by: str, tags: list[str]) -> tuple[list[str], dict[str, int]]:
    """Give the types of events that occur, commonest first, and how many train events each head has."""
    types: Counter[str] = Counter()
    of = _grouped(tags)
    trained: Counter[str] = Counter()
    for chunk in feed.chunks(["user_index", "item_index", "event_type", "split"]):
        kinds = chunk.table["event_type"].to_pylist()
        types.update(kinds)
        train = chunk.table["split"].to_pylist()
        heads = kinds if by == "event" else [of[tags[item]] for item in chunk.items.tolist()]
        trained.update(head for head, split in zip(heads, train, strict=True) if split == "train")
    order = sorted(types, key=lambda one: (-types[one], one))
    heads = order if by == "event" else sorted(set(of.values()))
    return order, {head: trained[head] for head in heads}


def _grouped(tags: list[str]) -> dict[str, str]:
    """Give the head of each tag: itself, or OTHER for tags of few items, which get none alone."""
    items = Counter(tags)
    small, taken = [], 0
    for tag, count in sorted(items.items(), key=lambda one: (one[1], one[0])):
        if count < FEWEST or 0 < taken < FEWEST:
            small.append(tag)
            taken += count
    return {tag: OTHER if tag in small else tag for tag in sorted(items)}


def _heads(by: str, counts: dict[str, int], tags: list[str]) -> dict[str, object]:
    """Give what the trainer's module says: `category_to_int` of events, `tag_to_category` of items."""
    if by == "event":
        return {"category_counts": counts, "category_to_int": {one: i for i, one in enumerate(counts)}}
    return {
        "v1": {
            "category_counts": counts,
            "tag_to_category": {one: [head] for one, head in _grouped(tags).items()},
        }
    }


def _histories(feed: Feed, types: list[str]) -> Iterator[pa.Table]:
    items, users, kinds = pa.array(feed.item_ids), pa.array(feed.user_ids), pa.array(types)
    for chunk in feed.chunks(COLUMNS):
        columns = {
            "user_id": users.take(pa.array(chunk.users[chunk.edges[:-1]])),
            "item_id": lists(items.take(pa.array(chunk.items)), chunk.edges),
            "timestamp": lists(chunk.ts // 1000, chunk.edges),
            "event_id": lists(
                pc.index_in(chunk.table["event_type"], kinds).combine_chunks().cast(pa.int64()),
                chunk.edges,
            ),
        }
        yield pa.table([columns[name] for name in HISTORIES.names], schema=HISTORIES)


def _items(feed: Feed, tags: list[str]) -> Iterator[pa.Table]:
    columns = ("item_id", "title", "description", "brand", "category_path", "popularity_train", "image_ref")
    first = 0
    for batch in feed.tables("items", columns):
        rows = [
            {
                "item_id": row["item_id"],
                "title": one_line(row["title"] or ""),
                "description": one_line(row["description"] or ""),
                "brand_name": one_line(row["brand"] or ""),
                "category_name": ", ".join(map(one_line, row["category_path"])),
                "tag": tags[first + place],
                "interact_count": row["popularity_train"],
                "image": row["image_ref"],
            }
            for place, row in enumerate(batch.to_pylist())
        ]
        first += len(rows)
        yield pa.Table.from_pylist(rows, schema=INFORMATION)


FORMAT = Format(
    "human-priors",
    "Don't Waste It (zhykoties/Multi-Head-Recommendation-with-Human-Priors, 0a074f4)",
    "histories with event types, item texts with tags, and the categories that heads are for",
    write,
    HumanPriorsSettings,
    papers=(1,),
    protocols=("leave-one-out",),
)
