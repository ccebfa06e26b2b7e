"""Searches and recommendations of each user in one order of time, what was shown beside. SynerGen, by paper.

Unlike events.py it tells searches from recommendations and spells queries out; unlike slates.py, whose rows
are the lists, a row here is a user.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.formats.events import COLUMNS, session_numbers, write_items
from sid_pipelines.trainers.formats.slates import SHOWN, shown
from sid_pipelines.trainers.reading.lists import LEGEND, Categories, lists, numbers
from sid_pipelines.trainers.reading.words import Words, require_queries
from sid_pipelines.trainers.writing.folder import Folder
from sid_schemas.tables import EVENT_TYPES

READER = "a time line of search and recommendation"
KINDS = ("recommendation", "search")
TIMELINE = pa.schema(
    [
        pa.field("user_index", pa.int32()),
        pa.field("ts", pa.list_(pa.int64())),
        pa.field("kind", pa.list_(pa.int8())),
        pa.field("items", pa.list_(pa.int32())),
        pa.field("event_type", pa.list_(pa.int8())),
        pa.field("query", pa.list_(pa.string())),
        pa.field("query_words", pa.list_(pa.list_(pa.int32()))),
        pa.field("session", pa.list_(pa.int32())),
        pa.field("split", pa.list_(pa.int8())),
    ]
)
README = """
A format of ours after SynerGen's paper, whose code is not public (secondary). `timeline.parquet` has a row
for each user; its lists have one entry per event, oldest first.

* `kind` is 1 (search) where the event has a query, otherwise 0 (recommendation); `query` is null there and
  `query_words` empty.
* `query_words` are row numbers of `words.json`: 0 padding, 1 a word that no train event has, then the
  commonest of train. Words are runs of letters and digits in lower case.
* `items` are row numbers of `items.parquet`, in one space for both kinds. `event_type`, `split` and `kind`
  are places in `legend.json`. Clicks and purchases are told apart by `event_type`.
{impressions}
"""
BESIDE = """
* `impressions.parquet` has the lists as they were shown, positives and shown negatives both, by the same user
  and time; `click_index` is -1 where nothing was clicked.
"""
NOTHING = "* The release has no lists as shown, so no shown negatives are here."


class TimelineSettings(Settings):
    """What goes along.

    session_minutes: pause after which a session begins where the source has no session ids. category_level:
    of items.parquet, 1 the broadest.
    """

    session_minutes: int = Field(default=30, ge=1)
    category_level: int = 1


def write(feed: Feed, out: Folder, settings: TimelineSettings) -> str:
    """Write the time line, its words, the items, and the lists as shown where there are any."""
    require_queries(feed, READER)
    words = Words.of_train(feed)
    out.parquet(
        "timeline.parquet",
        "every user's searches and recommendations in one order",
        TIMELINE,
        _rows(feed, words, settings.session_minutes),
    )
    out.json("words.json", "the words of queries; a number is a place here", words.names)
    write_items(feed, out, Categories.at(feed, settings.category_level))
    out.json("legend.json", "what `event_type`, `split` and `kind` count, from 0", {**LEGEND, "kind": KINDS})
    there = bool(feed.release.record["rows"].get("impressions"))
    if there:
        out.parquet("impressions.parquet", "lists as shown, clicked or not", SHOWN, shown(feed))
    return README.format(impressions=BESIDE.strip() if there else NOTHING)


def _rows(feed: Feed, words: Words, minutes: int) -> Iterator[pa.Table]:
    for chunk in feed.chunks(COLUMNS):
        query = chunk.table["query"].combine_chunks()
        spelled = [words.numbers(one) for one in query.to_pylist()]
        events = {
            "ts": chunk.ts,
            "kind": np.array([bool(one) for one in spelled], np.int8),
            "items": chunk.items,
            "event_type": numbers(chunk.table["event_type"], EVENT_TYPES),
            "query": query,
            "query_words": pa.array(spelled, pa.list_(pa.int32())),
            "session": session_numbers(chunk, minutes),
            "split": chunk.labels,
        }
        columns = {name: lists(values, chunk.edges) for name, values in events.items()}
        columns["user_index"] = pa.array(chunk.users[chunk.edges[:-1]])
        yield pa.table([columns[name] for name in TIMELINE.names], schema=TIMELINE)


FORMAT = Format(
    "timeline",
    "joint search and recommendation (a format of ours, after SynerGen's paper; its code is not public)",
    "each user's searches and recommendations in one order of time, lists as shown beside",
    write,
    TimelineSettings,
    papers=(14,),
)
