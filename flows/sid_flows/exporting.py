"""After a release is published: the trainers' formats that [export] names, each a folder in the warehouse.

`sidmill export` writes the same files anywhere else. Nothing here shapes a release or its fingerprint, so a
format that cannot hold a release fails once the release is there for good, and says so.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sid_flows.plan import Plan
from sid_flows.reporting import reporter
from sid_schemas import SidmillError
from sid_warehouse import files
from sid_warehouse.reader import Warehouse

FOLDER = "exports"


def folder_of(warehouse: Path, record: Mapping[str, Any], name: str) -> Path:
    """Give where the export of a release in a format lies: exports/DATASET/vN/FORMAT in the warehouse."""
    return warehouse / FOLDER / str(record["dataset"]) / f"v{record['version']}" / name


def exports(plan: Plan, record: Mapping[str, Any]) -> list[str]:
    """Write each format that the plan's recipe names; what is there already stays. Gives their folders.

    A format that was being written when its process was killed is written anew. Raises the format's own
    error, which then says that the release is published.
    """
    return [str(folder) for folder in _written(plan, record)]


def missing(plan: Plan, record: Mapping[str, Any]) -> list[str]:
    """Give the formats that are still to be written for a published release."""
    formats = plan.recipe.export.formats
    return [name for name in formats if not folder_of(plan.warehouse, record, name).is_dir()]


def _written(plan: Plan, record: Mapping[str, Any]) -> Iterator[Path]:
    chosen = plan.recipe.export
    if not chosen.formats:
        return
    from sid_pipelines.trainers import TRAINERS
    from sid_pipelines.trainers.export import export

    report, ref = reporter.get(), f"{record['dataset']}@v{record['version']}"
    with Warehouse(plan.warehouse).release(ref) as release:
        for name in chosen.formats:
            to, label, started = folder_of(plan.warehouse, record, name), f"export {name}", time.monotonic()
            report.started(label)
            try:
                to.parent.mkdir(parents=True, exist_ok=True)
                files.sweep(to.parent)
                made = export(release, TRAINERS[name], to, chosen.settings.get(name, {}))
            except SidmillError as error:
                says = f"{ref} is published, but not exported as {name}: {error}"
                says += f", or remove {to} and run again" if to.is_dir() else ""
                raise type(error).__new__(type(error), says) from error
            if any(one.written for one in made):
                report.finished(label, f"{len(made)} files in {to}", time.monotonic() - started)
            else:
                report.reused(label, f"{len(made)} files in {to}")
            yield to
