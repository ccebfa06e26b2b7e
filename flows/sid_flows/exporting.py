"""After a release is published: the trainers' formats that [export] names, each a folder in the warehouse.

`sidmill export` writes the same files anywhere else. Nothing here shapes a release or its fingerprint, so a
format that cannot hold a release fails once the release is there for good, and says so.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sid_flows.engines import engine_of
from sid_flows.plan import Plan
from sid_flows.reporting import reporter
from sid_pipelines.sharded.job import Engine
from sid_pipelines.sharded.shards import Shards
from sid_pipelines.sharded.stages import exports as by_shards
from sid_pipelines.stage import Resources
from sid_schemas import SidmillError
from sid_warehouse import files
from sid_warehouse.reader import Warehouse
from sid_warehouse.stages import SCRATCH

FOLDER = "exports"
Came = by_shards.Told | SidmillError


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
    targets = {name: folder_of(plan.warehouse, record, name) for name in chosen.formats}
    parent = plan.warehouse / FOLDER / str(record["dataset"]) / f"v{record['version']}"
    parent.mkdir(parents=True, exist_ok=True)
    files.sweep(parent)
    engine = engine_of(plan.recipe.engine) if missing(plan, record) else None  # to check is no job
    write = _one_by_one(plan, ref, targets) if engine is None else _at_once(plan, ref, targets, engine)
    for name, came in write:
        if isinstance(came, SidmillError):
            says = f"{ref} is published, but not exported as {name}: {came}"
            says += f", or remove {targets[name]} and run again" if targets[name].is_dir() else ""
            refused = refused or type(came).__new__(type(came), says)
        else:
            written.append(str(targets[name]))
    if refused:
        raise refused
    return written


def missing(plan: Plan, record: Mapping[str, Any]) -> list[str]:
    """Give the formats that are still to be written for a published release."""
    formats = plan.recipe.export.formats
    return [name for name in formats if not folder_of(plan.warehouse, record, name).is_dir()]


def _one_by_one(plan: Plan, ref: str, targets: Mapping[str, Path]) -> Iterator[tuple[str, Came]]:
    """Write formats in this process."""
    from sid_pipelines.trainers import TRAINERS
    from sid_pipelines.trainers.export import export

    with Warehouse(plan.warehouse).release(ref) as release:
        for name, to in targets.items():
            reporter.get().started(f"export {name}")
            started = time.monotonic()
            try:
                made = export(release, TRAINERS[name], to, plan.recipe.export.settings.get(name, {}))
            except SidmillError as error:
                yield name, error
            else:
                told = len(made), any(one.written for one in made)
                _report(name, to, told, time.monotonic() - started)
                yield name, told


def _at_once(plan: Plan, ref: str, targets: Mapping[str, Path], engine: Engine) -> Iterator[tuple[str, Came]]:
    """Write formats as tasks of one job."""
    chosen, started = plan.recipe.export, time.monotonic()
    for name in targets:
        reporter.get().started(f"export {name}")
    to = {name: folder.absolute() for name, folder in targets.items()}
    wanted = by_shards.Wanted(plan.warehouse.absolute(), ref, to, chosen.settings)
    resources = Resources(memory=plan.recipe.engine.memory, cache=plan.warehouse / "cache")
    with files.writing(plan.warehouse / SCRATCH / plan.recipe.dataset) as scratch:
        told = by_shards.run(wanted, Shards(engine, scratch, resources))
    for name, came in told.items():
        if not isinstance(came, SidmillError):
            _report(name, targets[name], came, time.monotonic() - started)
        yield name, came


def _report(name: str, to: Path, told: by_shards.Told, seconds: float) -> None:
    number, written = told
    if written:
        reporter.get().finished(f"export {name}", f"{number} files in {to}", seconds)
    else:
        reporter.get().reused(f"export {name}", f"{number} files in {to}")
