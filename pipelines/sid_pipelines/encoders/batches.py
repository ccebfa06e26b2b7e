"""How token ids are cut into batches so that no text's vector depends on what else is embedded in the run.

A product's last bits follow its shape: the same text in a batch of 7 and in one of 32, or padded to 20 and
to 256, gives vectors that differ by 1e-7 in float32 and by 1e-3 in bfloat16. So a batch's shape is decided
by a text's own number of tokens alone: lengths go into buckets, a bucket has a fixed number of rows, and
what is missing in the last batch of a bucket is filled up with copies of its first row.

Every row of a batch has padding, or none has: attention takes another path where no row has any, so a batch
in which only companions decide that is never made.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
STEPS = 8  # lengths from one power of two to the next: at most a quarter of a row is padding
FIRST, LAST = 32, 32_768  # up to FIRST in steps of FIRST / STEPS


def lengths() -> list[int]:
    """Give the padded lengths in ascending order: 4, 8, .., 32, 40, .., 64, 80, .., 32768."""
    found, stop = [0], FIRST
    while stop <= LAST:
        found.extend(range(found[-1] + stop // STEPS, stop + 1, stop // STEPS))
        stop *= 2
    return found[1:]


LENGTHS = lengths()


@dataclass(frozen=True)
class Shape:
    """The shape of a batch. full: every row has `length` tokens; else every row has fewer."""

    rows: int
    length: int
    full: bool


def shape_of(tokens: int, *, longest: int, budget: int) -> Shape:
    """Give the shape of the batch in which a text of so many tokens goes; depends on nothing else.

    longest: the most tokens a text may have. budget: rows x length of a batch, about.

    >>> shape_of(9, longest=256, budget=512), shape_of(16, longest=256, budget=512)
    (Shape(rows=42, length=12, full=False), Shape(rows=25, length=20, full=False))
    >>> shape_of(256, longest=256, budget=512)
    Shape(rows=2, length=256, full=True)
    """
    if tokens >= longest:
        return Shape(max(budget // longest, 1), longest, True)
    place = bisect.bisect_right(LENGTHS, tokens)
    length = min(LENGTHS[place], longest) if place < len(LENGTHS) else longest
    return Shape(max(budget // length, 1), length, False)


@dataclass
class Batch:
    """Some texts' token ids, all of one shape. names: whatever the caller calls them by."""

    shape: Shape
    names: list[int] = field(default_factory=list)
    ids: list[Sequence[int]] = field(default_factory=list)

    def matrices(self, pad: int, *, left: bool) -> tuple[Ids, Ids]:
        """Give token ids and attention mask, (rows, length) each; rows without a text copy the first."""
        ids = np.full((self.shape.rows, self.shape.length), pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row in range(self.shape.rows):
            own = self.ids[row if row < len(self.ids) else 0]
            place = slice(self.shape.length - len(own), None) if left else slice(len(own))
            ids[row, place] = own
            mask[row, place] = 1
        return ids, mask


class Buckets:
    """Collects token ids until a batch is full; `rest` gives what is left at the end.

    >>> buckets = Buckets(longest=256, budget=32)
    >>> buckets.add(0, [5, 6]) is None, buckets.add(1, [5]) is None, buckets.add(2, [7] * 9) is None
    (True, True, True)
    >>> [batch.names for batch in buckets.rest()]
    [[0, 1], [2]]
    """

    def __init__(self, *, longest: int, budget: int) -> None:
        """Start empty."""
        self._longest, self._budget = longest, budget
        self._waiting: dict[Shape, Batch] = {}

    def add(self, name: int, ids: Sequence[int]) -> Batch | None:
        """Put one text into its bucket, and give the batch that is full with it."""
        shape = shape_of(len(ids), longest=self._longest, budget=self._budget)
        batch = self._waiting.setdefault(shape, Batch(shape))
        batch.names.append(name)
        batch.ids.append(ids)
        return self._waiting.pop(shape) if len(batch.names) == shape.rows else None

    def rest(self) -> Iterator[Batch]:
        """Give the batches that did not become full, by ascending length."""
        for shape in sorted(self._waiting, key=lambda shape: (shape.length, shape.full)):
            yield self._waiting.pop(shape)
