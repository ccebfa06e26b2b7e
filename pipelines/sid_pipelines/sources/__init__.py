"""Where raw data comes from. A source is one file here and one line in SOURCES."""

from sid_pipelines.sources.base import RawFile, Source
from sid_pipelines.sources.movietweetings import MovieTweetings
from sid_schemas import RecipeError

SOURCES: dict[str, Source] = {source.kind: source for source in (MovieTweetings(),)}


def source_named(kind: str) -> Source:
    """Give a source by its recipe name, or raise RecipeError listing those there are."""
    if kind not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise RecipeError(f"[source] kind = {kind!r}: no such source; there are: {known}")
    return SOURCES[kind]


__all__ = ["SOURCES", "RawFile", "Source", "source_named"]
