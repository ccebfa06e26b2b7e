"""Which words the tasks of a step are grouped by: their keys, or for Dask words that it places evenly.

A runner places groups by a hash of their word. Over few tasks that is uneven: of 8 tasks on 8 places one in
three finds a place of its own, and the others wait. DaskRunner's places are few, as a GroupByKey takes the
square of them in steps; so there every place has a word, chosen to be put there, and keys that count up take
turns.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from zlib import crc32

STAGE = 32  # places that Dask groups in one pass; it takes two for more, over a square of places


@dataclass(frozen=True)
class ByKey:
    """Every task is a group of its own; the runner has many places, or takes turns itself."""

    def word(self, key: str) -> str:
        """Give the word that a task is grouped by."""
        return key

    def fillers(self, refs: int) -> list[str]:
        """Give words to send beside so many refs."""
        return []


@dataclass(frozen=True)
class OnDask:
    """Tasks take turns on Dask's partitions. places: partitions.

    No more than evenness rests on how Dask hashes.
    """

    places: int

    def __post_init__(self) -> None:
        """Take as many places as Dask will make of them."""
        if self.places > STAGE:
            object.__setattr__(self, "places", math.ceil(math.sqrt(self.places)) ** 2)

    def word(self, key: str) -> str:
        """Give the word of a task's place: of keys that end in numbers, one after the other."""
        start, number = re.fullmatch(r"(.*?)(\d*)", key, re.DOTALL).groups()  # type: ignore[union-attr]
        return _word((crc32(start.encode()) + int(number or 0)) % self.places, self.places)

    def fillers(self, refs: int) -> list[str]:
        """Give words to send beside so many refs: Dask makes no more places than there are elements."""
        missing = -refs % self.places or (0 if refs else self.places)
        return [_word(place, self.places) for place in range(missing)]


@lru_cache(maxsize=4096)
def _word(place: int, places: int) -> str:
    from dask.base import tokenize

    for salt in count():
        word = f"{place}.{salt}"
        if int(tokenize(word), 16) % places == place:  # as dask.bag.core.groupby_tasks does
            return word
    raise AssertionError
