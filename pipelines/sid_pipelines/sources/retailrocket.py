"""Retailrocket (https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset): a shop's log, 2015.

    events.csv                                  timestamp (ms), visitorid, event, itemid, transactionid
    item_properties_part1.csv, ..._part2.csv    timestamp (ms), itemid, property, value
    category_tree.csv                           categoryid, parentid (nothing for a root)

event is view, addtocart (here `cart`) or transaction (`purchase`). Of the properties only `categoryid` can
be read, all others are hashed; the lines of the others are left out, and counted. An item's category path
runs from the root to its last category by time, so it may say what was known only after an event. The
categories are numbers without names: a text encoder finds little to read. Not read: transactionid, which is
no session.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import Field, name_of, optional_text, unix
from sid_pipelines.sources.forms import Csv
from sid_warehouse.db import literal

EVENTS = {"view": "view", "addtocart": "cart", "transaction": "purchase"}
# A category that stands there with two parents has the smaller one; a circle of parents ends where it closes.
ITEMS = """
    with recursive tree as (
        select category, min(parent) as parent
        from (select category, parent from category_tree
            union all select parent, null from category_tree
            union all select category, null from item_categories)
        where category is not null group by category),
    paths as (
        select category, [category] as path, parent from tree
        union all
        select paths.category, list_prepend(above.category, path), above.parent
        from paths join tree as above on above.category = paths.parent
        where not list_contains(path, above.category)),
    longest as (select category, arg_max(path, len(path)) as path from paths group by category),
    latest as (
        select item_id, max({'ts': ts, 'category': category, 'file': source_file, 'row': source_row}) as found
        from item_categories group by item_id)
    select item_id, null::varchar as title, null::varchar as description, null::varchar as brand,
        null::double as price, path as category_path, null::varchar as image_ref, 'items' as domain,
        []::struct(other varchar, kind varchar)[] as pairs,
        found.file as source_file, found.row as source_row, null::varchar as raw
    from latest join longest on longest.category = found.category
    order by item_id"""


def _event() -> Field:
    cases = " ".join(f"when {literal(theirs)} then {literal(ours)}" for theirs, ours in EVENTS.items())
    known = ", ".join(map(literal, EVENTS))
    return Field(
        f"case event {cases} end",
        ((f"event not in ({known})", literal(f"expected an event among {', '.join(EVENTS)}")),),
    )


@dataclass(frozen=True)
class Retailrocket(Source):
    """The Retailrocket shop's log."""

    kind: ClassVar[str] = "retailrocket"
    title: ClassVar[str] = "Retailrocket: events.csv, item_properties_part<n>.csv, category_tree.csv"
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset"
    tested_on: ClassVar[str] = "hand-made lines"
    template: ClassVar[str] = "{categories}"
    derived: ClassVar[Mapping[str, str]] = {"items": ITEMS}

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give events, the categories among the items' properties, and the tree of categories."""
        return (
            Layout(
                role="interactions",
                called="events.csv",
                name=r"events\.csv",
                form=Csv(
                    {"milliseconds": "timestamp", "visitor": "visitorid", "event": "event", "item": "itemid"}
                ),
                columns={
                    "user_id": name_of("visitor", "a visitor id"),
                    "item_id": name_of("item", "an item id"),
                    "ts": unix("milliseconds", "ms"),
                    "event_type": _event(),
                },
            ),
            Layout(
                role="item_categories",
                called="item_properties_part<n>.csv",
                name=r"item_properties(_part(?P<part>[0-9]+))?\.csv",
                form=Csv({name: name for name in ("timestamp", "itemid", "property", "value")}),
                skip=(("property <> 'categoryid'", "a property other than the category, which is hashed"),),
                columns={
                    "item_id": name_of("itemid", "an item id"),
                    "ts": unix('"timestamp"', "ms"),
                    "category": name_of('"value"', "a category id"),
                },
            ),
            Layout(
                role="category_tree",
                called="category_tree.csv",
                name=r"category_tree\.csv",
                form=Csv({"category": "categoryid", "parent": "parentid"}),
                columns={"category": name_of("category", "a category id"), "parent": optional_text("parent")},
            ),
        )
