"""What a stage that runs by shards is given beside its work: an engine, a scratch folder, how many shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sid_pipelines.sharded.committed import DamagedRefError, reconciled
from sid_pipelines.sharded.job import Engine, Job, Ref, Results, Step
from sid_pipelines.stage import Resources
from sid_schemas import WarehouseError

ROWS = 1 << 20  # events of a shard, about,
MOST = 256  # until there are so many: a shuffle writes a file for each shard and bucket
ATTEMPTS = 3  # to get results that are what was written


@dataclass(frozen=True)
class Shards:
    """Runs a stage's jobs. count: shards to make of a table, 0 for one per `ROWS` rows, MOST at most.

    scratch: on storage that the workers share; a folder for these inputs, parameters and shards alone.
    """

    engine: Engine
    scratch: Path
    resources: Resources
    count: int = 0

    def run(self, name: str, refs: Sequence[Ref], *steps: Step) -> Results:
        """Run a job and give what came of it; names of a stage's jobs differ.

        Raises the SidmillError of a task, WarehouseError where the runner lost something or the storage
        does not keep what is written.
        """
        job = Job(name, tuple(refs), steps)
        for _ in range(ATTEMPTS):
            self.engine.run(job, self.scratch, self.resources)
            try:
                return reconciled(self.scratch, job)
            except DamagedRefError as error:
                damaged = error
        raise WarehouseError(f"{name}: {damaged}, {ATTEMPTS} times now. See to the storage and run again")

    def number(self, rows: int, per_shard: int = ROWS) -> int:
        """Give how many shards to make of so many rows."""
        return number_of(self.count, rows, per_shard)


def number_of(count: int, rows: int, per_shard: int = ROWS) -> int:
    """Give how many shards to make of so many rows, for a task, which has no Shards but their count."""
    return count or min(max(-(-rows // per_shard), 1), MOST)


def numbered(number: int) -> str:
    """Give a shard's key, which sorts as its number does.

    >>> numbered(7)
    '00007'
    """
    return f"{number:05d}"
