"""Exports of a published release, a task for each trainer's format.

No stage: nothing depends on these files. Each format streams its own and renames its folder into place once,
as trainers/export.py does anywhere, so a task that runs twice finds its folder there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sid_pipelines.sharded.committed import told_error
from sid_pipelines.sharded.job import Ref, Step, Task
from sid_pipelines.sharded.shards import Shards
from sid_schemas import SidmillError, WarehouseError
from sid_warehouse.reader import Warehouse

Told = tuple[int, bool]  # files there are now, whether any was written


@dataclass(frozen=True)
class Wanted:
    """What is to be written of a release. to, settings: by format."""

    warehouse: Path
    ref: str
    to: Mapping[str, Path]
    settings: Mapping[str, Mapping[str, Any]]


def run(wanted: Wanted, shards: Shards) -> dict[str, Told | SidmillError]:
    """Write all formats, and give what came of each; one that cannot hold the release keeps no other away."""
    made = shards.run("export", [Ref(name, name) for name in wanted.to], Step("export", export, wanted))
    return {name: _told(made.facts["export"][name]) for name in wanted.to}


def export(task: Task) -> Mapping[str, Any]:
    """Write one format, or tell why not."""
    from sid_pipelines.trainers import TRAINERS
    from sid_pipelines.trainers.export import export

    wanted: Wanted = task.params
    settings = wanted.settings.get(task.key, {})
    try:
        with Warehouse(wanted.warehouse).release(wanted.ref) as release:
            give = partial(export, release, TRAINERS[task.key], wanted.to[task.key], settings)
            try:
                made = give()
            except WarehouseError:
                made = give()  # a twin of this task may have written it meanwhile: then it is found now
    except SidmillError as error:
        return {"refused": type(error).__name__, "says": str(error)}
    return {"files": len(made), "written": any(one.written for one in made)}


def _told(facts: Mapping[str, Any]) -> Told | SidmillError:
    if "refused" not in facts:
        return facts["files"], facts["written"]
    return told_error(facts["refused"], facts["says"])
