"""Exports of tables, in formats that others keep. A new one is one file and one line here.

What trainers read is in trainers/.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sid_pipelines.exports import delta, iceberg
from sid_pipelines.exports.tables import Exported, claimed, known_tables
from sid_schemas import RecipeError
from sid_warehouse.reader import Release

__all__ = ["FORMATS", "Exported", "export"]

FORMATS: Mapping[str, Callable[[Release, Path, Sequence[str]], list[Exported]]] = {
    "delta": delta.write,
    "iceberg": iceberg.write,
}


def export(release: Release, name: str, to: Path, tables: Sequence[str] | None = None) -> list[Exported]:
    """Write tables of a release, all where none is named, in a format into a folder; say what became of each.

    The folder is empty or absent at first and afterwards this data set's: its next release goes into the same
    one, and the release that it has already changes nothing. One process at a time writes into it. Raises
    RecipeError for a format, a table or a folder that cannot be, WarehouseError where the release is damaged
    or the disk refuses, and MissingExtraError.
    """
    if name not in FORMATS:
        raise RecipeError(f"no export format is called {name!r}; there are: {', '.join(FORMATS)}")
    named = known_tables(release, tables)
    with claimed(to.absolute(), name, release):
        return FORMATS[name](release, to.absolute(), named)
