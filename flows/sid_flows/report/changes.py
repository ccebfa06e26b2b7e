"""The report's sections on what a release changes of the one before: the differences, and churn.

`sidmill diff` shows the same rows on a terminal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sid_flows.report.markup import bar, code, details, paragraph, percent, section, sentence, table

HEADLINES = (  # beginnings of the metrics shown; the others are in the JSON
    "collisions.after.",
    "collisions.moved",
    "collisions.neighbour_overlap_at_10",
    "collisions.cf_neighbour_overlap_at_10",
    "collisions.reconstruction.relative_error",
    "tokenizer.fit_items",
    "tokenizer.reconstruction.",
)
SQUARED = "squared_error"  # said by relative_error better


def changes(diff: Mapping[str, Any]) -> str:
    """Give the section "Changes since" for what `sid_warehouse.diff.compare` found, as HTML."""
    moved = diff["sids"]["examples"]
    page = [paragraph(one) for one in verdicts(diff)]
    page += [
        table(["", "before", "after", "kept", "added", "removed", "renumbered"], counted(diff)),
        table(["SIDs of items kept", "changed", "share"], _with_bars(churn_rows(diff["sids"]))),
    ]
    if diff["samples"]:
        columns = ["before", "after", "added", "removed", "moved away", "moved here"]
        page.append(table(["events", *columns], events(diff)))
        columns = ["before", "after", "same", "changed", "added", "removed"]
        page.append(table(["samples", *columns], samples(diff)))
    if moved:
        rows = [[one["item_id"], one["title"], code(one["a"]), code(one["b"])] for one in moved]
        listed = table(["item", "title", "before", "after"], rows)
        page.append(details(f"{len(moved):,} of {diff['sids']['moved']:,} items that moved", [listed]))
    for title, differing in (("Recipe", diff["recipe"]), ("Made of", diff["hashes"])):
        if differing:
            rows = [[one["name"], one["a"], one["b"]] for one in differing]
            page.append(table([title, "before", "after"], rows))
    shown, left = headlines(diff)
    if shown:
        page.append(table(["metric", "before", "after", "difference"], shown))
    if left:
        page.append(paragraph(f"{left:,} more metrics changed; see metrics.json of both.", "soft"))
    return section(
        "changes",
        f"Changes since {diff['a']['ref']}",
        "What a model that was trained on the earlier release would find changed.",
        page,
        good="after an append no SID moved and the test set is frozen; after a retokenize few SIDs moved.",
    )


def churn(found: Mapping[str, Any]) -> str:
    """Give the section on how many IDs a retokenize moved, with and without matched labels, as HTML."""
    rows = both_churns(found)
    return section(
        "churn",
        "Churn",
        sentence(found["says"]),
        [table(["items whose ... changed", "labels matched", "not matched"], rows)],
        good="matching keeps many more IDs than not matching does.",
    )


def both_churns(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """Give churn with labels matched and not matched as rows: what, share, share."""
    pairs = zip(churn_rows(found["matched"]), churn_rows(found["unmatched"]), strict=True)
    for (what, _, matched), (_, _, unmatched) in pairs:
        yield [what, percent(matched), percent(unmatched)]


def verdicts(diff: Mapping[str, Any]) -> Iterator[str]:
    """Give what to know first, a sentence each: silent corruption, IDs that moved, the test set."""
    if diff["token_ids_moved"]:
        yield (
            f"{diff['token_ids_moved']:,} items keep their SID but have other token ids: a model trained on "
            "the earlier release would silently read other items."
        )
    yield from map(sentence, diff["notes"])
    sids, test = diff["sids"], diff["samples"].get("test")
    if sids["moved"]:
        yield f"{sids['moved']:,} of {sids['kept']:,} items in both moved to another SID."
    else:
        yield f"No SID moved of the {sids['kept']:,} items in both."
    if test is None:
        yield "Events and samples are not compared here; `sidmill diff` compares them."
    elif diff["test_frozen"]:
        yield f"The test set is frozen: all {test['a']:,} samples, histories included, are there still."
    else:
        yield (
            f"The test set is not frozen: of {test['a']:,} samples {test['changed']:,} changed and "
            f"{test['removed']:,} are gone."
        )


def counted(diff: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Give rows of items and users: before, after, kept, added, removed, under another index."""
    for name in ("items", "users"):
        yield [name, *(diff[name][key] for key in ("a", "b", "kept", "added", "removed", "index_moved"))]


def churn_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, int, float | None]]:
    """Give rows of churn: what changed, of how many items, of which share."""
    yield "whole SID", found["moved"], found["share"]
    for one in found["levels"]:
        yield f"code of level {one['level']}", one["changed"], one["share"]
    for one in found["prefixes"][1:]:  # of length 1 it is level 1
        yield f"first {one['length']} codes", one["changed"], one["share"]


def events(diff: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Give rows of events by split: before, after, added, removed, moved away, moved here."""
    yield from ([split, *one.values()] for split, one in diff["splits"].items())


def samples(diff: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Give rows of samples by split: before, after, same, changed, added, removed."""
    yield from ([split, *one.values()] for split, one in diff["samples"].items())


def headlines(diff: Mapping[str, Any]) -> tuple[list[list[Any]], int]:
    """Give the metrics that say most as rows, and how many more changed."""
    told = [
        one for one in diff["metrics"] if one["name"].startswith(HEADLINES) and SQUARED not in one["name"]
    ]
    rows = [[one["name"], one["a"], one["b"], one["difference"]] for one in told]
    return rows, len(diff["metrics"]) - len(rows)


def _with_bars(rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
    for what, number, share in rows:
        yield [what, number, "none" if share is None else bar(share)]
