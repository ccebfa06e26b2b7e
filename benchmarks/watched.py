"""An engine that tells what its tasks took: seconds, memory and bytes of every step, for scale.py.

Kernels are wrapped, so workers must be able to import this module: benchmarks/ is in their PYTHONPATH.
"""

import json
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sid_pipelines.sharded.job import Engine, Job, Kernel, Step, Task
from sid_pipelines.stage import Resources


@dataclass(frozen=True)
class Clock:
    """A kernel, its own parameters, and the folder where its seconds are noted."""

    kernel: Kernel
    params: Any
    notes: Path


def timed(task: Task) -> Mapping[str, Any]:
    """Do a task's own work and note what it took."""
    clock: Clock = task.params
    started, spent = time.perf_counter(), time.process_time()
    facts = clock.kernel(replace(task, params=clock.params))
    seconds, cpu = time.perf_counter() - started, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = {"key": task.key, "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak, "pid": os.getpid()}
    clock.notes.mkdir(parents=True, exist_ok=True)
    (clock.notes / f"{task.key}-{os.getpid()}.json").write_text(json.dumps(told))
    return facts


class Watched:
    """Runs jobs on an engine and notes, of each step, its tasks' seconds and the bytes that they left."""

    def __init__(self, engine: Engine, notes: Path) -> None:
        self.engine, self.notes = engine, notes
        self.steps: list[dict[str, Any]] = []

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        stage = scratch.name.partition("-")[0]
        notes = [self.notes / stage / job.name / step.name for step in job.steps]
        clocked = [
            Step(step.name, timed, Clock(step.kernel, step.params, note))
            for step, note in zip(job.steps, notes, strict=True)
        ]
        started = time.perf_counter()
        self.engine.run(replace(job, steps=tuple(clocked)), scratch, resources)
        took = time.perf_counter() - started
        for step, note in zip(job.steps, notes, strict=True):
            told = [json.loads(path.read_text()) for path in note.glob("*.json")]
            left = [
                path.stat().st_size for path in (scratch / job.name / step.name).rglob("*") if path.is_file()
            ]
            self.steps.append(
                {
                    "stage": stage, "job": job.name, "step": step.name, "tasks": len(told),
                    "seconds": sum(one["seconds"] for one in told),
                    "cpu_seconds": sum(one["cpu_seconds"] for one in told),
                    "longest": max((one["seconds"] for one in told), default=0.0),
                    "peak_bytes": max((one["peak_bytes"] for one in told), default=0),
                    "workers": len({one["pid"] for one in told}), "scratch_bytes": sum(left),
                    "job_seconds": took if step is job.steps[0] else 0.0,
                }
            )  # fmt: skip

    def about(self) -> dict[str, Any]:
        return self.engine.about()
