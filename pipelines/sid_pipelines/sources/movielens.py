"""MovieLens, every release (https://grouplens.org/datasets/movielens/), in one of three forms.

    100k                       u.data        user, movie, rating 1..5, unix seconds; tabs
                               u.item        movie|title (year)|release date|video release date|IMDb address|
                                             and a flag for each of u.genre's genres, 0 or 1; Latin-1
    1m, 10m                    ratings.dat   user::movie::rating 0.5..5::unix seconds
                               movies.dat    movie::title (year)::genre|genre; 1m in Latin-1, 10m in UTF-8
    20m, 25m, 32m, latest      ratings.csv   userId,movieId,rating,timestamp
                               movies.csv    movieId,title,genres; quoted where a title has a comma

Nothing but its bytes tells the movies.dat of 1m from that of 10m, so the file is read once before: what
is UTF-8 throughout is UTF-8, anything else Latin-1. `[source] encoding` overrules that. The genres
"unknown" (100k) and "(no genres listed)" are no genres.

Not read: tags, links, genome scores, users.dat and u.user, and the ready-made splits (u1.base, r1.train).
"""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import duckdb

from sid_pipelines.sources import archives
from sid_pipelines.sources.base import Layout, RawFile, ReadOptions, Source
from sid_pipelines.sources.fields import Field, constant, name_of, number, optional_text, unix, value
from sid_pipelines.sources.forms import Csv, Delimited, Form
from sid_warehouse.db import literal

FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller",
    "War", "Western",
)  # fmt: skip
RATING = ("user_name", "movie", "stars", "seconds")
MOVIE = ("movie", "title", "genres")
FIELDS_100K = (
    "movie",
    "title",
    "released",
    "video_released",
    "imdb",
    *(f"flag{n}" for n in range(len(FLAGS))),
)
GENRES = value(
    "list_filter(string_split(coalesce(genres, ''), '|'), lambda g: g not in ('', '(no genres listed)'))"
)


def _flagged() -> Field:
    """Give the genres of u.item: the names of those flags that are 1."""
    flags = [f"flag{n}" for n in range(len(FLAGS))]
    named = ", ".join(
        f"case when {flag} = '1' then {literal(name)} end"
        for flag, name in zip(flags[1:], FLAGS[1:], strict=True)
    )
    odd = " or ".join(f"{flag} not in ('0', '1')" for flag in flags)
    return Field(
        f"list_filter([{named}], lambda g: g is not null)",
        ((odd, literal(f"expected {len(FLAGS)} genre flags, each 0 or 1")),),
    )


@dataclass(frozen=True)
class MovieLens(Source):
    """MovieLens.

    posters: where a folder `posters` with a `<movie>.jpg` for each movie stands beside the movies, every
    movie's image is said to be there (whether or not it is).
    """

    kind: ClassVar[str] = "movielens"
    title: ClassVar[str] = (
        "MovieLens, 100k to 32m and latest: u.data, u.item, or ratings and movies, .dat or .csv"
    )
    licence: ClassVar[str] = "research use, no redistribution; cite Harper and Konstan 2015"
    url: ClassVar[str] = "https://grouplens.org/datasets/movielens/"
    tested_on: ClassVar[str] = "real files (100k), hand-made lines (the others)"
    template: ClassVar[str] = "{title}. {genres}"

    posters: bool = False

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give ratings and movies in their three forms."""
        header = {"user_name": "userId", "movie": "movieId", "stars": "rating", "seconds": "timestamp"}
        return (
            self._ratings("u.data", Delimited("\t", RATING)),
            self._ratings("ratings.dat", Delimited("::", RATING)),
            self._ratings("ratings.csv", Csv(header)),
            self._movies("u.item", Delimited("|", FIELDS_100K), _flagged(), encoding="latin-1"),
            self._movies("movies.dat", Delimited("::", MOVIE), GENRES),
            self._movies(
                "movies.csv", Csv({"movie": "movieId", "title": "title", "genres": "genres"}), GENRES
            ),
        )

    def _ratings(self, name: str, form: Form) -> Layout:
        return Layout(
            role="interactions",
            called=name,
            name=name.replace(".", r"\."),
            form=form,
            columns={
                "user_id": name_of("user_name", "a user id"),
                "item_id": name_of("movie", "a movie id"),
                "value": number("stars", "a rating", low=0.5, high=5),
                "ts": unix("seconds", "s"),
            },
        )

    def _movies(self, name: str, form: Form, genres: Field, encoding: str = "utf-8") -> Layout:
        image = {"image_ref": value("'posters/' || movie || '.jpg'")} if self.posters else {}
        return Layout(
            role="items",
            called=name,
            name=name.replace(".", r"\."),
            form=form,
            columns={
                "item_id": name_of("movie", "a movie id"),
                "title": optional_text("title"),
                "category_path": genres,
                "domain": constant("movies"),
                **image,
            },
            encoding=encoding,
        )

    def told(
        self, connection: duckdb.DuckDBPyConnection, file: RawFile, options: ReadOptions
    ) -> tuple[Mapping[str, Any], ReadOptions]:
        """Give the encoding that movies.dat is in."""
        if self.layouts[file.layout].called == "movies.dat" and not options.encoding:
            options = replace(options, encoding="utf-8" if _is_utf8(file) else "latin-1")
        return {}, options


def _is_utf8(file: RawFile) -> bool:
    """Say whether a file is UTF-8 as far as it can be read; Latin-1 with accents practically never is."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in archives.blocks(file.path, file.member):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    except (archives.CutOffError, archives.DamagedError):
        return True  # the reader tells, with the row
    return True
