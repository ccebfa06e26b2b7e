"""Queries for completion: prefixes with what was typed in the end, and preferences out of lists as shown.

Unlike timeline.py, where a query is what an event had before it, the query itself is the target here. A
format of ours after query auto-completion by retrieval and DPO, whose code is not public.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.formats.events import COLUMNS, session_numbers
from sid_pipelines.trainers.reading.words import require_queries
from sid_pipelines.trainers.writing.folder import Folder
from sid_schemas.tables import SPLIT_NAMES

READER = "query completion"
FILES = SPLIT_NAMES[:3]
README = """
A format of ours after QAC by retrieval and DPO, whose code is not public (secondary).

* `<split>.jsonl`: a line is a prefix and the query that was accepted in the end. `before` are earlier
  queries of the same session, `item` and `title` what the user then took: facts of the catalogue to ground
  a suggestion in. `prefix` is a true prefix of `query`, and never all of it; {prefixes} of each query,
  evenly spread. Repeated queries of a session for several items come once.
{preferences}
* No release has lists of suggested queries: `rejected` lists of suggestions a policy model has to draw
  itself.
"""
PREFERRED = """
* `preferences.<split>.jsonl`: a query, an item that was clicked (`chosen`) and those shown with it that were
  not (`rejected`, at most {rejected}), as titles. Lists without a click, or nothing else shown, give none.
"""
NOTHING = "* The release has no lists as shown with a query, so there are no preferences."


class SuggestionsSettings(Settings):
    """prefixes: of each query. rejected: titles of a preference. session_minutes: pause after which a session
    begins where the source has no session ids.
    """

    prefixes: int = Field(default=2, ge=1)
    rejected: int = Field(default=10, ge=1)
    session_minutes: int = Field(default=30, ge=1)


def write(feed: Feed, out: Folder, settings: SuggestionsSettings) -> str:
    """Write completions, and preferences where there are lists as shown."""
    require_queries(feed, READER)
    for split in FILES:
        out.json_lines(
            f"{split}.jsonl", f"prefixes and queries of {split}", _completions(feed, split, settings)
        )
    preferred = next(_preferences(feed, None, settings), None) is not None
    if preferred:
        for split in FILES:
            rows = _preferences(feed, split, settings)
            out.json_lines(f"preferences.{split}.jsonl", f"clicked and shown beside, of {split}", rows)
    told = PREFERRED.strip().format(rejected=settings.rejected) if preferred else NOTHING
    return README.format(prefixes=settings.prefixes, preferences=told)


def _completions(feed: Feed, split: str, settings: SuggestionsSettings) -> Iterator[dict[str, Any]]:
    titles = feed.titles
    for chunk in feed.chunks(COLUMNS):
        query, sessions = chunk.table["query"].to_pylist(), session_numbers(chunk, settings.session_minutes)
        place: tuple[int, int] = (-1, -1)
        before: list[str] = []
        for row, label in enumerate(chunk.labels.tolist()):
            here = (int(chunk.users[row]), int(sessions[row]))
            if here != place:
                place, before = here, []
            text = one_line(query[row] or "")
            if not text or text in before:
                continue
            if SPLIT_NAMES[label] == split:
                item = int(chunk.items[row])
                told = {"item": item, "title": titles[item], "ts": int(chunk.ts[row])}
                for prefix in _prefixes(text, settings.prefixes):
                    yield {"user": here[0], "before": list(before), "prefix": prefix, "query": text, **told}
            before.append(text)


def _prefixes(query: str, count: int) -> list[str]:
    """Give true prefixes of a query, evenly spread and none empty.

    >>> _prefixes("red shoes", 2)
    ['red', 'red sh']
    """
    lengths = sorted({max(1, len(query) * k // (count + 1)) for k in range(1, count + 1)})
    return [query[:length] for length in lengths if length < len(query)]


def _preferences(feed: Feed, split: str | None, settings: SuggestionsSettings) -> Iterator[dict[str, Any]]:
    """Yield preferences of a split, of all without one; none where the release has no lists."""
    if not feed.release.record["rows"].get("impressions"):
        return
    titles = feed.titles
    for row in feed.rows("impressions", ["user_index", "ts", "query", "items", "clicked", "split"]):
        if not row["query"] or split not in (None, row["split"]):
            continue
        shown = list(zip(row["items"], row["clicked"], strict=True))
        rejected = [titles[item] for item, clicked in shown if not clicked][: settings.rejected]
        for chosen in [titles[item] for item, clicked in shown if clicked] if rejected else []:
            told = {"user": row["user_index"], "ts": row["ts"], "query": one_line(row["query"])}
            yield {**told, "chosen": chosen, "rejected": rejected}


FORMAT = Format(
    "suggestions",
    "query auto-completion (a format of ours, after the paper; its code is not public)",
    "prefixes with the accepted query and its session, and preferences out of lists as shown",
    write,
    SuggestionsSettings,
    papers=(11,),
)
