"""What is known of each event beside its item: its type, value, time, pause before it, and category.

They stand item by item beside the history, one number for each item whatever level its tokens are at.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sid_schemas import WarehouseError
from sid_schemas.tables import EVENT_TYPES
from sid_warehouse.mapped import Array, Mapped, Rows

FEATURES = ("event_type", "value", "time", "time_gap", "category")
WIDTH = 8  # bytes of an event type that tell it from all others, read as one number
_WORDS = np.array([name.encode()[:WIDTH] for name in EVENT_TYPES], dtype=f"S{WIDTH}").view(np.uint64)
_SORTED = np.argsort(_WORDS)
assert len(np.unique(_WORDS)) == len(EVENT_TYPES)


@dataclass(frozen=True)
class Categories:
    """The first category of each item. of: (n_items,) int64, from 1 as in `names`; 0 for none."""

    of: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, paths: pa.ChunkedArray) -> "Categories":
        """Take the first of each item's categories, numbered in byte order of their names."""
        column = paths.combine_chunks()
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        firsts = column.flatten().take((np.cumsum(lengths) - lengths)[lengths > 0])
        names = sorted(set(firsts.to_pylist()), key=str.encode)
        of = np.zeros(len(column), dtype=np.int64)
        of[lengths > 0] = pc.index_in(firsts, pa.array(names, pa.string())).to_numpy() + 1
        return cls(of, tuple(names))


@dataclass(frozen=True)
class Pieces:
    """Which events of which users a batch is about: events [start, end) of each.

    first: where the sample's own history begins; from there to `start` it is cut off, but known.
    """

    users: Rows
    first: Rows
    start: Rows
    end: Rows


def of_events(name: str, sequences: Mapped, pieces: Pieces, items: Array, categories: Categories) -> Array:
    """Give a feature of each event, pieces end to end: int64, or float32 for values.

    items: of the same events. An event type is its place in EVENT_TYPES, from 1; a value that is not there is
    NaN; times are ms since 1970-01-01 UTC; a gap is the ms since the event before, 0 for a history's first.
    """
    if name == "category":
        return categories.of[items]
    if name == "event_type":
        return _event_types(sequences, pieces)
    if name == "time_gap":
        return _gaps(sequences, pieces)
    column, dtype = ("value", np.float32) if name == "value" else ("ts", np.int64)
    return sequences.ragged(column, pieces.users, pieces.start, pieces.end)[0].astype(dtype, copy=False)


def log2_buckets(gaps: npt.ArrayLike, *, unit: int = 1_000, buckets: int = 32) -> npt.NDArray[np.int64]:
    """Put pauses in ms into buckets that double: 0 below one `unit` (ms), 1 from 1, 2 from 2, 3 from 4...

    The last bucket, `buckets` - 1, takes all that is longer.

    >>> log2_buckets([0, 999, 1_000, 2_000, 3_999, 4_000]).tolist()
    [0, 0, 1, 2, 2, 3]
    """
    units = np.asarray(gaps, dtype=np.int64) // unit
    exponents: npt.NDArray[np.int64] = np.frexp(np.maximum(units, 0).astype(np.float64))[1].astype(np.int64)
    return np.minimum(exponents, buckets - 1)


def _event_types(sequences: Mapped, pieces: Pieces) -> Array:
    texts, _ = sequences.ragged_text("event_type", pieces.users, pieces.start, pieces.end, WIDTH)
    words = texts.view(np.uint64)
    places = _SORTED[np.minimum(np.searchsorted(_WORDS, words, sorter=_SORTED), len(_WORDS) - 1)]
    strange = np.flatnonzero(_WORDS[places] != words)
    if len(strange):
        raise WarehouseError(
            f"{sequences.path}, column event_type: expected one of {', '.join(EVENT_TYPES)}; got "
            f"{texts[strange[0]].decode(errors='replace')!r}"
        )
    return (places + 1).astype(np.int64)


def _gaps(sequences: Mapped, pieces: Pieces) -> Array:
    times, offsets = sequences.ragged("ts", pieces.users, pieces.start, pieces.end)
    there = pieces.end > pieces.start
    known = np.maximum(pieces.start - 1, pieces.first)[there]  # the event before, unless history begins here
    before, _ = sequences.ragged("ts", pieces.users[there], known, known + 1)
    gaps = np.diff(times, prepend=times[:1])
    begins = offsets[:-1][there]
    gaps[begins] = times[begins] - before
    return gaps
