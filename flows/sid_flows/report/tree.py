"""The tree of SIDs as an icicle: how many items lie under each prefix, and which are the most popular.

It is bounded in depth and width: what is left of a node's children is folded into "other".
"""

from dataclasses import dataclass
from typing import Any

from sid_flows.report.figures import HUES, figure, plain
from sid_flows.report.markup import clipped, code, details, paragraph, section, table
from sid_flows.report.tables import Tables

WIDTH = (24, 8, 5)  # children shown of a node at each depth
TITLES = 3  # shown of a prefix
ROOM = 52  # letters of titles in a box
LISTED, NAMED = 8, 8  # first codes listed in words, titles of each
POPULAR = "popularity_train::bigint * 2147483648 - item_index"  # of two items as popular, the first


@dataclass(frozen=True)
class Node:
    """A prefix: its codes, its last token, the items under it, and how many children its parent has."""

    prefix: tuple[int, ...]
    token: str
    items: int
    siblings: int


@dataclass(frozen=True)
class _Box:
    """A box of the icicle. leaf: its height where it has no children, else 0."""

    name: str
    label: str
    parent: str
    items: int
    titles: list[str]
    colour: str
    leaf: float = 0.0


def tree(tables: Tables) -> str:
    """Give the section."""
    said = (
        "Every box is a prefix of SIDs, as high as the items under it, with the most popular titles; they "
        "show whole on hover. Click a box to go into it, and the bar above to come back."
    )
    good = (
        "titles under one prefix belong together, the more so the longer it is; no first code has most items."
    )
    if tables.gives == "vectors":
        says = paragraph("The scheme gives vectors: items share no codes, so that there is no tree.", "soft")
        return section("tree", "SID tree", said, [says])
    levels = descended(tables)
    notes = [_folded(levels)]
    if not tables.metrics["tokenizer"].get("ordered", True):
        notes.append(
            "The scheme's codes have no order of coarse and fine: the tree shows them as they are written."
        )
    parts = [
        figure(
            "tree",
            [icicle(tables, levels)],
            {
                "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
                "uniformtext": {"minsize": 9, "mode": "hide"},
                "narrow": "<b>%{label}</b> %{customdata[0]:,}",
            },
            says="Icicle of SIDs by prefix",
            height=60 + 28 * min(len(levels[0]) + 1, WIDTH[0]),
        ),
        *(paragraph(one, "note") for one in notes),
        details(
            "Items under the same first code",
            [table(["code", "items", "examples, most popular first"], _listed(tables, levels[0]))],
        ),
    ]
    return section("tree", "SID tree", said, parts, good=good)


def descended(tables: Tables) -> list[list[Node]]:
    """Give the nodes shown at each depth, those of one parent together, the largest first."""
    levels: list[list[Node]] = []
    parents: list[list[int]] = [[]]
    longest = tables.metrics["collisions"]["levels"]
    for depth, width in enumerate(WIDTH[: len(longest)]):
        rows = tables.ask(
            """with grown as (
                select sid[:$1] as parent, sid[:$1 + 1] as prefix, min(tokens[$1 + 1]) as token, count(*) as n
                from sids where len(sid) > $1 and ($1 = 0 or sid[:$1] in (select unnest($2::int[][])))
                group by all)
            select prefix, token, n, count(*) over (partition by parent) from grown
            qualify row_number() over (partition by parent order by n desc, prefix) <= $3
            order by parent, n desc, prefix""",
            depth,
            parents,
            width,
        )
        nodes = [Node(tuple(prefix), token, n, siblings) for prefix, token, n, siblings in rows]
        if not nodes:
            break
        levels.append(nodes)
        parents = [list(one.prefix) for one in nodes]
    return levels


def icicle(tables: Tables, levels: list[list[Node]]) -> dict[str, Any]:
    """Give the trace: the root, the nodes of all levels, and an "other" where children are folded.

    Heights are shares of the parent's among what is drawn, "other" no higher than the largest child, since it
    would leave them no room. customdata has the true number of items, titles for the box and for the hover.
    """
    popular = _popular(tables, levels)
    largest = [one.prefix[0] for one in levels[0]]
    boxes = [_Box("all", "all items", "", tables.items, [], "@fill")]
    inner = {one.prefix[:-1] for nodes in levels for one in nodes}
    height: dict[tuple[int, ...], float] = {(): 1.0}
    for depth, nodes in enumerate(levels):
        below = _going_on(tables, depth, sorted({one.prefix[:-1] for one in nodes}))
        for parent in dict.fromkeys(one.prefix[:-1] for one in nodes):
            own = [one for one in nodes if one.prefix[:-1] == parent]
            rest = below[parent] - sum(one.items for one in own)
            folded = min(rest, max(one.items for one in own))
            unit = height[parent] / (sum(one.items for one in own) + folded)
            for one in own:
                height[one.prefix] = one.items * unit
                leaf = 0.0 if one.prefix in inner else height[one.prefix]
                titles, colour = popular.get(one.prefix, []), _hue(one.prefix, largest)
                boxes.append(
                    _Box(_name(one.prefix), one.token, _name(parent), one.items, titles, colour, leaf)
                )
            if rest:
                told = [f"{own[0].siblings - len(own):,} more codes"]
                boxes.append(
                    _Box(f"{_name(parent)} other", "other", _name(parent), rest, told, "@fill", folded * unit)
                )
    return {
        "type": "icicle",
        "ids": [one.name for one in boxes],
        "labels": [plain(one.label) for one in boxes],
        "parents": [one.parent for one in boxes],
        "values": [one.leaf for one in boxes],
        "branchvalues": "remainder",
        "customdata": [[one.items, _short(one.titles), "<br>".join(map(plain, one.titles))] for one in boxes],
        "sort": False,
        "maxdepth": 2,
        "tiling": {"orientation": "h"},
        "marker": {"colors": [one.colour for one in boxes], "line": {"color": "@panel", "width": 1}},
        "textposition": "middle left",
        "pathbar": {"visible": True, "thickness": 24},
        "texttemplate": "<b>%{label}</b> %{customdata[0]:,}  %{customdata[1]}",
        "hovertemplate": "<b>%{label}</b> %{customdata[0]:,} items<br>%{customdata[2]}<extra></extra>",
    }


def _short(titles: list[str]) -> str:
    """Give as many titles as a box has room for."""
    text = "; ".join(titles)
    return plain(text if len(text) <= ROOM else f"{text[: ROOM - 1]}\u2026")


def _going_on(tables: Tables, depth: int, prefixes: list[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """Give how many items under each prefix have a longer SID: an SID may end there."""
    rows = tables.ask(
        """select sid[:$1] as prefix, count(*) from sids
        where len(sid) > $1 and sid[:$1] in (select unnest($2::int[][])) group by prefix""",
        depth,
        [list(one) for one in prefixes],
    )
    return {tuple(prefix): n for prefix, n in rows}


def _popular(tables: Tables, levels: list[list[Node]]) -> dict[tuple[int, ...], list[str]]:
    """Give the most popular titles under every prefix shown."""
    found: dict[tuple[int, ...], list[int]] = {}
    for depth, nodes in enumerate(levels, start=1):
        rows = tables.ask(
            f"""select sid[:$1] as prefix, arg_max(item_index, {POPULAR}, $2)
            from sids join items using (item_index)
            where sid[:$1] in (select unnest($3::int[][])) group by prefix""",
            depth,
            NAMED if depth == 1 else TITLES,
            [list(one.prefix) for one in nodes],
        )
        found |= {tuple(prefix): items for prefix, items in rows}
    titles = tables.titles([item for items in found.values() for item in items])
    return {prefix: [titles[one] for one in items[:TITLES]] for prefix, items in found.items()}


def _listed(tables: Tables, first: list[Node]) -> list[list[Any]]:
    rows = []
    for node in first[:LISTED]:
        titles = tables.ask(
            f"""select coalesce(title, items.item_id) from sids join items using (item_index)
            where sid[1] = $1 order by {POPULAR} desc limit $2""",
            node.prefix[0],
            NAMED,
        )
        rows.append([code(node.token), node.items, "; ".join(clipped(title) for (title,) in titles)])
    return rows


def _folded(levels: list[list[Node]]) -> str:
    """Say what is shown, and that the rest is folded."""
    wide = " and ".join(filter(None, [", ".join(map(str, WIDTH[:-1])), str(WIDTH[-1])]))
    return (
        f"Shown: {sum(map(len, levels)):,} prefixes of up to {len(levels)} codes, of every node at most the "
        f"{wide} largest by depth; the rest is folded into other, whose box is no higher than the largest. "
        f"Colours are the {HUES} largest first codes, as in the map."
    )


def _name(prefix: tuple[int, ...]) -> str:
    return "-".join(map(str, prefix)) or "all"


def _hue(prefix: tuple[int, ...], largest: list[int]) -> str:
    place = largest.index(prefix[0])
    return f"@c{place}" if place < HUES else "@pale"
