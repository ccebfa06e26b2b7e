"""Gowalla check-ins, 2009 and 2010 (https://snap.stanford.edu/data/loc-Gowalla.html), UTF-8, tabs, no header.

    loc-gowalla_totalCheckins.txt   user, time such as 2010-10-19T23:55:27Z, latitude, longitude, location

The dump says nothing of a location but where it is, so items have no content and a text encoder finds
nothing to read. Not read: the coordinates, and the friendships in loc-gowalla_edges.txt.
"""

from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import constant, moment, name_of
from sid_pipelines.sources.forms import Delimited


@dataclass(frozen=True)
class Gowalla(Source):
    """Gowalla check-ins."""

    kind: ClassVar[str] = "gowalla"
    title: ClassVar[str] = "Gowalla check-ins: loc-gowalla_totalCheckins.txt"
    licence: ClassVar[str] = "none stated; cite Cho et al. 2011"
    url: ClassVar[str] = "https://snap.stanford.edu/data/loc-Gowalla.html"
    tested_on: ClassVar[str] = "hand-made lines"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give check-ins."""
        return (
            Layout(
                role="interactions",
                called="loc-gowalla_totalCheckins.txt",
                name=r"loc-gowalla_totalCheckins\.txt",
                form=Delimited("\t", ("user_name", "checked_in", "latitude", "longitude", "place")),
                columns={
                    "user_id": name_of("user_name", "a user id"),
                    "item_id": name_of("place", "a location id"),
                    "ts": moment("checked_in", "%Y-%m-%dT%H:%M:%SZ", example="2010-10-19T23:55:27Z"),
                    "event_type": constant("checkin"),
                },
            ),
        )
