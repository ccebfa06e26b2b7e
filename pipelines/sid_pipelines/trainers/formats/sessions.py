"""Sessions as targets: a history, and what came next with its labels. OneRec and REG4Rec, by their papers.

Unlike events.py, which leaves cutting to the trainer, a row here is one training example; its targets are
all of one split, so nothing of valid or test is a target of train.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pydantic import Field

from sid_pipelines.chunks import CONTEXT, MINUTE, Chunk
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import I64, Feed
from sid_pipelines.trainers.formats.events import COLUMNS, session_numbers, write_items
from sid_pipelines.trainers.reading.lists import LEGEND, Categories, lists, numbers, ranges
from sid_pipelines.trainers.writing.folder import Folder
from sid_schemas.tables import EVENT_TYPES, SPLIT_NAMES

ROWS = 8192  # rows whose histories are spelled out at a time
TARGETS = pa.schema(
    [
        pa.field("user_index", pa.int32()),
        pa.field("session", pa.int32()),
        pa.field("history", pa.list_(pa.int32())),
        pa.field("history_ts", pa.list_(pa.int64())),
        pa.field("targets", pa.list_(pa.int32())),
        pa.field("target_ts", pa.list_(pa.int64())),
        pa.field("event_type", pa.list_(pa.int8())),
        pa.field("value", pa.list_(pa.float64())),
        pa.field("positive", pa.list_(pa.bool_())),
    ]
)
README = """
A format of sidmill's own, made after the papers: the code of OneRec (2502.18965) and of REG4Rec is not
public, so what their trainers read is secondary knowledge. One row is one example of {what}.

* `history`: item numbers before the first target, oldest first, at most {history:,}{positive}.
* `targets`, `target_ts`, `event_type`, `value`, `positive`: lists as long as each other, in order. They are
  what rewards are made of: the event's type (a place in `legend.json`), its value (null where the source
  has none), and whether it counts as positive. Watch times and rates (swt, vtr, wtr, ltr) are no columns of
  a release: where a source has them they are `value`.
* A session that goes over the border of two splits is divided there; both parts have the session's number.
  Events of split `context` are history only.
* SIDs of items: `items.parquet`. OneRec puts a start token before each target's SID.
"""


class SessionsSettings(Settings):
    """What is a target, and what a history.

    steps: 0 for whole sessions; otherwise the next so many events, whatever session they are of, a row for
    each run of them. min_size: targets that a row must have. max_size: targets after which a longer session
    goes on in a row of its own, 0 for no bound. max_history: newest items of a history that are kept.
    min_value: events below are not positive: they are in no history, and `positive` is false for them;
    empty: all are positive. session_minutes: pause after which a session begins where the source has no
    session ids. category_level: of items.parquet, 1 the broadest.
    """

    steps: int = Field(default=0, ge=0)
    min_size: int = Field(default=1, ge=1)
    max_size: int = Field(default=0, ge=0)
    max_history: int = Field(default=256, ge=1)
    min_value: str = Field(default="", pattern=r"^(-?[0-9]+(\.[0-9]+)?)?$")
    session_minutes: int = Field(default=30, ge=1)
    category_level: int = 1


def write(feed: Feed, out: Folder, settings: SessionsSettings) -> str:
    """Write a file of examples for each split, items, and what the numbers mean."""
    for number, split in enumerate(SPLIT_NAMES[:CONTEXT]):
        out.parquet(
            f"{split}.parquet",
            f"{split} examples, by user and time",
            TARGETS,
            _rows(feed, settings, number),
        )
    write_items(feed, out, Categories.at(feed, settings.category_level))
    out.json("legend.json", "what `event_type` counts, from 0", LEGEND)
    positive = f", of events with a value of {settings.min_value} or more" if settings.min_value else ""
    what = f"the next {settings.steps} events" if settings.steps else "a session"
    return README.format(what=what, history=settings.max_history, positive=positive)


def _rows(feed: Feed, settings: SessionsSettings, split: int) -> Iterator[pa.Table]:
    for chunk in feed.chunks(COLUMNS):
        start, stop = _targets(chunk, settings, split)
        positive = _positive(chunk, settings)
        liked = np.flatnonzero(positive)
        before = np.concatenate([[0], np.cumsum(positive)])
        session = session_numbers(chunk, settings.session_minutes)
        labels = {
            "targets": pa.array(chunk.items),
            "target_ts": pa.array(chunk.ts),
            "event_type": pa.array(numbers(chunk.table["event_type"], EVENT_TYPES)),
            "value": chunk.table["value"].combine_chunks(),
            "positive": pa.array(positive),
        }
        for first in range(0, len(start), ROWS):
            begin, end = start[first : first + ROWS], stop[first : first + ROWS]
            last = before[begin]
            earliest = np.maximum(before[chunk.first[begin]], last - settings.max_history)
            past, past_offsets = ranges(earliest, last)
            places, offsets = ranges(begin, end)
            columns = {
                "user_index": pa.array(chunk.users[begin]),
                "session": pa.array(session[begin]),
                "history": lists(chunk.items[liked[past]], past_offsets),
                "history_ts": lists(chunk.ts[liked[past]], past_offsets),
                **{name: lists(column.take(pa.array(places)), offsets) for name, column in labels.items()},
            }
            yield pa.table([columns[name] for name in TARGETS.names], schema=TARGETS)


def _positive(chunk: Chunk, settings: SessionsSettings) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if not settings.min_value:
        return np.ones(len(chunk), bool)
    values = chunk.table["value"].to_numpy()
    return values >= float(settings.min_value)  # type: ignore[no-any-return]  # false where there is none


def _targets(chunk: Chunk, settings: SessionsSettings, split: int) -> tuple[I64, I64]:
    """Give the first row of each run of targets of a split, and the row after its last: (rows,) each."""
    labels = chunk.labels
    begins = chunk.place == 0
    begins[1:] |= labels[1:] != labels[:-1]
    if not settings.steps:
        begins |= chunk.session_starts(settings.session_minutes * MINUTE)
    size = settings.steps or settings.max_size
    if size:
        run = np.maximum.accumulate(np.where(begins, np.arange(len(chunk)), 0))
        begins |= (np.arange(len(chunk)) - run) % size == 0
    start = np.flatnonzero(begins)
    stop = np.concatenate([start[1:], [len(chunk)]])
    kept = (labels[start] == split) & (stop - start >= settings.min_size)
    return start[kept], stop[kept]


FORMAT = Format(
    "sessions",
    "OneRec and REG4Rec (a format of ours, after the papers; their code is not public)",
    "histories and the session, or the next steps, that follow, with labels for rewards",
    write,
    SessionsSettings,
    papers=(4, 33),
)
