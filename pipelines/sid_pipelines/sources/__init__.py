"""Where raw data comes from. A source is one file here and one line in SOURCES."""

from sid_pipelines.sources.amazon_2014 import Amazon2014
from sid_pipelines.sources.amazon_2018 import Amazon2018
from sid_pipelines.sources.amazon_2023 import Amazon2023
from sid_pipelines.sources.base import Candidate, RawFile, ReadOptions, Source, candidates
from sid_pipelines.sources.goodreads import Goodreads
from sid_pipelines.sources.gowalla import Gowalla
from sid_pipelines.sources.lastfm import LastFm2K
from sid_pipelines.sources.mind import Mind
from sid_pipelines.sources.movielens import MovieLens
from sid_pipelines.sources.movietweetings import MovieTweetings
from sid_pipelines.sources.open_bandit import OpenBandit
from sid_pipelines.sources.retailrocket import Retailrocket
from sid_pipelines.sources.steam import Steam
from sid_pipelines.sources.table import AnyTable
from sid_pipelines.sources.trivago import Trivago
from sid_pipelines.sources.yelp import Yelp
from sid_schemas import RecipeError

SOURCES: dict[str, type[Source]] = {
    source.kind: source
    for source in (
        Amazon2014,
        Amazon2018,
        Amazon2023,
        Goodreads,
        Gowalla,
        LastFm2K,
        MovieLens,
        MovieTweetings,
        Retailrocket,
        Steam,
        Mind,
        OpenBandit,
        AnyTable,
        Trivago,
        Yelp,
    )
}


def source_named(kind: str) -> type[Source]:
    """Give a source by its recipe name, or raise RecipeError listing those there are."""
    if kind not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise RecipeError(f"[source] kind = {kind!r}: no such source; there are: {known}")
    return SOURCES[kind]


__all__ = ["SOURCES", "Candidate", "RawFile", "ReadOptions", "Source", "candidates", "source_named"]
