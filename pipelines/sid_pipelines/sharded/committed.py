"""Tasks that are whole or absent: run in a folder of its own, renamed into place once, checked when read.

    <scratch>/<job>/<step>/<key>/<files>, done.json

Whoever runs a task finds it done, or does it and renames; of two that run at once the first wins, and both
write the same. So a retried bundle, a straggler's twin and a second run after a crash change nothing. A file
that is not what its ref says, though, makes its maker run again with the next attempt.
"""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb

import sid_schemas
from sid_pipelines.sharded.job import Job, Ref, Results, Step, Task
from sid_pipelines.stage import Resources, too_little_memory
from sid_schemas import SidmillError, WarehouseError
from sid_warehouse import files

DONE, ERRORS = "done.json", "errors"
PAUSES = (0.1, 0.4, 1.5)  # seconds


class DamagedRefError(RuntimeError):
    """A file between two tasks is not what was written; its maker's folder is gone, so that it runs again."""


def run_task(
    scratch: Path, job: str, step: Step, key: str, refs: Sequence[Ref], resources: Resources
) -> list[Ref]:
    """Run one task unless it is done, and give what it emitted.

    Raises what the kernel raises, after noting a SidmillError below `scratch` for the driver to find, among
    them DataError where DuckDB needs more memory; and DamagedRefError.
    """
    refs = sorted(refs, key=lambda ref: (ref.name, ref.path))
    place = scratch / job / step.name / key
    if (done := _done(place, refs)) is not None:
        return done
    if place.exists():  # what was left of it when somebody was killed
        _remove(place)
    for ref in refs:
        _check(ref, scratch)
    with files.writing(place.parent) as folder:
        spill = folder / ".spill"
        task = Task(key, refs, step.params, folder, spill, resources)
        spill.mkdir()
        try:
            facts = step.kernel(task)
        except SidmillError as error:
            _note(scratch, job, step.name, key, error)
            raise
        except duckdb.OutOfMemoryException as error:
            told = too_little_memory(f"{job}, {step.name}", resources.memory, error)
            _note(scratch, job, step.name, key, told)
            raise told from error
        shutil.rmtree(spill)
        emitted = [_sealed(ref, refs, folder, place) for ref in task.emitted]
        known = {"inputs": _contents(refs), "refs": [asdict(ref) for ref in emitted]}
        files.write_json(folder / DONE, {**known, "facts": files.as_json(facts)})
        if files.rename_folder(folder, place):
            return emitted
    if (done := _done(place, refs)) is None:
        raise DamagedRefError(f"{place}: what a twin of this task wrote was removed; it is made again")
    return done


def _done(place: Path, refs: Sequence[Ref]) -> list[Ref] | None:
    """Give what a task emitted, or None where it did not run; one that ran with other files goes."""
    try:
        told = json.loads((place / DONE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if told["inputs"] != _contents(refs):
        _remove(place)
        return None
    return [Ref(**ref) for ref in told["refs"]]


def _remove(place: Path) -> None:
    """Take a task's folder away at once, so that nobody finds half of it."""
    with files.writing(place.parent) as aside, suppress(FileNotFoundError):
        place.rename(aside / place.name)


def _contents(refs: Iterable[Ref]) -> list[list[str]]:
    """Give what tells apart the files that a task reads, in their order."""
    return [[ref.name, ref.crc] for ref in sorted(refs, key=lambda ref: (ref.name, ref.path))]


def _sealed(ref: Ref, given: Sequence[Ref], folder: Path, place: Path) -> Ref:
    """Give a ref as it is from outside: where its file will be, and what it is.

    A file that came in and is handed on stays what it was.
    """
    path = Path(ref.path)
    if not ref.path or not path.is_relative_to(folder):
        known = next((one for one in given if ref.path and one.path == ref.path), ref)
        return replace(ref, bytes=known.bytes, crc=known.crc)
    seen = str(place / path.relative_to(folder))
    return replace(ref, path=seen, bytes=path.stat().st_size, crc=_crc32(path))


def _check(ref: Ref, scratch: Path) -> None:
    """Raise DamagedRefError where a task's file is not what was committed."""
    path = Path(ref.path)
    if ref.bytes < 0:
        return
    _await(path)
    there = path.is_file() and path.stat().st_size == ref.bytes and _crc32(path) == ref.crc
    if there:
        return
    job, step, key, *_ = path.relative_to(scratch).parts
    _remove(scratch / job / step / key)
    raise DamagedRefError(f"{path}: is not the {ref.bytes} bytes that were written; it is made again")


def _await(path: Path) -> None:
    """Wait a little for a file: a network file system may show what another machine renamed after a while."""
    for pause in PAUSES:
        if path.is_file():
            return
        time.sleep(pause)
        if path.parent.exists():
            list(path.parent.iterdir())  # asks the server anew


def _crc32(path: Path) -> str:
    """Give a file's CRC-32, read once per process: some files go to many tasks, some through many steps."""
    status = path.stat()
    return _crc32_of(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1 << 16)
def _crc32_of(path: Path, size: int, modified: int, inode: int) -> str:
    return files.crc32(path)


def _note(scratch: Path, job: str, step: str, key: str, error: SidmillError) -> None:
    """Write an error down for the driver, who may just be reading others; the error itself goes on anyhow."""
    folder = scratch / job / ERRORS
    with suppress(OSError, WarehouseError), files.writing(scratch / job) as draft:
        files.write_json(draft / "error.json", {"type": type(error).__name__, "message": str(error)})
        folder.mkdir(exist_ok=True)
        (draft / "error.json").replace(folder / f"{step}-{key}.json")


def noted_error(scratch: Path, job: str) -> SidmillError | None:
    """Give the error of ours that a task of a job raised, the first by step and key, and forget it."""
    found = sorted((scratch / job / ERRORS).glob("*.json"))
    if not found:
        return None
    told = json.loads(found[0].read_text(encoding="utf-8"))
    shutil.rmtree(scratch / job / ERRORS, ignore_errors=True)  # another worker may just be adding one
    return told_error(told["type"], told["message"])


def told_error(kind: str, message: str) -> SidmillError:
    """Give an error of ours that came as text; its message is whole already."""
    made = getattr(sid_schemas, kind, WarehouseError)
    error: SidmillError = made.__new__(made, message)
    return error


def reconciled(scratch: Path, job: Job) -> Results:
    """Give a job's results; raises WarehouseError unless every task ran, with every ref that was its own.

    What a runner lost or doubled shows here: each step must have exactly the tasks, and each task exactly the
    refs, that the step before emitted. What the last step emitted is checked as tasks check what they read:
    raises DamagedRefError.
    """
    waiting: Iterable[Ref] = job.refs
    facts: dict[str, dict[str, Any]] = {}
    for step in job.steps:
        expected: dict[str, list[Ref]] = defaultdict(list)
        for ref in waiting:
            expected[ref.key].append(ref)
        emitted, facts[step.name] = [], {}
        for key, refs in sorted(expected.items()):
            path = scratch / job.name / step.name / key / DONE
            if not path.exists():
                raise _lost(job, step, f"task {key!r} of {len(expected)} did not run")
            told = files.read_json(path)
            if told["inputs"] != _contents(refs):
                got = f"{len(told['inputs'])} files, expected {len(refs)}"
                raise _lost(job, step, f"task {key!r} got {got} that were sent to it")
            facts[step.name][key] = told["facts"]
            emitted += [Ref(**ref) for ref in told["refs"]]
        waiting = emitted
    for ref in waiting:
        _check(ref, scratch)
    return Results(tuple(sorted(waiting, key=lambda ref: (ref.key, ref.name, ref.path))), facts)


def _lost(job: Job, step: Step, what: str) -> WarehouseError:
    return WarehouseError(
        f"{job.name}, step {step.name}: {what}, although the runner said it was done; expected every task to "
        "run with all its files. Nothing was published. Run again: what is done is kept; or choose another "
        "--runner in [engine] options"
    )
