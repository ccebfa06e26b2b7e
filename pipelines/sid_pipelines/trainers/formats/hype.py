"""HyPE: queries with a path of categories and a docid to generate, and documents likewise.

[S] No code of the paper is public that we found; rows follow its description: a train row for every (query,
path) and (document, path), a document having several paths, and dev rows with the docid alone. ddro.py has
queries too, with docids for T5's vocabulary and negatives.
"""

from collections.abc import Iterator
from typing import Any

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.reading.queries import Kind, Queries
from sid_pipelines.trainers.writing.folder import Folder

READER = "HyPE"
SPLITS = {"valid": "dev", "test": "test"}


class HypeSettings(Settings):
    """query: `search` for what was searched, `history` for titles of what a user had, `auto` for either.

    titles: the newest items of a history whose titles make a query.
    """

    query: Kind = "auto"
    titles: int = 10


def write(feed: Feed, out: Folder, settings: HypeSettings) -> str:
    """Write train rows by path, dev and test rows, the hierarchy and the docids."""
    feed.require_table(
        READER, "item_paths", "Choose tokenizer = 'category-path' with flat = true, for items with genres"
    )
    queries = Queries(feed, settings.query, READER, settings.titles)
    docids = _docids(feed)
    paths = _paths(feed, docids)
    out.json_lines(
        "documents.jsonl", "a row for every path of every item: text, target, docid", _documents(feed, paths)
    )
    if feed.count("train"):
        rows = (
            {"id": one.id, "query": one.text, "target": target, "item": one.item}
            for one in queries.of("train")
            for target in paths[one.item]
        )
        out.json_lines("train.jsonl", "a row for every train query and path of its item", rows)
    for split, name in SPLITS.items():
        if feed.count(split):
            held = (
                {"id": one.id, "query": one.text, "target": f"[DOC] {docids[one.item]}", "item": one.item}
                for one in queries.of(split)
            )
            out.json_lines(f"{name}.jsonl", f"the {split} queries, each with the docid that answers", held)
    out.json_lines(
        "hierarchy.jsonl", "every step from a category to one below it: parent, child", _steps(feed)
    )
    out.json_object(
        "docids.json", "the docid of every item number", ((str(i), one) for i, one in enumerate(docids))
    )
    return f"""
No trainer of this paper is public that we know: rows follow its text, and are plain JSON lines for a
sequence-to-sequence model. {queries.says} `target` of a train row is `[PATH]`, the path, `[DOC]`, the docid,
without a path where the item has no category; of dev and test rows `[DOC]` and the docid alone, as any of an
item's paths is right. Scores of an item add up over its paths.
"""


def _docids(feed: Feed) -> list[str]:
    """Give the docid of every item; without docids it is the SID's tokens, as in the table of paths."""
    table, column = ("docids", "docid") if "docids" in feed.release.tables else ("sids", "text")
    return [row[column] for row in feed.rows(table, [column])]


def _paths(feed: Feed, docids: list[str]) -> list[list[str]]:
    """Give the targets of every item, path by path, held whole; an item without a path has its docid
    alone."""
    paths: list[list[str]] = [[] for _ in docids]
    for row in feed.rows("item_paths", ["item_index", "text"]):
        paths[row["item_index"]].append(row["text"])
    return [texts or [f"[DOC] {docid}"] for texts, docid in zip(paths, docids, strict=True)]


def _documents(feed: Feed, paths: list[list[str]]) -> Iterator[dict[str, Any]]:
    for row in feed.items(("item_index", "text")):
        for target in paths[row["item_index"]]:
            yield {"text": one_line(row["text"]), "target": target, "item": row["item_index"]}


def _steps(feed: Feed) -> Iterator[list[str]]:
    steps = {
        (parent, child)
        for row in feed.rows("item_paths", ["path"])
        for parent, child in zip(row["path"][:-1], row["path"][1:], strict=True)
    }
    yield from map(list, sorted(steps))


FORMAT = Format(
    "hype",
    "HyPE (no public code found; rows follow the paper)",
    "rows of queries and documents with [PATH] and [DOC], the hierarchy, docids",
    write,
    HypeSettings,
    papers=(56,),
)
