"""Jobs in this process, one task after the other: the plain twin of a cluster, for tests."""

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from sid_pipelines.sharded.committed import run_task
from sid_pipelines.sharded.job import Job, Ref
from sid_pipelines.stage import Resources


class Inline:
    """Runs tasks in an order drawn by a seed, which must not matter."""

    def __init__(self, seed: int = 0) -> None:
        """Take the seed of the order."""
        self.seed = seed

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        """Run all tasks of all steps."""
        draw, refs = random.Random(self.seed), list(job.refs)
        for step in job.steps:
            tasks: dict[str, list[Ref]] = defaultdict(list)
            draw.shuffle(refs)
            for ref in refs:
                tasks[ref.key].append(ref)
            keys = list(tasks)
            draw.shuffle(keys)
            refs = [
                ref for key in keys for ref in run_task(scratch, job.name, step, key, tasks[key], resources)
            ]

    def about(self) -> dict[str, Any]:
        """Say that there is no cluster."""
        return {"kind": "inline"}
