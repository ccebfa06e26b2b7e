"""Engines whose workers come to harm: killed in the middle of a task, slow, or writing onto a bad disk.

`Sabotaged` stands before any engine and gives it kernels that do the stage's own work and, in the first task
of a step that comes to it, the harm. What was done is noted in a folder, so that it happens once and can be
counted. Workers must be able to import this module: tests/ is in their PYTHONPATH.
"""

import errno
import json
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sid_pipelines.sharded.committed import DONE, DamagedRefError, run_task
from sid_pipelines.sharded.job import Engine, Job, Kernel, Ref, Step, Task
from sid_pipelines.stage import Resources

KILLS = (
    "begun",
    "written",
    "committed",
)  # moments: a file was begun; all are written; the folder was renamed


@dataclass(frozen=True)
class Harm:
    """A kernel and its parameters, and what befalls the first task that runs it. marks: where it is noted."""

    kernel: Kernel
    params: Any
    marks: Path
    kinds: tuple[str, ...]


class Sabotaged:
    """An engine with harmed kernels. kinds: of HARMS, each once a step. sparing: one, once a stage."""

    def __init__(
        self, engine: Engine, marks: Path, kinds: Sequence[str] = KILLS, *, sparing: bool = False
    ) -> None:
        self.engine, self.marks, self.kinds, self.sparing = engine, marks, tuple(kinds), sparing
        self.spared: dict[str, int] = {}
        marks.mkdir(parents=True, exist_ok=True)

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        steps = [self._harmed(step, scratch.name) for step in job.steps]
        self.engine.run(replace(job, steps=tuple(steps)), scratch, resources)

    def _harmed(self, step: Step, stage: str) -> Step:
        kinds = self.kinds
        if self.sparing:  # the first step of the stage that has a task, each stage in another way
            number = self.spared.setdefault(stage, len(self.spared))
            kinds = (kinds[number % len(kinds)],)
        marks = self.marks / stage if self.sparing else self.marks / f"{stage} {step.name}"
        return Step(step.name, harmed, Harm(step.kernel, step.params, marks, kinds))

    def about(self) -> dict[str, Any]:
        return self.engine.about()

    def done(self) -> Counter[tuple[str, ...]]:
        """Give how often what was done, by (stage, job, step, kind)."""
        return Counter(tuple(json.loads(mark.read_text())) for mark in self.marks.glob("*/*"))


def harmed(task: Task) -> Mapping[str, Any]:
    """Do a task's own work, and come to harm unless that happened already."""
    harm: Harm = task.params
    work = replace(task, params=harm.params)  # the list of what it emits is the task's
    for kind in harm.kinds:
        if _claimed(harm.marks / kind, task):
            return HARMS[kind](work, harm.kernel)
    return harm.kernel(work)


def _claimed(mark: Path, task: Task) -> bool:
    """Say whether nobody has done this yet, and note that it is done now."""
    *_, stage, job, step, _ = task.out.parts
    mark.parent.mkdir(parents=True, exist_ok=True)
    try:
        with mark.open("x") as file:
            json.dump([stage.partition("-")[0], job, step, mark.name], file)
    except FileExistsError:
        return False
    return True


def _killed_as_soon_as(happened: Callable[[], bool]) -> None:
    """Kill this process when something has happened, whatever it is doing then."""

    def watch() -> None:
        while not happened():
            time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _begun(task: Task, kernel: Kernel) -> Mapping[str, Any]:
    _killed_as_soon_as(lambda: any(path.is_file() for path in task.out.rglob("*")))
    return _written(task, kernel)  # where it writes nothing


def _written(task: Task, kernel: Kernel) -> Mapping[str, Any]:
    kernel(task)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _committed(task: Task, kernel: Kernel) -> Mapping[str, Any]:
    place = task.out.parent / task.key
    _killed_as_soon_as((place / DONE).exists)
    return kernel(task)


def _slow(task: Task, kernel: Kernel) -> Mapping[str, Any]:
    time.sleep(1)
    return kernel(task)


def _refused(task: Task, kernel: Kernel) -> Mapping[str, Any]:
    kernel(task)
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(task.out))


class _Spoiling(dict[str, Any]):
    """Facts that spoil a file as they are written down: its checksum was taken, nobody has read it yet.

    Where there are none, nothing is spoilt: JSON does not ask for items.
    """

    def __init__(self, facts: Mapping[str, Any], path: Path) -> None:
        super().__init__(facts)
        self.path = path

    def items(self) -> Any:
        content = bytearray(self.path.read_bytes())
        content[len(content) // 2] ^= 1
        self.path.write_bytes(content)
        return super().items()


def _spoilt(task: Task, kernel: Kernel) -> Mapping[str, Any]:
    facts = kernel(task)
    sent = {ref.path for ref in task.emitted}
    own = [path for path in task.out.rglob("*") if str(path) in sent and path.stat().st_size]
    return _Spoiling(facts, own[0]) if own else facts


HARMS: dict[str, Callable[[Task, Kernel], Mapping[str, Any]]] = {
    "begun": _begun,
    "written": _written,
    "committed": _committed,
    "slow": _slow,
    "refused": _refused,
    "spoilt": _spoilt,
}


class Doubled:
    """Jobs in this process, every task in two threads at once and again after: a straggler and its twin."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        for _ in range(100):
            try:
                self._run(job, scratch, resources)
            except (DamagedRefError, OSError):
                continue
            return
        raise AssertionError(f"{job.name} did not come to an end")

    def _run(self, job: Job, scratch: Path, resources: Resources) -> None:
        draw, refs = random.Random(self.seed), list(job.refs)
        with ThreadPoolExecutor(2) as pool:
            for step in job.steps:
                tasks: dict[str, list[Ref]] = defaultdict(list)
                for ref in refs:
                    tasks[ref.key].append(ref)
                refs = []
                for key, own in tasks.items():
                    draw.shuffle(own)
                    twins = [
                        pool.submit(run_task, scratch, job.name, step, key, own, resources) for _ in range(2)
                    ]
                    first, second = (twin.result() for twin in twins)
                    assert first == second == run_task(scratch, job.name, step, key, own, resources)
                    refs += first

    def about(self) -> dict[str, Any]:
        return {"kind": "doubled"}
