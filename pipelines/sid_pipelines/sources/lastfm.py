"""Last.fm 2K, HetRec 2011 (https://grouplens.org/datasets/hetrec-2011/): tab-separated, with headers.

    user_taggedartists-timestamps.dat   userID, artistID, tagID, timestamp (ms)
    user_artists.dat                    userID, artistID, weight (plays)
    artists.dat                         id, name, url, pictureURL (which may be missing)
    tags.dat                            tagID, tagValue; Latin-1

The dump has no time of a play: only that a user gave a tag to an artist has one. So the interactions are
the tags (`tag`), and several tags given at once are equal rows, of which `clean` keeps one. With
`[source] events = "plays"` they are the plays instead (`play`, the count as value), all at time 0: then a
user's order, and so what is held out, is whatever [split] ties makes of equal times, and no fact.

An artist's categories are the FIRST_TAGS tags given to it most often, by anyone and at any time: with
tags as events they know of those that a split puts into the test. Some times are of 1956: rejects, as any
time before 1970 is. Not read: user_taggedartists.dat (the same in whole days), user_friends.dat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import constant, name_of, number, optional_text, unix, value
from sid_pipelines.sources.forms import Delimited

FIRST_TAGS = 5
INTERACTIONS = """
    select user_id, item_id, ts, 'tag' as event_type, null::double as value, null::varchar as session_id,
        null::varchar as query, null::integer as position, source_file, source_row
    from taggings where counts order by source_file, source_row"""
ITEMS = f"""
    with names as (select tag_id, min(tag) as tag from tags group by tag_id),
    counted as (
        select item_id, tag, count(*) as times from taggings join names using (tag_id) group by item_id, tag),
    tagged as (
        select item_id, list(tag order by times desc, tag)[:{FIRST_TAGS}] as category_path
        from counted group by item_id)
    select item_id, title, null::varchar as description, null::varchar as brand, null::double as price,
        coalesce(category_path, []) as category_path, image_ref, 'artists' as domain,
        []::struct(other varchar, kind varchar)[] as pairs, source_file, source_row, line as raw
    from artists left join tagged using (item_id) order by source_file, source_row"""


@dataclass(frozen=True)
class LastFm2K(Source):
    """Last.fm 2K of HetRec 2011. events: whether users' tags or their plays are the interactions."""

    kind: ClassVar[str] = "lastfm-2k"
    title: ClassVar[str] = (
        "Last.fm 2K (HetRec 2011): user_taggedartists-timestamps.dat, artists.dat, tags.dat"
    )
    licence: ClassVar[str] = "non-commercial use; cite Cantador et al. 2011"
    url: ClassVar[str] = "https://grouplens.org/datasets/hetrec-2011/"
    tested_on: ClassVar[str] = "hand-made lines"
    template: ClassVar[str] = "{title}. {categories}"
    derived: ClassVar[Mapping[str, str]] = {"interactions": INTERACTIONS, "items": ITEMS}

    events: Literal["tags", "plays"] = "tags"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give tags given to artists, plays where they are asked for, artists, and the tags' names."""
        taggings = Layout(
            role="taggings",
            called="user_taggedartists-timestamps.dat",
            name=r"user_taggedartists-timestamps\.dat",
            form=Delimited("\t", ("userID", "artistID", "tagID", "timestamp"), header=True),
            columns={
                "user_id": name_of("userID", "a user id"),
                "item_id": name_of("artistID", "an artist id"),
                "tag_id": name_of("tagID", "a tag id"),
                "ts": unix('"timestamp"', "ms"),
                "counts": value("true" if self.events == "tags" else "false"),
            },
        )
        plays = Layout(
            role="interactions",
            called="user_artists.dat",
            name=r"user_artists\.dat",
            form=Delimited("\t", ("userID", "artistID", "weight"), header=True),
            columns={
                "user_id": name_of("userID", "a user id"),
                "item_id": name_of("artistID", "an artist id"),
                "value": number("weight", "a number of plays", low=0, high=1e9),
                "ts": value("0::bigint"),
                "event_type": constant("play"),
            },
        )
        artists = Layout(
            role="artists",
            called="artists.dat",
            name=r"artists\.dat",
            form=Delimited("\t", ("id", "name", "url", "pictureURL"), header=True, optional=1),
            columns={
                "item_id": name_of("id", "an artist id"),
                "title": optional_text("name"),
                "image_ref": optional_text("pictureURL"),
                "line": value("raw"),
            },
        )
        tags = Layout(
            role="tags",
            called="tags.dat",
            name=r"tags\.dat",
            form=Delimited("\t", ("tagID", "tagValue"), header=True),
            columns={"tag_id": name_of("tagID", "a tag id"), "tag": name_of("tagValue", "a tag")},
            encoding="latin-1",
        )
        return (taggings, *([plays] if self.events == "plays" else []), artists, tags)
