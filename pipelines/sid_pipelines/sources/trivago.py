"""trivago, RecSys Challenge 2019: hotel search sessions
(https://github.com/recsyschallenge/2019/blob/master/docs/problem_definition.md).

    train.csv, test.csv   user_id, session_id, timestamp (seconds), step, action_type, reference, platform,
                          city, device, current_filters, impressions and prices (|-separated, of clickouts)
    item_metadata.csv     item_id, properties (|-separated)

A clickout gives a click on its reference, placed where it stood in the list, and an impression: the list
with the reference as clicked. A clicked hotel that is not in its list gives a click without a place, and
a list of which nothing was clicked. Rating, info, image, deals and a search for an item are views. The
impression id is session and step; the query is the city of the search, which every step has. Left out:
steps without a hotel (filters, sorting, searches for a place), steps whose hotel is not known, and the
withheld clickouts of test.csv. Not read: platform, device, current_filters, and prices, which are of an
offer and not of a hotel. Hotels have no names: properties are their only text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import Field, constant, name_of, optional_text, unix, value
from sid_pipelines.sources.forms import Csv
from sid_warehouse.db import literal

CLICKOUT = "clickout item"
VIEWS = (
    "interaction item rating",
    "interaction item info",
    "interaction item image",
    "interaction item deals",
    "search for item",
)
WITHOUT_ITEM = ("filter selection", "change of sort order", "search for destination", "search for poi")
COLUMNS = (
    "user_id", "session_id", "timestamp", "step", "action_type", "reference", "city", "impressions",
)  # fmt: skip


def listed(name: str) -> str:
    """Give the SQL of the entries of a |-separated text."""
    return f"list_filter(string_split(coalesce({name}, ''), '|'), lambda one: trim(one) <> '')"


def among(name: str, names: tuple[str, ...]) -> str:
    """Give the SQL of whether a text is one of several."""
    return f"{name} in ({', '.join(map(literal, names))})"


ACTION = Field(
    f"if(action_type = {literal(CLICKOUT)}, 'click', 'view')",
    (
        (
            f"not coalesce({among('action_type', (CLICKOUT, *VIEWS))}, false)",
            "'expected an action_type of the challenge, got ' || coalesce(left(action_type, 60), 'nothing')",
        ),
    ),
)
SHOWN = Field(
    listed("impressions"),
    (
        (
            f"action_type = {literal(CLICKOUT)} and len({listed('impressions')}) = 0",
            literal("expected the hotels shown at the clickout (impressions), got nothing"),
        ),
    ),
)

IMPRESSIONS = """
    select user_id, ts, session_id || '/' || step as impression_id, session_id, query, items,
        list_transform(items, lambda one: one = item_id) as clicked,
        range(1, len(items) + 1)::integer[] as positions, null::double[] as propensities,
        source_file, source_row
    from steps where event_type = 'click' order by source_file, source_row"""

INTERACTIONS = """
    select user_id, item_id, ts, event_type, null::double as value, session_id, query,
        if(event_type = 'click', nullif(list_position(items, item_id), 0), null)::integer as position,
        source_file, source_row
    from steps order by source_file, source_row"""


@dataclass(frozen=True)
class Trivago(Source):
    """The sessions of the RecSys Challenge 2019, with what was shown at each clickout."""

    kind: ClassVar[str] = "trivago"
    title: ClassVar[str] = "trivago, RecSys Challenge 2019: train.csv, test.csv, item_metadata.csv"
    licence: ClassVar[str] = "terms of the challenge; cite Adamczak et al. 2020"
    url: ClassVar[str] = "https://recsys.trivago.cloud/challenge/dataset/"
    tested_on: ClassVar[str] = "hand-made lines in the published format"
    template: ClassVar[str] = "{categories}"
    derived: ClassVar[Mapping[str, str]] = {"impressions": IMPRESSIONS, "interactions": INTERACTIONS}

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give sessions and hotels."""
        return (
            Layout(
                role="steps",
                called="train.csv or test.csv",
                name=r"(?P<part>train|test)\.csv",
                form=Csv({name: name for name in COLUMNS}),
                columns={
                    "event_type": ACTION,
                    "user_id": name_of("user_id", "a user id"),
                    "session_id": name_of("session_id", "a session id"),
                    "step": name_of("step", "a step"),
                    "item_id": name_of("reference", "an item id as reference"),
                    "ts": unix('"timestamp"', "s"),
                    "query": optional_text("city"),
                    "items": SHOWN,
                },
                skip=(
                    (among("action_type", WITHOUT_ITEM), "an action that is not on a hotel"),
                    (
                        f"action_type = {literal(CLICKOUT)} "
                        "and coalesce(trim(reference), '') in ('', 'NA', 'nan')",
                        "a clickout whose hotel is withheld, as in test.csv",
                    ),
                    (
                        f"{among('action_type', VIEWS)} "
                        "and coalesce(lower(trim(reference)), '') in ('', 'na', 'nan', 'unknown')",
                        "an action on a hotel that is not known",
                    ),
                ),
            ),
            Layout(
                role="items",
                called="item_metadata.csv",
                name=r"item_metadata\.csv",
                form=Csv({"item_id": "item_id", "properties": "properties"}),
                columns={
                    "item_id": name_of("item_id", "an item id"),
                    "category_path": value(listed("properties")),
                    "domain": constant("hotels"),
                },
            ),
        )
