"""Queries and the items that answer them: what trainers of generative retrieval take for supervision.

Where events say what was searched, a query is that text and its items are those of the events; else it is
what a user had before, as titles, and its item is the sample's target. ddro.py and hype.py write them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sid_pipelines.trainers.feed import SPLITS, Feed, one_line

Kind = Literal["auto", "search", "history"]


@dataclass(frozen=True)
class Query:
    """One query, its text on one line, and the item that answers it. id: names the row it is of."""

    id: str
    text: str
    item: int
    user: int


class Queries:
    """The queries of a release, split by split, streamed in stored order."""

    def __init__(self, feed: Feed, kind: Kind, reader: str, titles: int) -> None:
        """Choose search where any event has a query, else histories; refuse search without one.

        titles: the newest items of a history whose titles make a query.
        """
        self.feed, self.titles = feed, titles
        searched = kind != "history" and self._searched()
        if kind == "search" and not searched:
            raise feed.refuse(
                reader, "events with a query", "none", "Choose --set query=history: titles of what a user had"
            )
        if not searched:
            feed.require_one_target(reader)
        self.kind: Kind = "search" if searched else "history"

    def of(self, split: str) -> Iterator[Query]:
        """Yield the queries of `train`, `valid` or `test`."""
        if split not in SPLITS:
            raise ValueError(f"expected one of {SPLITS}, got {split!r}")
        return self._search(split) if self.kind == "search" else self._history(split)

    def _searched(self) -> bool:
        return any(
            part["query"].null_count < len(part) for part in self.feed.tables("interactions", ["query"])
        )

    def _search(self, split: str) -> Iterator[Query]:
        columns = ["user_index", "item_index", "query", "split"]
        for row, event in enumerate(self.feed.rows("interactions", columns)):
            text = one_line(event["query"] or "")
            if text and event["split"] == split:
                yield Query(f"event{row}", text, event["item_index"], event["user_index"])

    def _history(self, split: str) -> Iterator[Query]:
        titles = self.feed.titles
        for batch in self.feed.samples(split, max_history=self.titles):
            for row, (user, target, history) in zip(batch.row.tolist(), batch, strict=True):
                if len(history):
                    text = " ; ".join(titles[item] for item in history.tolist())
                    yield Query(f"{split}{row}", text, target, user)

    @property
    def says(self) -> str:
        """Give what a README owes about them."""
        if self.kind == "search":
            return "A query is what was searched before an event; its item is the event's."
        return (
            f"A query is the titles of a user's newest {self.titles} items; its item is the sample's target."
        )
