"""What formats of whole histories share: events as lists by user, ranges of rows, categories as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.trainers.feed import I32, I64, Feed, one_line
from sid_schemas.tables import EVENT_TYPES, SPLIT_NAMES

LEGEND = {"event_type": list(EVENT_TYPES), "split": list(SPLIT_NAMES)}  # a number is a place in its list


@dataclass(frozen=True)
class Categories:
    """One category of every item, as a number. names: (n + 1,), the first is "": no category. of: (n_items,).

    Numbers go by the names in order, so that they stay when items come in another order.
    """

    names: list[str]
    of: I32

    @classmethod
    def at(cls, feed: Feed, level: int) -> "Categories":
        """Take each item's category at a level: 1 the broadest, -1 the narrowest, 0 none.

        Where a path is shorter than that, its last category; where there is none, number 0.
        """
        paths = feed.release.table("items", ["category_path"])["category_path"].to_pylist()
        found = [one_line(_at(path, level)) for path in paths]
        names = ["", *sorted(set(found) - {""})]
        number = {name: place for place, name in enumerate(names)}
        return cls(names, np.array([number[name] for name in found], np.int32))


def _at(path: Sequence[str], level: int) -> str:
    if not path or not level:
        return ""
    return path[min(level, len(path)) - 1] if level > 0 else path[max(level, -len(path))]


def lists(values: pa.Array | npt.NDArray[np.generic], offsets: I64) -> pa.ListArray:
    """Give values as lists, list i being values[offsets[i]:offsets[i + 1]]."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def ranges(start: I64, stop: I64) -> tuple[I64, I64]:
    """Give all numbers of the ranges start[i]..stop[i] - 1 one after the other, and where each begins.

    start, stop: (n,). Returns (sum of sizes,) and offsets (n + 1,).
    """
    sizes = stop - start
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], sizes), offsets


def numbers(column: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.int8]:
    """Give a column of texts as places in a list of all that there are."""
    return pc.index_in(column, pa.array(names)).to_numpy().astype(np.int8)  # type: ignore[no-any-return]
