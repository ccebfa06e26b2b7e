"""Goodreads, the UCSD Book Graph (https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html): JSON lines.

    goodreads_interactions_<genre>.json, goodreads_interactions_dedup.json
        user_id, book_id, is_read, rating 0..5 (0 is none), date_added, read_at, started_at, ...
    goodreads_books_<genre>.json, goodreads_books.json
        book_id, title, description, publisher, popular_shelves, similar_books, image_url, ...

Times are written as `Fri Mar 29 10:06:15 -0700 2013` and become UTC. The time of an event is date_added,
when the book came on a shelf: read_at is often empty, and what readers remember. A book that was only
shelved is `shelve`, a read one `read`.

popular_shelves are readers' own shelves, the most used first. The first FIRST_SHELVES of them that say
something of the book, not of the reader (to-read, owned, ...), are its categories. They are counted over
the whole time, so they know of events that a split may put into the test.

A book may stand in several genres, and its interactions in each: `clean` drops such exact duplicates. Not
read: goodreads_interactions.csv (it has no times), reviews, works, authors, series; brand is the publisher.
"""

from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import (
    Field,
    constant,
    json_list,
    moment,
    name_of,
    number,
    optional_text,
    value,
)
from sid_pipelines.sources.forms import Json
from sid_warehouse.db import literal

FIRST_SHELVES = 5
ABOUT_THE_READER = (
    "abandoned", "all-time-favorites", "audio", "audiobook", "audiobooks", "books", "books-i-have",
    "books-i-own", "borrowed", "bought", "calibre", "collection", "currently-reading", "default",
    "did-not-finish", "dnf", "e-book", "e-books", "ebook", "ebooks", "english", "favorite",
    "favorite-books", "favorites", "favourite", "favourites", "finished", "first-reads", "giveaways",
    "have", "home-library", "i-own", "i-own-it", "kindle", "kindle-books", "library", "library-book",
    "library-books", "maybe", "my-book", "my-books", "my-bookshelf", "my-ebooks", "my-library",
    "netgalley", "nook", "novels-to-read", "on-hold", "own", "own-it", "owned", "owned-books",
    "physical-books", "re-read", "re-reads", "read", "recommended", "reread", "shelfari-favorites", "tbr",
    "to-buy", "to-get", "to-read", "unfinished", "want", "want-to-buy", "want-to-read", "wish-list",
    "wishlist",
)  # fmt: skip
SHELVES = f"""
    list_filter(
        list_transform(
            coalesce(try(from_json(shelves, '[{{"name": "VARCHAR"}}]')), []), lambda s: trim(s.name)),
        lambda s: s is not null and s <> '' and s not in ({", ".join(map(literal, ABOUT_THE_READER))})
            and not regexp_full_match(s, '(read-)?(in-)?[0-9]{{4}}(-read(s|ing)?)?'))[:{FIRST_SHELVES}]"""
NO_IMAGE = "/nophoto/"  # in the address of the picture that stands for none


@dataclass(frozen=True)
class Goodreads(Source):
    """Goodreads: readers' shelves."""

    kind: ClassVar[str] = "goodreads"
    title: ClassVar[str] = (
        "Goodreads (UCSD Book Graph): goodreads_interactions_<genre>.json, goodreads_books_<genre>.json"
    )
    licence: ClassVar[str] = "academic use, no redistribution; cite Wan and McAuley 2018"
    url: ClassVar[str] = "https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html"
    tested_on: ClassVar[str] = "hand-made lines"
    template: ClassVar[str] = "{title}. {categories}. {description}"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give shelvings and books."""
        stars = number("stars", "a rating", low=0, high=5)
        return (
            Layout(
                role="interactions",
                called="goodreads_interactions_<genre>.json",
                name=r"goodreads_interactions_(?P<part>.+)\.json",
                form=Json(
                    {
                        "user_name": "$.user_id",
                        "book": "$.book_id",
                        "stars": "$.rating",
                        "is_read": "$.is_read",
                        "added": "$.date_added",
                    }
                ),
                columns={
                    "user_id": name_of("user_name", "a user id (user_id)"),
                    "item_id": name_of("book", "a book id (book_id)"),
                    "value": Field(f"nullif({stars.sql}, 0)", stars.checks, stars.lets),
                    "ts": moment(
                        "added", "%a %b %d %H:%M:%S %z %Y", example="Fri Mar 29 10:06:15 -0700 2013"
                    ),
                    "event_type": value("case when is_read = 'true' then 'read' else 'shelve' end"),
                },
            ),
            Layout(
                role="items",
                called="goodreads_books_<genre>.json",
                name=r"goodreads_books(_(?P<part>.+))?\.json",
                required=False,
                form=Json(
                    {
                        "book": "$.book_id",
                        "title": "$.title",
                        "description": "$.description",
                        "publisher": "$.publisher",
                        "shelves": "$.popular_shelves",
                        "similar_books": "$.similar_books",
                        "image": "$.image_url",
                    }
                ),
                columns={
                    "item_id": name_of("book", "a book id (book_id)"),
                    "title": optional_text("title"),
                    "description": optional_text("description"),
                    "brand": optional_text("publisher"),
                    "category_path": value(SHELVES),
                    "image_ref": value(
                        f"case when not contains(image, '{NO_IMAGE}') then nullif(trim(image), '') end"
                    ),
                    "domain": constant("books"),
                    "pairs": value(
                        f"list_transform({json_list('similar_books')}, "
                        "lambda x: {'other': x, 'kind': 'similar_books'})"
                    ),
                },
            ),
        )
