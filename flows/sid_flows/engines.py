"""Which engine runs a stage: this process, or a cluster by shards where the stage can be divided."""

import contextvars
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sid_flows.recipe import EngineSection
from sid_pipelines.sharded import SHARDED
from sid_pipelines.sharded.committed import DONE
from sid_pipelines.sharded.job import Engine
from sid_pipelines.sharded.shards import MOST, ROWS, Shards
from sid_pipelines.stage import Outcome, Stage, Work
from sid_warehouse import files, locks
from sid_warehouse.stages import SCRATCH, StageStore

COUNTED = 5.0  # seconds between two counts of the tasks that are done


def engine_of(section: EngineSection) -> Engine | None:
    """Give the cluster that a recipe names, or None; raises MissingExtraError or RecipeError."""
    if section.kind == "local":
        return None
    from sid_pipelines.beam import BeamEngine

    return BeamEngine(section.options, attempts=section.attempts)


def carry_out(
    stage: Stage, key: str, work: Work, engine: Engine | None, *, warehouse: Path, shards: int = 0
) -> tuple[Outcome, dict[str, Any] | None]:
    """Run a stage, by shards where there is a cluster and the stage can be divided.

    Gives its outcome, and what its manifest says of the engine. What tasks have done stays in the warehouse
    until the stage is, so that a run after a crash goes on there.
    """
    if engine is None or stage.name not in SHARDED:
        return stage.run(work), None
    shape = files.digest({"shards": shards, "rows": ROWS, "most": MOST})[:8]
    scratch = warehouse.absolute() / SCRATCH / work.out.store.dataset / f"{stage.name}-{key}-{shape}"
    with _counted(scratch, work.progress):
        outcome = SHARDED[stage.name](work, Shards(engine, scratch, work.resources, shards))
    return outcome, engine.about() | {"shards": shards}


@contextmanager
def _counted(scratch: Path, tell: Callable[[int, int], None]) -> Iterator[None]:
    """Tell now and then how many tasks of a stage are done; of how many is known only once they are made."""
    ended = threading.Event()

    def count() -> None:
        while not ended.wait(COUNTED):
            tell(sum(1 for _ in scratch.glob(f"*/*/*/{DONE}")), 0)

    # A thread has a context of its own: without ours neither reporter nor Prefect's run is known in it.
    context = contextvars.copy_context()
    counting = threading.Thread(target=context.run, args=(count,), daemon=True)
    counting.start()
    try:
        yield
    finally:
        ended.set()
        counting.join()


@contextmanager
def in_turn(section: EngineSection, store: StageStore, stage: str, key: str) -> Iterator[None]:
    """Keep other runs from a stage's tasks while they run; remove what they left once its output is there.

    Two runs of one recipe would else sweep and remove each other's files; locally each has its own.
    """
    if section.kind == "local":
        yield
        return
    place = store.warehouse / SCRATCH / store.dataset
    lock = place / f".{stage}-{key}.lock"
    with locks.alone(lock):
        yield
        if store.find(stage, key):
            for folder in place.glob(f"{stage}-{key}-*"):
                shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)  # whoever waits for it, or makes it anew, finds the output
