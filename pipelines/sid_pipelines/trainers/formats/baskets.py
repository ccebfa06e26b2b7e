"""What was bought together: baskets, and the pairs within them, without repeats or self-pairs.

The release's own `item_pairs` says which items go together and not from which basket; here the basket is
kept, as dual embeddings of complements need it. A format of ours; the paper's code is not public.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice, pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from sid_pipelines.chunks import MINUTE, Chunk
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.formats.events import COLUMNS, write_items
from sid_pipelines.trainers.reading.lists import Categories
from sid_pipelines.trainers.writing.folder import Folder
from sid_schemas.tables import EVENT_TYPES, SPLIT_NAMES

READER = "baskets"
ROWS = 65_536
BASKETS = pa.schema(
    [
        pa.field("basket", pa.int64()),
        pa.field("user_index", pa.int32()),
        pa.field("ts", pa.int64()),
        pa.field("split", pa.string()),
        pa.field("items", pa.list_(pa.int32())),
    ]
)
PAIRS = pa.schema(
    [
        pa.field("basket", pa.int64()),
        pa.field("item", pa.int32()),
        pa.field("other", pa.int32()),
        pa.field("split", pa.string()),
    ]
)
BESIDE = pa.schema(
    [
        pa.field("item", pa.int32()),
        pa.field("other", pa.int32()),
        pa.field("kind", pa.string()),
        pa.field("score", pa.float64()),
    ]
)
README = """
A format of ours after dual embeddings of complements, whose code is not public: skip-gram with negative
sampling over pairs, an in and an out vector each.

* `baskets.parquet`: {what}. `basket` counts them from 0. Items are those of `items.parquet`, each once a
  basket, in order of time; `ts` is of the first. A basket over the border of two splits is divided there.
* `pairs.parquet`: every two items of a basket, once, the smaller number as `item`; both directions are
  meant. No item is paired with itself. Baskets of one item have no pair; of those with more than {most}
  items the first {most} are paired.
* Train on `split` train alone; the release's baskets of valid and test are there to evaluate.
{beside}
"""
PAIRED = """
* `item_pairs.parquet`: the release's own pairs by kind, such as co-views of the source, to augment with.
""".strip()


class BasketsSettings(Settings):
    """What a basket is.

    by: `session`, a session of the source, or events without a long pause; `time`, events of a user at the
    very same time. event_type: only such events, empty for all. session_minutes: the pause, where the
    source has no session ids. max_items: of a basket, to be paired. category_level: of items.parquet, 1 the
    broadest.
    """

    by: Literal["session", "time"] = "session"
    event_type: str = ""
    session_minutes: int = Field(default=30, ge=1)
    max_items: int = Field(default=100, ge=2)
    category_level: int = 1


@dataclass(frozen=True)
class _Basket:
    number: int
    user: int
    ts: int
    split: str
    items: list[int]


def write(feed: Feed, out: Folder, settings: BasketsSettings) -> str:
    """Write baskets, their pairs, the items, and the pairs that the release has."""
    if settings.event_type and settings.event_type not in EVENT_TYPES:
        raise feed.refuse(
            READER, "a type of event", repr(settings.event_type), f"One of {', '.join(EVENT_TYPES)}"
        )
    if not any(len(one.items) > 1 for one in _baskets(feed, settings)):
        raise feed.refuse(
            READER,
            "events that belong together",
            "no basket of two items",
            "Set by or session_minutes otherwise",
        )
    out.parquet(
        "baskets.parquet", "items that were had together", BASKETS, _tables(_rows(feed, settings), BASKETS)
    )
    out.parquet("pairs.parquet", "every two items of a basket", PAIRS, _tables(_pairs(feed, settings), PAIRS))
    write_items(feed, out, Categories.at(feed, settings.category_level))
    beside = bool(feed.release.record["rows"].get("item_pairs"))
    if beside:
        columns = ("item_index", "other_index", "kind", "score")
        found = (one.rename_columns(BESIDE.names) for one in feed.tables("item_pairs", columns))
        out.parquet("item_pairs.parquet", "the release's pairs, by kind", BESIDE, found)
    what = "events of a user at the same time" if settings.by == "time" else "sessions of users"
    what += f", of type {settings.event_type} alone" if settings.event_type else ""
    return README.format(what=what, most=settings.max_items, beside=PAIRED if beside else "")


def _baskets(feed: Feed, settings: BasketsSettings) -> Iterator[_Basket]:
    number = 0
    for chunk in feed.chunks(COLUMNS):
        begins = _begins(chunk, settings)
        wanted = np.ones(len(chunk), bool)
        if settings.event_type:
            wanted = np.array(chunk.table["event_type"].to_pylist()) == settings.event_type
        edges = [*np.flatnonzero(begins).tolist(), len(chunk)]
        for start, stop in pairwise(edges):
            items = list(dict.fromkeys(chunk.items[start:stop][wanted[start:stop]].tolist()))
            if items:
                split = SPLIT_NAMES[chunk.labels[start]]
                yield _Basket(number, int(chunk.users[start]), int(chunk.ts[start]), split, items)
                number += 1


def _begins(chunk: Chunk, settings: BasketsSettings) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    begins = ~chunk.tied if settings.by == "time" else chunk.session_starts(settings.session_minutes * MINUTE)
    begins[1:] |= chunk.labels[1:] != chunk.labels[:-1]
    return begins


def _rows(feed: Feed, settings: BasketsSettings) -> Iterator[tuple[object, ...]]:
    for one in _baskets(feed, settings):
        yield one.number, one.user, one.ts, one.split, one.items


def _pairs(feed: Feed, settings: BasketsSettings) -> Iterator[tuple[object, ...]]:
    for one in _baskets(feed, settings):
        for item, other in combinations(sorted(one.items[: settings.max_items]), 2):
            yield one.number, item, other, one.split


def _tables(rows: Iterator[tuple[object, ...]], schema: pa.Schema) -> Iterator[pa.Table]:
    while some := list(islice(rows, ROWS)):
        yield pa.table([list(column) for column in zip(*some, strict=True)], schema=schema)


FORMAT = Format(
    "baskets",
    "dual embeddings of complements (a format of ours, after the paper; its code is not public)",
    "baskets and the pairs within them, the basket kept",
    write,
    BasketsSettings,
    papers=(41,),
)
