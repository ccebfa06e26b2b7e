"""Steam video games (https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data): one Python dict a line.

    steam_reviews.json (steam_new.json once unpacked)
                       username, user_id (a number as text, of part of the reviewers), product_id,
                       date such as 2017-12-17, hours (played), text, products, early_access, ...
    steam_games.json   id, title, app_name, genres, tags, specs, developer, publisher, price, url, ...

Who wrote a review is its user_id, and the username where that is missing: usernames are what people call
themselves, and several share one. Published work goes by the username alone: [source] user = "name".
A review has no rating; its value is the hours played, where given. A game's categories are its genres,
then those of its tags that are no genre; its brand is the developer, else the publisher; its description
the specs, such as Single-player. A price that begins with `Free` is 0, other words are null. A game
without an id is a reject.

Not read: the reviews' text, whose dates are days; australian_users_items.json, which has no times;
australian_user_reviews.json, whose dates lack the year; bundle_data.json.
"""

from dataclasses import dataclass, replace
from typing import ClassVar
from typing import Literal as OneOf

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import (
    Field,
    constant,
    joined,
    json_list,
    moment,
    name_of,
    optional_number,
    optional_text,
    price,
    value,
)
from sid_pipelines.sources.literals import Literal

PRICE, TITLE, APP_NAME = price("price"), optional_text("title"), optional_text("app_name")
GAME = ("id", "title", "app_name", "genres", "tags", "specs", "developer", "publisher", "price")


def _told(name: str) -> str:
    """Give the SQL of a text, null where it is blank or says `None`."""
    return f"nullif({optional_text(name).sql}, 'None')"


@dataclass(frozen=True)
class Steam(Source):
    """Reviews and games of Steam, 2010 to 2018.

    user: what names a reviewer: "id", the user_id and the username where that is missing; or "name", the
    username alone.
    """

    kind: ClassVar[str] = "steam"
    title: ClassVar[str] = "Steam: steam_reviews.json, steam_games.json"
    licence: ClassVar[str] = "research use; cite Kang and McAuley 2018"
    url: ClassVar[str] = "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data"
    tested_on: ClassVar[str] = "hand-made lines in the published format"
    template: ClassVar[str] = "{title}. {brand}. {categories}. {description}"

    user: OneOf["id", "name"] = "id"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give reviews and games."""
        names = ("user_id", "username") if self.user == "id" else ("username",)
        reviewer = f"coalesce({', '.join(map(_told, names))})"
        return (
            Layout(
                role="interactions",
                called="steam_reviews.json",
                name=r"steam_(reviews|new)\.json",
                form=Literal(
                    {
                        "user_id": "$.user_id",
                        "username": "$.username",
                        "product": "$.product_id",
                        "day": "$.date",
                        "hours": "$.hours",
                    }
                ),
                columns={
                    "user_id": replace(name_of("reviewer", "a user"), lets={"reviewer": reviewer}),
                    "item_id": name_of("product", "a game id (product_id)"),
                    "event_type": constant("review"),
                    "value": optional_number("hours"),
                    "ts": moment("day", "%Y-%m-%d", example="2017-12-17"),
                },
            ),
            Layout(
                role="items",
                called="steam_games.json",
                name=r"steam_games\.json",
                required=False,
                form=Literal({name: f"$.{name}" for name in GAME}),
                columns={
                    "item_id": replace(name_of("game", "a game id"), lets={"game": _told("id")}),
                    "title": value(f"coalesce({TITLE.sql}, {APP_NAME.sql})"),
                    "description": value(joined(json_list("specs"))),
                    "brand": value(f"coalesce({_told('developer')}, {_told('publisher')})"),
                    "price": value(f"case when price ilike 'free%' then 0 else {PRICE.sql} end"),
                    "category_path": Field(
                        "list_concat(kinds, list_filter(labels, lambda x: not list_contains(kinds, x)))",
                        lets={"kinds": json_list("genres"), "labels": json_list("tags")},
                    ),
                    "domain": constant("games"),
                },
            ),
        )
