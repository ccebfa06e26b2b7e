"""MovieTweetings: ratings.dat and movies.dat, '::'-separated, UTF-8 (https://github.com/sidooms/MovieTweetings).

    ratings.dat   user_id::movie_id::rating 0..10::unix seconds
    movies.dat    movie_id::title (year)::genre|genre

Every snapshot numbers its users anew, so two snapshots are two data sets.
"""

from pathlib import Path
from typing import ClassVar

from sid_pipelines.sources.base import RawFile, Source, file_in

LATEST_SECOND = 4_102_444_800  # 2100-01-01: a larger number is in another unit


class MovieTweetings(Source):
    """The MovieTweetings snapshots and the full dump."""

    kind: ClassVar[str] = "movietweetings"
    title: ClassVar[str] = "MovieTweetings: ratings.dat, movies.dat (plain or .gz)"
    licence: ClassVar[str] = "MIT, Simon Dooms"
    template: ClassVar[str] = "{title}. {genres}"

    def find(self, folder: Path) -> list[RawFile]:
        """Give ratings.dat and movies.dat, each plain or gzip."""
        ratings, movies = file_in(folder, "ratings.dat"), file_in(folder, "movies.dat")
        return [
            RawFile(ratings, f"{folder.name}/{ratings.name}", "interactions"),
            RawFile(movies, f"{folder.name}/{movies.name}", "items"),
        ]

    def interactions_sql(self, label: str) -> str:
        """Parse user::movie::rating::seconds."""
        return f"""
            with fields as (select source_row, raw, string_split(raw, '::') as f from lines),
            typed as (
                select *, try_cast(f[3] as double) as rating,
                    case when regexp_full_match(f[4], '-?[0-9]{{1,18}}') then f[4]::bigint end as seconds
                from fields
            )
            select f[1] as user_id, f[2] as item_id, 'rating' as event_type,
                case when seconds between 0 and {LATEST_SECOND} then seconds * 1000 end as ts,
                rating as value, {label} as source_file, source_row, raw,
                case
                    when len(f) <> 4 then
                        'expected 4 fields separated by ''::'', got ' || len(f)
                    when trim(f[1]) = '' then 'expected a user id first, got nothing'
                    when trim(f[2]) = '' then 'expected a movie id second, got nothing'
                    when rating is null or not isfinite(rating) then
                        'expected a number as rating'
                    when rating not between 0 and 10 then
                        'expected a rating from 0 to 10'
                    when seconds is null then
                        'expected whole unix seconds as time'
                    when seconds not between 0 and {LATEST_SECOND} then
                        'expected unix seconds from 1970 to 2100'
                end as reason
            from typed"""

    def items_sql(self, label: str) -> str:
        """Parse movie::title (year)::genre|genre."""
        return f"""
            with fields as (select source_row, raw, string_split(raw, '::') as f from lines)
            select f[1] as item_id, nullif(trim(f[2]), '') as title,
                null::varchar as description, null::varchar as brand, null::double as price,
                list_filter(string_split(coalesce(f[3], ''), '|'), lambda g: g <> '')
                    as category_path,
                null::varchar as image_ref, 'movies' as domain,
                {label} as source_file, source_row, raw,
                case
                    when len(f) <> 3 then
                        'expected 3 fields separated by ''::'', got ' || len(f)
                    when trim(f[1]) = '' then 'expected a movie id, got nothing'
                end as reason
            from fields"""
