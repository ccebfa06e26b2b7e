"""Merlin (NVTabular, Transformers4Rec): samples as Parquet with list columns, and the schema that names them.

Numbers count from 1, as 0 pads; what happened, when and in which category comes with every item of a
history. The schema is the text of TensorFlow metadata's protocol buffers with Merlin's tags and properties,
`schema.pbtxt`, as `Workflow.fit_schema` writes it (merlin-core 23.8.0,
merlin/schema/io/tensorflow_metadata.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import SPLITS, Feed, SampleBatch, one_line
from sid_pipelines.trainers.reading.token_lists import TokenLists
from sid_pipelines.trainers.writing.folder import Folder
from sid_schemas.tables import EVENT_TYPES
from sid_warehouse.loading.features import Categories, Pieces, of_events
from sid_warehouse.mapped import Mapped

READER = "Merlin"
HOUR, INT = 3_600_000, pa.int64()  # an hour in ms
TARGET, HISTORY = ("categorical",), ("categorical", "list", "sequence")
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """One column: its Merlin tags, and the highest number in it, 0 where it is no number of a table."""

    name: str
    tags: Sequence[str]
    highest: int = 0
    type: pa.DataType = INT
    listed: bool = False

    def arrow(self) -> pa.Field:
        """Give the Arrow field."""
        return pa.field(self.name, pa.list_(self.type) if self.listed else self.type)

    def text(self) -> str:
        """Give the feature as protocol buffer text; lists are ragged, so they have no dimensions."""
        facts = {
            "is_list": f"bool_value: {str(self.listed).lower()}",
            "is_ragged": f"bool_value: {str(self.listed).lower()}",
            "dtype_item_size": f"number_value: {self.type.bit_width}",
        }
        domain = f"max: {self.highest} is_categorical: true"
        fields = " ".join(f'fields {{ key: "{key}" value {{ {fact} }} }}' for key, fact in facts.items())
        lines = [
            f'name: "{self.name}"',
            *(["value_count { }"] if self.listed else []),
            f"type: {'INT' if pa.types.is_integer(self.type) else 'FLOAT'}",
            *([f'int_domain {{ name: "{self.name}" {domain} }}'] if self.highest else []),
            "annotation {",
            *(f'  tag: "{tag}"' for tag in self.tags),
            f"  extra_metadata {{ [type.googleapis.com/google.protobuf.Struct] {{ {fields} }} }}",
            "}",
        ]
        return "feature {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


class MerlinSettings(Settings):
    """max_history: the newest items of a history that are written, 0 for all."""

    max_history: int = 50


def write(feed: Feed, out: Folder, settings: MerlinSettings) -> str:
    """Write a file for each split, the schema, and what the numbers of categories stand for."""
    feed.require_one_target(READER)
    table = pa.chunked_array(
        [part["category_path"].combine_chunks() for part in feed.tables("items", ["category_path"])]
    )
    rows = Rows(feed, Categories.read(table))
    columns = _columns(feed, rows.categories)
    schema = pa.schema([one.arrow() for one in columns])
    for split in SPLITS:
        if feed.count(split):
            batches = (
                rows.of(batch, schema) for batch in feed.samples(split, max_history=settings.max_history)
            )
            out.parquet(f"{split}/part_0.parquet", f"the {split} samples", schema, batches)
    with out.text("schema.pbtxt", "every column's type, tags and highest number") as file:
        file.writelines(one.text() for one in columns)
    for name, values in (("category", rows.categories.names), ("event_type", EVENT_TYPES)):
        named = ((number, one_line(value)) for number, value in enumerate(values, 1))
        out.csv(f"{name}.csv", f"what the numbers of `{name}` stand for", ("number", name), named)
    return f"""
```python
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

schema = TensorflowMetadata.from_proto_text_file("path/to/this/folder").to_merlin_schema()
```

Columns that end in `_list` are a sample's history, oldest first. Users, items, categories and event types
count from 1 and 0 pads: user and item n are n - 1 in the release. `target_event_type` is known only after
the fact: it is a label, not an input. `age_hours_list` is how long before the target each event was, in
hours; `time_list` its time in ms. `sid_list` and `target_sid` are token ids of the release's vocabulary,
{len(feed.vocabulary)} numbers of which {feed.vocabulary.pad} pads; an item has
{_lengths(rows.tokens.lengths)} of them.
"""


class Rows:
    """Samples as rows: what is looked up by item is held, events are read as they are wanted."""

    def __init__(self, feed: Feed, categories: Categories) -> None:
        """Map the sequences, whose event types go along."""
        self.categories, self.tokens = categories, TokenLists(feed)
        self._sequences = Mapped(feed.release.folder / "sequences.arrow")

    def of(self, batch: SampleBatch, schema: pa.Schema) -> pa.RecordBatch:
        """Give the rows of a batch of samples."""
        users = batch.user.astype(np.int64)
        ago = np.repeat(batch.target_ts, np.diff(batch.offsets)) - batch.history_ts
        lists: dict[str, Any] = {
            "item_list": batch.history + 1,
            "category_list": self.categories.of[batch.history],
            "event_type_list": self._types(users, batch.start, batch.end, batch.history),
            "time_list": batch.history_ts,
            "age_hours_list": ago / HOUR,
        }
        columns: dict[str, Any] = {
            "user": users + 1,
            "target": batch.target + 1,
            "target_category": self.categories.of[batch.target],
            "target_event_type": self._types(users, batch.end, batch.end + 1, batch.target),
            "target_time": batch.target_ts,
            "target_sid": self.tokens.each(batch.target),
            "sid_list": self.tokens.of(batch.history, batch.offsets),
        }
        offsets = pa.array(batch.offsets, pa.int32())
        for name, values in lists.items():
            kind = schema.field(name).type.value_type
            columns[name] = pa.ListArray.from_arrays(offsets, pa.array(values).cast(kind, safe=False))
        return pa.record_batch(
            [pa.array(columns[field.name]).cast(field.type) for field in schema], schema=schema
        )

    def _types(self, users: I64, start: I64, end: I64, items: npt.NDArray[Any]) -> npt.NDArray[Any]:
        pieces = Pieces(users, start, start, end)
        return of_events("event_type", self._sequences, pieces, items, self.categories)


def _columns(feed: Feed, categories: Categories) -> list[Column]:
    tokens, kinds = len(feed.vocabulary) - 1, len(EVENT_TYPES)
    return [
        Column("user", ("user", "id", *TARGET), feed.n_users),
        Column("target", ("target", *TARGET), feed.n_items),
        Column("target_category", TARGET, len(categories.names)),
        Column("target_event_type", ("target", *TARGET), kinds),
        Column("target_time", ("time",)),
        Column("target_sid", ("target", *TARGET, "list"), tokens, listed=True),
        Column("item_list", ("item", "id", *HISTORY), feed.n_items, listed=True),
        Column("category_list", HISTORY, len(categories.names), listed=True),
        Column("event_type_list", HISTORY, kinds, listed=True),
        Column("time_list", ("time", "list", "sequence"), listed=True),
        Column("age_hours_list", ("continuous", "list", "sequence"), type=pa.float32(), listed=True),
        Column("sid_list", HISTORY, tokens, listed=True),
    ]


def _lengths(lengths: npt.NDArray[Any]) -> str:
    lowest, highest = int(lengths.min()), int(lengths.max())
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"


FORMAT = Format(
    "merlin",
    "Merlin: NVTabular, Transformers4Rec (merlin-core 23.8.0)",
    "Parquet with list columns and schema.pbtxt, event types, times and categories too",
    write,
    MerlinSettings,
)
