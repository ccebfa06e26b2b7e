"""MovieTweetings: ratings.dat and movies.dat, '::'-separated, UTF-8 (https://github.com/sidooms/MovieTweetings).

    ratings.dat   user_id::movie_id::rating 0..10::unix seconds
    movies.dat    movie_id::title (year)::genre|genre

Every snapshot numbers its users anew, so two snapshots are two data sets.
"""

from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import constant, name_of, number, optional_text, unix, value
from sid_pipelines.sources.forms import Delimited

GENRES = "list_filter(string_split(coalesce(genres, ''), '|'), lambda g: g <> '')"


@dataclass(frozen=True)
class MovieTweetings(Source):
    """The MovieTweetings snapshots and the full dump."""

    kind: ClassVar[str] = "movietweetings"
    title: ClassVar[str] = "MovieTweetings: ratings.dat, movies.dat"
    licence: ClassVar[str] = "MIT, Simon Dooms"
    url: ClassVar[str] = "https://github.com/sidooms/MovieTweetings"
    tested_on: ClassVar[str] = "real files"
    template: ClassVar[str] = "{title}. {genres}"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give ratings and movies."""
        return (
            Layout(
                role="interactions",
                called="ratings.dat",
                name=r"ratings\.dat",
                form=Delimited("::", ("user", "movie", "rating", "seconds")),
                columns={
                    "user_id": name_of("user", "a user id"),
                    "item_id": name_of("movie", "a movie id"),
                    "value": number("rating", "a rating", low=0, high=10),
                    "ts": unix("seconds", "s"),
                },
            ),
            Layout(
                role="items",
                called="movies.dat",
                name=r"movies\.dat",
                form=Delimited("::", ("movie", "title", "genres")),
                columns={
                    "item_id": name_of("movie", "a movie id"),
                    "title": optional_text("title"),
                    "category_path": value(GENRES),
                    "domain": constant("movies"),
                },
            ),
        )
