"""Whole histories with a column for each thing known of an event: what long-sequence and prior models read.

A format of ours, one Parquet row per user, whatever a history's length. Others cut histories to samples
(`minionerec`, `unigrec`) or keep item numbers alone (`lc-rec`); human_priors.py and dare.py write what the
two public trainers of such histories read.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from sid_pipelines.chunks import MINUTE, Chunk
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.reading.lists import LEGEND, Categories, lists, numbers
from sid_pipelines.trainers.writing.folder import Folder
from sid_schemas.tables import EVENT_TYPES

COLUMNS = (
    "user_index",
    "item_index",
    "ts",
    "event_type",
    "value",
    "session_id",
    "query",
    "position",
    "split",
)
HISTORIES = pa.schema(
    [
        pa.field("user_index", pa.int32()),
        pa.field("user_id", pa.string()),
        pa.field("items", pa.list_(pa.int32())),
        pa.field("ts", pa.list_(pa.int64())),
        pa.field("gap", pa.list_(pa.int64())),
        pa.field("event_type", pa.list_(pa.int8())),
        pa.field("category", pa.list_(pa.int32())),
        pa.field("value", pa.list_(pa.float64())),
        pa.field("session", pa.list_(pa.int32())),
        pa.field("query", pa.list_(pa.string())),
        pa.field("position", pa.list_(pa.int32())),
        pa.field("split", pa.list_(pa.int8())),
    ]
)
README = """
A general format of sidmill's own; no trainer is started with it unchanged. One row of `histories.parquet`
is one user, each column but the first two a list with one entry per event, oldest first, in the release's
declared order. Lists of one row are all as long.

* `items` are row numbers of `items.parquet`, which has the SID of each.
* `ts` is in milliseconds and as the source has it: nothing is rounded. `gap` is the time since the event
  before, in milliseconds, 0 where both have the same time, -1 at a user's first event.
* `event_type` and `split` are places in the lists of `legend.json`; `category` is a place in
  `categories.json`, 0 for an item without one.
* `value`, `query` and `position` are null where the source says nothing. `session` counts a user's sessions
  from 0: a new one begins with another session id of the source, or, without ids, after {minutes} minutes.
* Train on events of `split` train alone; `context` events are history only.

It serves long-history models whose code is not public, by what their papers say: OneRec's lifelong pathway
(items, tags, times, values, event types as labels) and IDNP (user, item, time with gaps kept, a split by
time: `[split] protocol = "global-time"`). {kept}
"""


class EventsSettings(Settings):
    """What of histories is written.

    max_history: newest events of a user that are kept, 0 for all. category_level: of category paths, 1 the
    broadest, -1 the narrowest. session_minutes: pause after which a new session begins, where the source
    has no session ids.
    """

    max_history: int = Field(default=0, ge=0)
    category_level: int = 1
    session_minutes: int = Field(default=30, ge=1)


def write(feed: Feed, out: Folder, settings: EventsSettings) -> str:
    """Write histories, items and what the numbers mean."""
    categories = Categories.at(feed, settings.category_level)
    out.parquet(
        "histories.parquet", "every user's events as lists", HISTORIES, _rows(feed, categories, settings)
    )
    write_items(feed, out, categories)
    out.json("legend.json", "what `event_type` and `split` count, from 0", LEGEND)
    kept = f"Only the newest {settings.max_history:,} events of a user are here." * bool(settings.max_history)
    return README.format(minutes=settings.session_minutes, kept=kept)


def _rows(feed: Feed, categories: Categories, settings: EventsSettings) -> Iterator[pa.Table]:
    ids = pa.array(feed.user_ids)
    for chunk in feed.chunks(COLUMNS):
        sessions = session_numbers(chunk, settings.session_minutes)
        gap = np.diff(chunk.ts, prepend=chunk.ts[:1])
        gap[chunk.edges[:-1]] = -1
        size = chunk.sizes if not settings.max_history else np.minimum(chunk.sizes, settings.max_history)
        keep = np.flatnonzero(chunk.place >= chunk.spread(chunk.sizes - size))
        offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        users = pa.array(chunk.users[chunk.edges[:-1]])
        events: dict[str, npt.NDArray[Any]] = {
            "items": chunk.items,
            "ts": chunk.ts,
            "gap": gap,
            "event_type": numbers(chunk.table["event_type"], EVENT_TYPES),
            "category": categories.of[chunk.items],
            "session": sessions,
            "split": chunk.labels,
        }
        columns = {name: lists(values[keep], offsets) for name, values in events.items()}
        for name in ("value", "query", "position"):
            columns[name] = lists(chunk.table[name].take(pa.array(keep)).combine_chunks(), offsets)
        columns |= {"user_index": users, "user_id": ids.take(users)}
        yield pa.table([columns[name] for name in HISTORIES.names], schema=HISTORIES)


def session_numbers(chunk: Chunk, minutes: int) -> npt.NDArray[np.int32]:
    """Give the number of each event's session among its user's, from 0: (events,)."""
    counted = np.cumsum(chunk.session_starts(minutes * MINUTE))
    return (counted - counted[chunk.first]).astype(np.int32)


def write_items(feed: Feed, out: Folder, categories: Categories) -> None:
    """Write `items.parquet`, row i being item i, and `categories.json`."""
    table = feed.release.table("items", ["item_index", "item_id", "category_path", "domain"])
    known = feed.release.table("items", ["popularity_train", "first_ts"])
    sids = feed.release.table("sids", ["sid", "text"])
    rows = pa.table(
        {
            "item_index": table["item_index"],
            "item_id": table["item_id"],
            "title": pa.array(feed.titles, pa.string()),
            "category": categories.of,
            "category_path": pa.array(
                [[one_line(one) for one in path] for path in table["category_path"].to_pylist()],
                pa.list_(pa.string()),
            ),
            "domain": table["domain"],
            "popularity_train": known["popularity_train"],
            "first_ts": known["first_ts"],
            "sid": sids["sid"],
            "sid_text": sids["text"],
        }
    )
    plain = pa.schema([pa.field(field.name, field.type) for field in rows.schema])
    out.parquet(
        "items.parquet", "row i is item i: title, category, train events, SID", plain, [rows.cast(plain)]
    )
    out.json("categories.json", "names of categories, the first of none", categories.names)


FORMAT = Format(
    "events",
    "long-history models (a format of ours; OneRec's lifelong pathway and IDNP, by their papers)",
    "every user's whole history with type, category, value, time gap, session of each event",
    write,
    EventsSettings,
    papers=(6, 9, 17),
)
