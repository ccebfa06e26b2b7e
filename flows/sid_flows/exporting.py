"""After a release is published: the trainers' formats that [export] names, each a folder in the warehouse.

`sidmill export` writes the same files anywhere else. Nothing here shapes a release or its fingerprint, so a
format that cannot hold a release fails once the release is there for good, and says so.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sid_flows.plan import Plan
from sid_flows.reporting import reporter
from sid_schemas import SidmillError
from sid_warehouse import files
from sid_warehouse.reader import Release, Warehouse

FOLDER = "exports"


def folder_of(warehouse: Path, record: Mapping[str, Any], name: str) -> Path:
    """Give where the export of a release in a format lies: exports/DATASET/vN/FORMAT in the warehouse."""
    return warehouse / FOLDER / str(record["dataset"]) / f"v{record['version']}" / name


def exports(plan: Plan, record: Mapping[str, Any]) -> list[str]:
    """Write each format that the plan's recipe names; what is there already stays. Gives their folders.

    A format that was being written when its process was killed is written anew. One that cannot hold the
    release keeps no other from being written; its error is raised at the end, and says what is published.
    """
    chosen, written, refused = plan.recipe.export, [], None
    if not chosen.formats:
        return []
    ref = f"{record['dataset']}@v{record['version']}"
    with Warehouse(plan.warehouse).release(ref) as release:
        for name in chosen.formats:
            to = folder_of(plan.warehouse, record, name)
            try:
                _write(release, name, chosen.settings.get(name, {}), to)
                written.append(str(to))
            except SidmillError as error:
                says = f"{ref} is published, but not exported as {name}: {error}"
                says += f", or remove {to} and run again" if to.is_dir() else ""
                refused = refused or type(error).__new__(type(error), says)
    if refused:
        raise refused
    return written


def missing(plan: Plan, record: Mapping[str, Any]) -> list[str]:
    """Give the formats that are still to be written for a published release."""
    formats = plan.recipe.export.formats
    return [name for name in formats if not folder_of(plan.warehouse, record, name).is_dir()]


def _write(release: Release, name: str, settings: Mapping[str, Any], to: Path) -> None:
    from sid_pipelines.trainers import TRAINERS
    from sid_pipelines.trainers.export import export

    report, label, started = reporter.get(), f"export {name}", time.monotonic()
    report.started(label)
    to.parent.mkdir(parents=True, exist_ok=True)
    files.sweep(to.parent)
    made = export(release, TRAINERS[name], to, settings)
    if any(one.written for one in made):
        report.finished(label, f"{len(made)} files in {to}", time.monotonic() - started)
    else:
        report.reused(label, f"{len(made)} files in {to}")
