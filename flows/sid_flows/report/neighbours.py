"""Neighbour examples: an item, the items nearest to it by SID, and those nearest by cosine, side by side."""

from dataclasses import dataclass
from html import escape
from typing import Any

from sid_flows.report.markup import Markup, Right, code, paragraph, section, table
from sid_flows.report.tables import Tables
from sid_flows.report.vectors import NEAR, Looked

EACH = 2  # examples of the popular, of the middling, of the tail
SCANNED = 3_000_000  # items, beyond which siblings of schemes without order are looked for among some
TITLE = "Neighbours"
SAYS = (
    "Items as examples: beside each the items nearest by SID, and the nearest by cosine of the vectors that "
    "were tokenized. What stands in both lists is marked."
)

VECTORLESS = "It has no vector, or one of zeros, so that nothing is near it by cosine."
NONE = "No examples: no item could be chosen, for want of items or of memory."


@dataclass(frozen=True)
class Example:
    """An item to look at, and why it was chosen."""

    item: int
    why: str
    events: int


def chosen(tables: Tables) -> list[Example]:
    """Give the most popular items, those in the middle by train events, and the last that have any."""
    [(known,)] = tables.ask("select count(*) from items where popularity_train > 0")
    known = known or tables.items
    places: dict[int, str] = {}
    for why, start in (("popular", 0), ("middling", known // 2), ("tail", known - EACH)):
        for place in range(max(start, 0), min(max(start, 0) + EACH, known)):
            places.setdefault(place, why)
    examples = []
    for place, why in sorted(places.items()):
        [(item, events)] = tables.ask(
            """select item_index, popularity_train from items
            order by popularity_train desc, item_index limit 1 offset $1""",
            place,
        )
        examples.append(Example(item, why, events))
    return examples


def neighbours(tables: Tables, examples: list[Example], looked: Looked | None) -> str:
    """Give the section."""
    overlap = tables.metrics["collisions"].get("neighbour_overlap_at_10")
    chance = 10 / max(tables.items - 1, 10)
    good = "most lines of a list make sense beside the item, and several stand in both."
    notes = []
    if overlap is not None:
        notes.append(
            f"Over all items, {overlap:.1%} of the ten nearest by cosine are also nearest by SID; by chance "
            f"it would be {chance:.2%}."
        )
    if looked is not None and looked.read < tables.items:
        notes.append(f"Neighbours by cosine are of {looked.read:,} items whose vectors were read.")
    parts = [paragraph(one, "note") for one in notes]
    parts += [_card(tables, one, looked) for one in examples] or [paragraph(NONE, "soft")]
    return section("neighbours", TITLE, SAYS, parts, good=good)


def siblings(tables: Tables, item: int) -> list[tuple[int, int]]:
    """Give the items nearest by SID: (item, codes in common), the most popular of equal ones first.

    In common: the length of the shared prefix, or, of codes without order, how many are equal.
    """
    [(sid,)] = tables.ask("select sid from sids where item_index = $1", item)
    ordered = tables.metrics["tokenizer"].get("ordered", True)
    step = 1 if ordered else max(-(-tables.items // SCANNED), 1)
    equal = "sid[:k] = ($1::int[])[:k]" if ordered else "sid[k] = ($1::int[])[k]"
    return tables.ask(
        f"""select item_index, shared from (
            select item_index, len(list_filter(range(1, $2 + 1), lambda k: {equal})) as shared
            from sids where item_index <> $3 and item_index % $4 = 0 and ($5 or sid[1] = ($1::int[])[1])
        ) join items using (item_index) where shared > 0
        order by shared desc, popularity_train desc, item_index limit $6""",
        sid,
        len(sid),
        item,
        step,
        not ordered,
        NEAR,
    )


def _card(tables: Tables, example: Example, looked: Looked | None) -> str:
    item = example.item
    alike = siblings(tables, item) if tables.gives != "vectors" else []
    near = looked.near.get(item, []) if looked else []
    members = [item, *(one for one, _ in alike), *(one for one, _ in near)]
    titles, sids = tables.titles(members), _sids(tables, members)
    both = {one for one, _ in alike} & {one for one, _ in near}

    def row(one: int, told: Any) -> list[Any]:
        title = escape(titles[one])
        marked = f'<b>{title}</b> <span class="soft">both</span>' if one in both else title
        return [Markup(marked), code(sids[one]), told]

    lists = []
    if tables.gives != "vectors":
        rows = [row(one, shared) for one, shared in alike]
        none = paragraph("No item shares a code with it.", "soft")
        lists.append(("By SID", table(["by SID", "SID", "codes shared"], rows) if rows else none))
    if near:
        rows = [row(one, Right(f"{score:.3f}")) for one, score in near]
        lists.append(("By cosine", table(["by cosine", "SID", "cosine"], rows)))
    elif looked and item not in looked.near:
        lists.append(("By cosine", paragraph(VECTORLESS, "soft")))
    inner = "".join(f"<div>{one}</div>" for _, one in lists)
    return (
        f'<article class="card"><h3>{escape(titles[item])}</h3>'
        f'<p class="note">{example.why}, {_events(example.events)}, SID {code(sids[item])}</p>'
        f'<div class="pair">{inner}</div></article>'
    )


def _events(number: int) -> str:
    return "1 train event" if number == 1 else f"{number:,} train events"


def _sids(tables: Tables, items: list[int]) -> dict[int, str]:
    rows = tables.ask(
        "select item_index, sid_key from sids where item_index in (select unnest($1::int[]))",
        sorted(set(items)),
    )
    return dict(rows)
