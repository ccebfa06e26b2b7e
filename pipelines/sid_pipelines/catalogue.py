"""What is known of items, as tokenizers ask for it: read from the outputs of the stages before.

Behaviour is that of train events alone, whatever the fit scope is. Where a stage goes on from a release, its
role `base`, the items are those that are new.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_pipelines.based import base_rows
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Work
from sid_pipelines.vectors import read_vectors
from sid_schemas import DataError
from sid_tokenizers import Catalogue, Events
from sid_warehouse.stages import StageOutput

COLUMNS = {"item_ids": "item_id", "categories": "category_path", "domains": "domain", "titles": "title"}
FROM = {
    "categories": "a source with metadata ([source] items = ..., or the column category_path of a table)",
    "titles": "a source with metadata ([source] items = ..., or the column title of a table)",
}
RELEASED = {**COLUMNS, "texts": "text"}  # a release has the texts with the items


def catalogue_of(work: Work, needs: Collection[str]) -> Catalogue:
    """Give all items, or those behind the base's, with their ids and the fields of Catalogue that are needed.

    Reads the roles `clean` for content, `text` for what was embedded, `split` for train events, `cf` for
    behaviour vectors. `clean` may be a release.
    """
    clean = work.inputs["clean"]
    table, columns = ("items", RELEASED) if "items" in clean.manifest["rows"] else ("items_clean", COLUMNS)
    wanted = {name: column for name, column in columns.items() if name in ("item_ids", *needs)}
    items = clean.read(table, list(wanted.values()))
    found: dict[str, Any] = {name: items[column].to_pylist() for name, column in wanted.items()}
    if "titles" in found:
        found["titles"] = [title or "" for title in found["titles"]]
    if "texts" in needs and "texts" not in found:
        found["texts"] = work.inputs["text"].read("texts", ["text"])["text"].to_pylist()
    first = base_rows(work, "items")
    if "cf" in needs:
        found["cf"] = read_vectors(work.inputs["cf"])[first:]
    if {"events", "popularity"} & set(needs):
        n = first + len(items)
        events = train_events(work.inputs["split"], n).of(np.arange(first, n), n)
        if "popularity" in needs:
            found["popularity"] = np.bincount(events.items, minlength=len(items)).astype(np.int64)
        if "events" in needs:
            found["events"] = events
    if not first:
        _check_there(found)
    return Catalogue(**found)


def whole_catalogue(base: StageOutput, new: Catalogue) -> Catalogue:
    """Give the words that are known of all items: those of a release, then new ones."""
    known = {name: column for name, column in RELEASED.items() if getattr(new, name) is not None}
    items = base.read("items", list(known.values()))
    found: dict[str, Any] = {}
    for name, column in known.items():
        published = items[column].to_pylist()
        found[name] = [*(one or "" for one in published), *getattr(new, name)]
    return Catalogue(**found)


def _check_there(found: Mapping[str, Any]) -> None:
    """Raise DataError where a field that is needed is empty for every item, saying where it comes from."""
    for name, source in FROM.items():
        if name in found and not any(found[name]):
            raise DataError(
                f"tokenize: the scheme needs {name}, and no item of this data set has any; expected some. "
                f"Add them by {source}, or choose another scheme"
            )


def train_events(split: StageOutput, n: int) -> Events:
    """Give the train events of n items, user by user in the declared order."""
    read = TrainEvents.of(split.parts("interactions"), 0, n)
    return Events(_long(read.users), _long(read.items))


def _long(column: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    return column.astype(np.int64)
