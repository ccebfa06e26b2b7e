"""Collisions: how many items shared their codes, how many share their ID now, and the largest groups."""

from collections.abc import Iterator, Mapping
from typing import Any

from sid_flows.report.figures import figure
from sid_flows.report.markup import Right, clipped, code, details, paragraph, percent, section, table
from sid_flows.report.tables import Tables

GROUPS, MEMBERS = 6, 6  # groups shown as examples, items of each
COUNTED = 20_000_000  # items, up to which groups are counted here; metrics.json has the totals of all
EDGES = (2, 3, 4, 5, 10, 20, 50, 100, 1000)  # where bins of group sizes begin
SHARES = ("collision_rate", "uniquely_identified")


def collisions(tables: Tables) -> str:
    """Give the section."""
    resolved = tables.metrics["collisions"]
    before, after = resolved["before"], resolved["after"]
    rows = [[name.replace("_", " "), *_both(name, before, after)] for name in before if name in after]
    parts = []
    if tables.items > COUNTED:
        parts.append(paragraph(f"Groups are drawn for up to {COUNTED:,} items; totals are below.", "note"))
    elif tables.gives != "vectors" and before["collided_items"]:
        parts.append(_histogram(tables))
    parts.append(table(["", "before", "after"], rows, label="collisions before and after"))
    if before["collided_items"] and tables.gives != "vectors" and tables.items <= COUNTED:
        columns = ["codes", "items", "which, most popular first", "their IDs now"]
        parts.append(details("The largest groups before", [table(columns, _examples(tables))], opened=True))
    return section(
        "collisions",
        "Collisions",
        f"Before, {before['collided_items']:,} of {before['items']:,} items had the codes of another. Policy "
        f"{resolved['policy']} moved {resolved['moved']:,} items; now {after['collided_items']:,} share one.",
        parts,
        good="few collisions before, since a moved item lies further from its vector, and groups of items "
        "that are alike. After, none, unless the policy allows them.",
    )


def grouped(tables: Tables) -> tuple[dict[int, int], dict[int, int]]:
    """Give how many groups there are of each size, before and after collisions were resolved."""
    before = tables.ask("""
        select n, count(*) from (select count(*) as n from sids group by codes) group by n order by n""")
    after = tables.ask("select n, count(*) from sid_to_items group by n order by n")
    return dict(before), dict(after)


def binned(groups: Mapping[int, int]) -> list[int]:
    """Give how many items are in groups of each bin of sizes; those alone are in none.

    >>> binned({1: 50, 2: 3, 7: 1, 5000: 1})
    [6, 0, 0, 7, 0, 0, 0, 0, 5000]
    """
    found = [0] * len(EDGES)
    for size, number in groups.items():
        if size >= EDGES[0]:
            found[max(place for place, edge in enumerate(EDGES) if size >= edge)] += size * number
    return found


def _histogram(tables: Tables) -> str:
    before, after = map(binned, grouped(tables))
    last = max(place for place in range(len(EDGES)) if before[place] or after[place] or place < 3) + 1
    names = [*(_bin(place) for place in range(len(EDGES) - 1)), f"{EDGES[-1]:,} or more"][:last]
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": names,
            "y": values[:last],
            "marker": {"color": colour},
            "text": [f"{value:,}" if value else "" for value in values[:last]],
            "textposition": "auto",
            "hovertemplate": "groups of %{x}<br>%{y:,} items<extra>" + name + "</extra>",
        }
        for name, values, colour in (("before", before, "@rest"), ("after", after, "@c0"))
    ]
    layout = {
        "barmode": "group",
        "showlegend": True,
        "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
        "xaxis": {"type": "category", "title": {"text": "items that share one ID"}, "showgrid": False},
        "yaxis": {"rangemode": "tozero", "title": {"text": "items in such groups"}, "tickformat": ",d"},
    }
    says = "Bars of items that share an ID, by size of the group, before and after resolution"
    return figure("groups", traces, layout, says=says, height=280)


def _bin(place: int) -> str:
    first, last = EDGES[place], EDGES[place + 1] - 1
    return f"{first}" if first == last else f"{first} to {last}"


def _both(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Any, Any]:
    if name in SHARES:
        return Right(percent(before[name])), Right(percent(after[name]))
    return before[name], after[name]


def _examples(tables: Tables) -> Iterator[list[Any]]:
    """Give the largest groups before, their items and what became of them."""
    groups = tables.ask(
        "select codes, count(*) as n from sids group by codes having n > 1 order by n desc, codes limit $1",
        GROUPS,
    )
    for codes, n in groups:
        rows = tables.ask(
            """select coalesce(title, items.item_id), sids.sid_key
            from sids join items using (item_index) where codes = $1::int[]
            order by popularity_train desc, item_index limit $2""",
            codes,
            MEMBERS,
        )
        more = f"; and {n - len(rows):,} more" if n > len(rows) else ""
        yield [
            code("-".join(map(str, codes))),
            n,
            "; ".join(clipped(title) for title, _ in rows) + more,
            code(", ".join(key for _, key in rows)),
        ]
