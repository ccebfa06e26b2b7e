"""Queries as words and numbers: 0 padding, 1 a word that train events lack, then the commonest first."""

import re
from collections import Counter
from collections.abc import Iterator

from sid_pipelines.trainers.feed import Feed

WORD = re.compile(r"\w+")
UNKNOWN = 1


def words_of(query: str) -> list[str]:
    """Give the words of a query in lower case; a query of signs alone is one word."""
    return WORD.findall(query.lower()) or [query.strip()] * bool(query.strip())


class Words:
    """The words of queries that go with train events, numbered from 2: the commonest first, then by name."""

    def __init__(self, counted: Counter[str]) -> None:
        """Number what was counted."""
        self.names = ["", "<unknown>", *sorted(counted, key=lambda one: (-counted[one], one))]
        self._numbers = {name: place for place, name in enumerate(self.names) if place > UNKNOWN}

    @classmethod
    def of_train(cls, feed: Feed) -> "Words":
        """Count each train event's query; those of valid and test say nothing here."""
        counted: Counter[str] = Counter()
        for query, split in queries(feed):
            if split == "train":
                counted.update(words_of(query))
        return cls(counted)

    def numbers(self, query: str | None) -> list[int]:
        """Give a query's words as numbers; none for no query."""
        return [self._numbers.get(word, UNKNOWN) for word in words_of(query or "")]


def queries(feed: Feed) -> Iterator[tuple[str, str]]:
    """Yield (query, split) of each event that has a query."""
    for batch in feed.tables("interactions", ["query", "split"]):
        found = batch.filter(batch["query"].is_valid())
        yield from zip(found["query"].to_pylist(), found["split"].to_pylist(), strict=True)


def require_queries(feed: Feed, reader: str) -> None:
    """Refuse a release none of whose events has a query."""
    if next(queries(feed), None) is None:
        raise feed.refuse(
            reader,
            "events with the query before them",
            "a release none of whose events has one",
            "Build it from a source with queries, such as [source] kind = 'table' with a column for `query`",
        )
