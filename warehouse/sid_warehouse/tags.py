"""Tags: names such as `production` that say which release is meant, and what they said before.

    <warehouse>/tags/<dataset>/<name>.json   {"version", "fingerprint", "set", "move", "history": [...]}

Here they are read and written; tagging.py moves them. A tag is the one thing in a warehouse that changes:
its file is replaced at once, so that a reader finds the old or the new, and no earlier entry is ever lost.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from sid_schemas import WarehouseError
from sid_warehouse import files
from sid_warehouse.names import DATASET, TAG

FOLDER = "tags"
Move = Literal["tag", "rollback"]


@dataclass(frozen=True)
class Entry:
    """What a tag said from a time on. set: UTC, ISO 8601. move: what set it."""

    version: int
    fingerprint: str
    set: str
    move: Move


@dataclass(frozen=True)
class Tag:
    """A tag and all its entries, the oldest first; the last one holds now."""

    dataset: str
    name: str
    entries: tuple[Entry, ...]

    @property
    def now(self) -> Entry:
        """Give the entry that holds."""
        return self.entries[-1]

    @property
    def ref(self) -> str:
        """Give its name, such as `movietweetings@production`."""
        return f"{self.dataset}@{self.name}"

    @property
    def trail(self) -> tuple[Entry, ...]:
        """Give the entries that rollbacks have not undone; a rollback goes to the last but one.

        >>> entries = [
        ...     Entry(n, "", "", move) for n, move in ((1, "tag"), (2, "tag"), (3, "tag"), (2, "rollback"))
        ... ]
        >>> [entry.version for entry in Tag("d", "production", tuple(entries)).trail]
        [1, 2]
        """
        trail: list[Entry] = []
        for entry in self.entries:
            if entry.move == "rollback":
                trail = trail[:-1]
                while trail and trail.pop().version != entry.version:
                    pass
            trail.append(entry)
        return tuple(trail)

    @property
    def earlier(self) -> Entry | None:
        """Give the entry that a rollback goes to, or None."""
        return self.trail[-2] if len(self.trail) > 1 else None


def path_of(warehouse: Path, dataset: str, name: str) -> Path:
    """Give the file of a tag."""
    return warehouse / FOLDER / dataset / f"{name}.json"


def names(warehouse: Path, dataset: str) -> list[str]:
    """Give the names of a data set's tags, in order."""
    found = (path.stem for path in (warehouse / FOLDER / dataset).glob("*.json"))
    return sorted(name for name in found if TAG.fullmatch(name))


def of(warehouse: Path, dataset: str) -> list[Tag]:
    """Give the tags of a data set, by name; raises WarehouseError for a damaged one."""
    found = (read(warehouse, dataset, name) for name in names(warehouse, dataset))
    return [tag for tag in found if tag]


def datasets(warehouse: Path) -> list[str]:
    """Give the data sets that have tags, in order."""
    found = (path.parent.name for path in (warehouse / FOLDER).glob("*/*.json"))
    return sorted({name for name in found if DATASET.fullmatch(name)})


def read(warehouse: Path, dataset: str, name: str) -> Tag | None:
    """Give a tag, or None; raises WarehouseError where its file is damaged."""
    path = path_of(warehouse, dataset, name)
    return _parse(dataset, name, files.read_json(path), str(path)) if path.exists() else None


def _parse(dataset: str, name: str, value: Any, where: str) -> Tag:
    try:
        now = dict(value)
        entries = [*now.pop("history"), now]
        return Tag(dataset, name, tuple(_entry(entry) for entry in entries))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WarehouseError(f"{where}: is no tag ({error!r}); remove it and tag the release anew") from error


def _entry(value: Any) -> Entry:
    entry = Entry(**value)
    datetime.fromisoformat(entry.set)
    entry.fingerprint.encode()
    if type(entry.version) is not int or not 0 < entry.version < 10**9 or entry.move not in get_args(Move):
        raise ValueError(f"version {entry.version!r}, move {entry.move!r}")
    return entry


def as_json(entries: Sequence[Entry]) -> dict[str, Any]:
    """Give what a tag's file holds."""
    *history, now = (asdict(entry) for entry in entries)
    return {**now, "history": history}


def write(warehouse: Path, tag: Tag) -> None:
    """Replace a tag's file at once: whoever reads it finds the old entries or the new ones."""
    path = path_of(warehouse, tag.dataset, tag.name)
    with files.writing(path.parent) as folder:
        fresh = folder / path.name
        files.write_json(fresh, as_json(tag.entries))
        files.sync(fresh)
        fresh.replace(path)
        files.sync(path.parent)


def remove(warehouse: Path, dataset: str, name: str) -> None:
    """Remove a tag and its history."""
    path = path_of(warehouse, dataset, name)
    path.unlink()
    files.sync(path.parent)
