"""A toy job for engines: numbers are dealt to buckets, summed, and each bucket's share of all is told.

Every step takes another way: many tasks to many, many to one, one to many (a broadcast), many to none. A task
leaves a mark for each time that it runs, and one that is named dies, kills its driver, or fails.
"""

import json
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sid_pipelines.sharded.committed import reconciled
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import ALL, Engine, Job, Ref, Results, Step, Task
from sid_pipelines.sharded.shards import numbered
from sid_pipelines.stage import Resources
from sid_schemas import DataError


@dataclass(frozen=True)
class Toy:
    """Parameters of every step. die, die_driver, fail, crash: "STEP-KEY" of a task; all but fail once."""

    marks: Path
    buckets: int = 5
    die: str = ""
    die_driver: str = ""
    fail: str = ""
    crash: str = ""
    slow: float = 0.0


def deal(task: Task) -> dict[str, int]:
    """Deal the numbers of a file to buckets."""
    _begin(task, "deal")
    numbers = [int(line) for path in task.paths for line in path.read_text().split()]
    for bucket in range(task.params.buckets):
        path = task.out / f"{bucket}.txt"
        mine = [n for n in numbers if n % task.params.buckets == bucket]
        path.write_text("".join(f"{n}\n" for n in mine))
        task.emit(numbered(bucket), path, rows=len(mine))
    return {"numbers": len(numbers)}


def add(task: Task) -> dict[str, int]:
    """Add up a bucket."""
    _begin(task, "add")
    total = sum(int(line) for path in task.paths for line in path.read_text().split())
    (task.out / "sum.txt").write_text(str(total))
    task.emit(ALL, task.out / "sum.txt")
    return {"sum": total}


def tell(task: Task) -> dict[str, int]:
    """Add up all, and send it to every bucket with the bucket's own."""
    _begin(task, "tell")
    (task.out / "all.txt").write_text(str(sum(int(path.read_text()) for path in task.paths)))
    for ref in task.refs:
        task.emit(ref.name, task.out / "all.txt", name="0 all")
        task.emit(ref.name, Path(ref.path), name="1 own")
    return {"buckets": len(task.refs)}


def share(task: Task) -> dict[str, float]:
    """Write the share of a bucket."""
    _begin(task, "share")
    total, own = (int(path.read_text()) for path in task.paths)
    (task.out / "share.json").write_text(json.dumps(own / max(total, 1)))
    task.emit("shares", task.out / "share.json")
    return {"share": own / max(total, 1)}


def _begin(task: Task, step: str) -> None:
    """Leave a mark, and do what befalls this task."""
    toy, name = task.params, f"{step}-{task.key}"
    toy.marks.mkdir(parents=True, exist_ok=True)
    (toy.marks / f"{name}.{uuid.uuid4().hex}").write_text(str(os.getpid()))
    (task.out / "half.txt").write_text("half written")
    time.sleep(toy.slow)
    if name == toy.fail:
        raise DataError(f"toys, {name}: is not as it should be; expected better")
    for told, pid in ((toy.die, os.getpid()), (toy.die_driver, os.getppid())):
        if name == told and _first(toy.marks, name):
            os.kill(pid, signal.SIGKILL)
            time.sleep(60)
    if name == toy.crash and _first(toy.marks, name):
        raise RuntimeError("a defect that comes once")
    (task.out / "half.txt").unlink()


def _first(marks: Path, name: str) -> bool:
    try:
        (marks / f"{name} was here").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def toy_job(folder: Path, toy: Toy, *, files: int = 4, numbers: int = 100) -> Job:
    """Give a job over new files of numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    refs = []
    for place in range(files):
        path = folder / f"{place}.txt"
        path.write_text("".join(f"{n}\n" for n in range(place, numbers, files)))
        refs.append(Ref(numbered(place), path.name, str(path)))
    steps = (
        Step("deal", deal, toy),
        Step("add", add, toy),
        Step("tell", tell, toy),
        Step("share", share, toy),
    )
    return Job("toys", tuple(refs), steps)


def run_toys(engine: Engine, job: Job, scratch: Path) -> Results:
    """Run a job and reconcile it."""
    engine.run(job, scratch, Resources(memory="1GiB"))
    return reconciled(scratch, job)


def expected(folder: Path, **options: int) -> Results:
    """Give what the job gives without a cluster."""
    job = toy_job(folder / "numbers", Toy(folder / "plain marks"), **options)
    return run_toys(Inline(), job, folder / "plain")


def assert_same_results(ours: Results, plain: Results) -> None:
    """Compare facts, and the files that came out by name and content; where they lie differs."""
    assert ours.facts == plain.facts
    assert [_told(ref) for ref in ours.refs] == [_told(ref) for ref in plain.refs]


def _told(ref: Ref) -> tuple[str, str, int, int, str, str]:
    return (ref.key, ref.name, ref.rows, ref.bytes, ref.crc, Path(ref.path).read_text())


def runs(marks: Path) -> Counter[str]:
    """Give how often each task began."""
    return Counter(path.name.partition(".")[0] for path in marks.glob("*.*"))


def processes(marks: Path, step: str) -> Sequence[int]:
    """Give the process of every task of a step."""
    return [int(path.read_text()) for path in marks.glob(f"{step}-*.*")]


def leftovers(scratch: Path) -> list[Path]:
    """Give what killed tasks left behind."""
    return [path for path in scratch.rglob("*") if ".tmp-" in path.name]
