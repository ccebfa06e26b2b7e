"""UDITSR: searches and recommendations as rows of user, query, item; drawn negatives for valid and test.

Its `utils.py` tells a search by a query that is not empty. Unlike timeline.py, in which users' events keep
their order, rows here have none: the trainer makes a graph of them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.reading.negatives import Negatives
from sid_pipelines.trainers.reading.words import Words, require_queries
from sid_pipelines.trainers.writing.folder import Folder

READER = "UDITSR"
README = """
Put the three CSV files into the folder beside the code that `conf.py` calls `UDITSR_data` (`dir`, 49 to
54), and set in `conf.py`: `user_num = {users}`, `item_num = {items}`, `word_num = {words}` (43 to 45). Run
`python3 main.py` in `code`.

* `query` is a Python list of word numbers, which the trainer evaluates (`utils.py` 428 and 531); `[]` is a
  recommendation, all else a search. Only its first 3 words are read (`per_query_num`). 0 is padding, 1 a
  word that no train event has; `words.json` names the others.
* Users and items are counted from 0 in one space for both kinds.
* Rows of one `sample_num` are one positive and {negatives} negatives: items that the user has no event with
  in any split, drawn evenly by the seed. Users who have seen so much that no {negatives} items are left
  have fewer.
* The README's columns say `Item`; the code reads `item`, as here. The trainer keeps `user2item.pkl` and two
  others beside the CSV files and takes them unseen the next time: remove them before another export goes
  there.
"""


class UditsrSettings(Settings):
    """negatives: drawn for each row of valid and test. seed: of the draw."""

    negatives: int = Field(default=99, ge=1)
    seed: int = Field(default=0, ge=0)


def write(feed: Feed, out: Folder, settings: UditsrSettings) -> str:
    """Write the three CSV files and the words."""
    require_queries(feed, READER)
    feed.require_samples(READER, "valid", "test")
    words = Words.of_train(feed)
    out.csv(
        "train_data.csv",
        "train events, each a positive",
        ("user", "query", "item", "label"),
        ((user, repr(query), item, 1) for user, query, item, _ in _events(feed, words, "train")),
    )
    for split in ("valid", "test"):
        out.csv(
            f"{split}_data.csv",
            f"{split} events, each with drawn negatives",
            ("sample_num", "user", "query", "item", "label"),
            _ranked(feed, words, split, settings),
        )
    out.json("words.json", "the words of queries; a number is a place here", words.names)
    return README.format(
        users=feed.n_users, items=feed.n_items, words=len(words.names), negatives=settings.negatives
    )


def _ranked(feed: Feed, words: Words, split: str, settings: UditsrSettings) -> Iterator[tuple[Any, ...]]:
    draw = Negatives(feed.n_items, settings.seed)
    for number, (user, query, item, seen) in enumerate(_events(feed, words, split), start=1):
        told = repr(query)
        yield number, user, told, item, 1
        for other in draw(user, number, seen, settings.negatives):
            yield number, user, told, int(other), 0


def _events(
    feed: Feed, words: Words, split: str
) -> Iterator[tuple[int, list[int], int, np.ndarray[Any, Any]]]:
    """Yield (user, query as numbers, item, all items of the user) of each event of a split."""
    for chunk in feed.chunks(["user_index", "item_index", "query", "split"]):
        query = chunk.table["query"].combine_chunks()
        mine = chunk.table["split"].combine_chunks().to_pylist()
        for start, stop in zip(chunk.edges[:-1].tolist(), chunk.edges[1:].tolist(), strict=True):
            seen = chunk.items[start:stop]
            for row in range(start, stop):
                if mine[row] == split:
                    numbers = words.numbers(query[row].as_py())
                    yield int(chunk.users[row]), numbers, int(chunk.items[row]), seen


FORMAT = Format(
    "uditsr",
    "UDITSR (zhangyuting725/UDITSR, d93edf7)",
    "rows of user, query, item for search and recommendation, with negatives for valid and test",
    write,
    UditsrSettings,
    papers=(34,),
)
