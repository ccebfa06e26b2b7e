"""Categories as tokens: which of an item's categories count, their codes, and strings that nothing else has.

A name is one token wherever it stands (LLM-RecSys-ID), so a path is told by all its tokens together.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from sid_tokenizers.indexers.paths import Path


@dataclass(frozen=True)
class Reading:
    """How an item's list of categories is read as a path, broad to narrow.

    drop_root: leave out the first, where every item of a source has the same. min_count: names that no more
    items than this have do not count. by_frequency: the list has no order of its own, so names that
    more items have come first, ties in order of the alphabet. max_depth: how many names at most, or None.
    flat: the list is no path, so that one goes on after a name that does not count.
    """

    drop_root: bool = False
    min_count: int = 0
    by_frequency: bool = False
    max_depth: int | None = None
    flat: bool = False

    def names(self, categories: Sequence[str], counts: dict[str, int]) -> list[str]:
        """Give the names that count; a path ends before one that does not, an unordered list goes on."""
        given = categories[1:] if self.drop_root else categories
        if self.by_frequency:
            kept = sorted(
                (name for name in set(given) if counts.get(name, 0) > self.min_count),
                key=lambda name: (-counts[name], name),
            )
        elif self.flat:
            kept = [name for name in dict.fromkeys(given) if counts.get(name, 0) > self.min_count]
        else:
            kept = list(takewhile(lambda name: counts.get(name, 0) > self.min_count, given))
        return kept[: self.max_depth]


@dataclass(frozen=True)
class Names:
    """The category names of a catalogue, in order of the alphabet, and how many items have each."""

    names: list[str]
    counts: list[int]

    @classmethod
    def of(cls, catalogue: Iterable[Sequence[str]]) -> "Names":
        """Count the names of every item's categories."""
        counts = Counter(name for categories in catalogue for name in set(categories))
        names = sorted(counts)
        return cls(names, [counts[name] for name in names])

    def __len__(self) -> int:
        """Give the number of names."""
        return len(self.names)

    def read(self, catalogue: Iterable[Sequence[str]], reading: Reading) -> list[Path]:
        """Give each item's path, as codes of names."""
        counts = dict(zip(self.names, self.counts, strict=True))
        codes = {name: code for code, name in enumerate(self.names)}
        return [tuple(codes[name] for name in reading.names(one, counts)) for one in catalogue]

    def token(self, code: int) -> str:
        """Give the string of a name's code."""
        return f"<{escaped(self.names[code])}>"


def escaped(name: str) -> str:
    r"""Give a name as it stands between < and >, so that no other token reads the same.

    Angles and backslashes in it have a backslash before them, and so has a name that looks like a number,
    a cluster or a special token of vocabulary.py.

    >>> [escaped(name) for name in ("Sci-Fi", "a<b", "7", "CI7", "pad")]
    ['Sci-Fi', 'a\\<b', '\\7', '\\CI7', '\\pad']
    """
    marked = re.sub(r"([\\<>])", r"\\\1", name)
    return f"\\{marked}" if re.fullmatch("(CI)?[0-9]+|pad|bos|eos", name) else marked
