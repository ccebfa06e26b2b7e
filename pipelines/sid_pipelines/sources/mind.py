"""MIND, news impressions of Microsoft News (https://msnews.github.io, described at
https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md): tabs, nothing quoted.

    behaviors.tsv   impression id, user, time such as 11/12/2019 2:14:46 PM (month first, taken as UTC),
                    history (news clicked before, blank-separated, may be empty), impressions (news shown,
                    blank-separated, each with -1 where it was clicked, else -0)
    news.tsv        news id, category, subcategory, title, abstract, url, entities of title and abstract

A line gives an impression, and a click at its time for each news clicked in it. The history has no
times, so **the times of its clicks are made up**: they end 1 ms before the user's first impression, 1 ms
apart in the order of the list. It is taken once per user, from the earliest line (ties by impression id),
whatever the order of lines; what a later history adds to it are clicks of weeks whose impressions are in
the dump themselves, as in dev after train. Lines without labels, as in the test set, are left out:
nothing is known of their clicks. Not read: url, entities, and the embedding files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import Field, constant, moment, name_of, optional_text, value
from sid_pipelines.sources.forms import Delimited
from sid_warehouse.db import literal

NEWS = ("news", "category", "subcategory", "title", "abstract", "url", "in_title", "in_abstract")


def words(name: str) -> str:
    """Give the SQL of the blank-separated words of a text."""
    return f"list_filter(string_split(coalesce({name}, ''), ' '), lambda w: w <> '')"


LABELLED = r"\s*[^\s]+-[01](\s+[^\s]+-[01])*\s*"
UNLABELLED = r"\s*N[0-9]+(\s+N[0-9]+)*\s*"
SHOWN = Field(
    f"list_transform({words('shown')}, lambda w: left(w, length(w) - 2))",
    (
        (
            f"not coalesce(regexp_full_match(shown, {literal(LABELLED)}), false)",
            literal("expected news shown, each with -0 or -1, such as N1-0 N2-1"),
        ),
    ),
)

IMPRESSIONS = """
    select user_id, ts, impression_id, null::varchar as session_id, null::varchar as query, items, clicked,
        range(1, len(items) + 1)::integer[] as positions, null::double[] as propensities,
        source_file, source_row
    from behaviors order by source_file, source_row"""

INTERACTIONS = """
    with earliest as (
        from behaviors qualify row_number() over (partition by user_id
            order by ts, try_cast(impression_id as bigint), impression_id, history, source_file, source_row)
            = 1),
    places as (
        select *, 0 as part, unnest(range(1, len(history) + 1)) as place from earliest
        union all by name
        select *, 1 as part, unnest(range(1, len(items) + 1)) as place from behaviors)
    select user_id, if(part = 0, history[place], items[place]) as item_id,
        if(part = 0, greatest(ts - len(history) + place - 1, 0), ts)::bigint as ts, 'click' as event_type,
        null::double as value, null::varchar as session_id, null::varchar as query,
        if(part = 0, null, place)::integer as position, source_file, source_row
    from places where part = 0 or clicked[place]
    order by source_file, source_row, part, place"""


@dataclass(frozen=True)
class Mind(Source):
    """MIND-small and MIND-large; train and dev are two folders, and may be given together."""

    kind: ClassVar[str] = "mind"
    title: ClassVar[str] = "MIND: behaviors.tsv, news.tsv"
    licence: ClassVar[str] = "Microsoft Research License, research use"
    url: ClassVar[str] = "https://msnews.github.io"
    tested_on: ClassVar[str] = "real files"
    template: ClassVar[str] = "{title}. {categories}. {description}"
    derived: ClassVar[Mapping[str, str]] = {"impressions": IMPRESSIONS, "interactions": INTERACTIONS}

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give behaviours and news."""
        return (
            Layout(
                role="behaviors",
                called="behaviors.tsv",
                name=r"behaviors\.tsv",
                form=Delimited("\t", ("impression", "person", "said", "history", "shown")),
                columns={
                    "impression_id": name_of("impression", "an impression id"),
                    "user_id": name_of("person", "a user id"),
                    "ts": moment("said", "%m/%d/%Y %I:%M:%S %p", example="11/12/2019 2:14:46 PM"),
                    "history": value(words("history")),
                    "items": SHOWN,
                    "clicked": value(f"list_transform({words('shown')}, lambda w: right(w, 1) = '1')"),
                },
                skip=(
                    (
                        f"regexp_full_match(shown, {literal(UNLABELLED)})",
                        "an impression without labels, as in the test set",
                    ),
                ),
            ),
            Layout(
                role="items",
                called="news.tsv",
                name=r"news\.tsv",
                form=Delimited("\t", NEWS),
                columns={
                    "item_id": name_of("news", "a news id"),
                    "title": optional_text("title"),
                    "description": optional_text("abstract"),
                    "category_path": value(
                        "list_filter([trim(category), trim(subcategory)], lambda c: coalesce(c, '') <> '')"
                    ),
                    "domain": constant("news"),
                },
            ),
        )
