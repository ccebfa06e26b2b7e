"""Write a release for others, in any format there is; for the command and for the flow.

exporting.py writes what a recipe's [export] names into the warehouse; here it is one format, anywhere else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sid_schemas import RecipeError
from sid_warehouse.reader import Release, Warehouse


@dataclass(frozen=True)
class HandedOver:
    """What was written. rows: one for each file of a trainer's format, else for each table."""

    ref: str
    name: str
    to: Path
    of_trainer: bool
    rows: list[dict[str, Any]]

    @property
    def told(self) -> dict[str, Any]:
        """Give it for a program to read."""
        kind = "files" if self.of_trainer else "tables"
        return {"ref": self.ref, "format": self.name, "to": str(self.to), kind: self.rows}


def hand_over(
    warehouse: Path,
    ref: str,
    name: str,
    to: Path,
    *,
    tables: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> HandedOver:
    """Write a release in a format into a folder outside of the warehouse.

    tables: of delta and iceberg; all where None. settings: what may be chosen of a trainer's format. Raises
    RecipeError for what does not fit together, and what the format raises.
    """
    from sid_pipelines.exports import FORMATS
    from sid_pipelines.trainers import TRAINERS

    to = to.expanduser().absolute()
    if to.resolve().is_relative_to(warehouse.resolve()):
        raise RecipeError(f"--to {to}: is inside the warehouse; choose a folder outside of it")
    if name not in (*FORMATS, *TRAINERS):
        raise RecipeError(
            f"no export format is called {name!r}; there are: {', '.join((*FORMATS, *TRAINERS))}"
        )
    if name in TRAINERS and tables:
        raise RecipeError(f"--tables: {name} has files of its own; leave it out")
    if name in FORMATS and settings:
        raise RecipeError(f"--set: {name} has no settings; choose tables with --tables")
    with Warehouse(warehouse).release(ref) as release:
        if name in TRAINERS:
            rows = _for_trainer(release, name, to, settings or {})
        else:
            rows = _tables(release, name, to, tables)
        return HandedOver(release.ref, name, to, name in TRAINERS, rows)


def _tables(release: Release, name: str, to: Path, tables: Sequence[str] | None) -> list[dict[str, Any]]:
    from sid_pipelines.exports import export as write

    return [
        {"table": one.table, "rows": one.rows, "version": one.version, "status": _status(one.written)}
        for one in write(release, name, to, tables)
    ]


def _for_trainer(release: Release, name: str, to: Path, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    from sid_pipelines.trainers import TRAINERS
    from sid_pipelines.trainers.export import export as write

    done = write(release, TRAINERS[name], to, given)
    return [{"file": one.file, "bytes": one.bytes, "status": _status(one.written)} for one in done]


def _status(written: bool) -> str:
    return "written" if written else "unchanged"
