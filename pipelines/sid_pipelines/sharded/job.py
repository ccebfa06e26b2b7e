"""What runs on a cluster: a job is steps, a step is one kernel over tasks, a task reads files by reference.

    refs -> by key -> kernel(task) -> refs -> by key -> kernel(task) -> ...

A task gets every ref that was emitted to its key by the step before, in the order of their names. Refs are a
few hundred bytes; what they point to lies on storage that all workers share. Rows never travel through an
engine: one call of a kernel reads and writes whole files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import duckdb

from sid_pipelines.stage import Resources
from sid_warehouse.db import connect

ALL = "all"  # the key where one task sees everything


@dataclass(frozen=True)
class Ref:
    """One file on its way to a task.

    key: of the task that reads it. name: its place among the refs of that task. path: absolute; "" where the
    ref only says that the task is to run. rows: in it. bytes, crc: size and CRC-32 (hex) of the file when it
    was committed; -1 and "" for a file that is no task's output, such as a raw one.
    """

    key: str
    name: str
    path: str = ""
    rows: int = 0
    bytes: int = -1
    crc: str = ""


@dataclass
class Task:
    """One call of a kernel. params: its step's. out: an empty folder, which becomes the task's own.

    spill: a folder for what must wait on disk; it is gone afterwards. facts are what a kernel returns: JSON.
    """

    key: str
    refs: Sequence[Ref]
    params: Any
    out: Path
    spill: Path
    resources: Resources
    emitted: list[Ref] = field(default_factory=list)

    def emit(self, key: str, path: Path | None = None, *, name: str = "", rows: int = 0) -> None:
        """Send a file below `out`, one that came in, or none to a task of the next step.

        name: its place among the refs of that task; without one it is this task's key.
        """
        self.emitted.append(Ref(key, name or self.key, "" if path is None else str(path), rows))

    @property
    def paths(self) -> list[Path]:
        """Give the files that came in, in order."""
        return [Path(ref.path) for ref in self.refs if ref.path]

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open DuckDB on one thread: a worker has one core."""
        with connect(spill=self.spill, memory=self.resources.duckdb) as connection:
            connection.execute("set threads = 1")
            yield connection


# Writes below `task.out`, emits refs, gives facts as JSON. A function of a module: workers find it by name.
# The same refs and params must give the same bytes, as a task may run more than once.
Kernel = Callable[[Task], Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """One kernel over the tasks that the step before, or the job's own refs, make."""

    name: str
    kernel: Kernel
    params: Any = None


@dataclass(frozen=True)
class Job:
    """Steps in order. refs: what the first step's tasks read."""

    name: str
    refs: tuple[Ref, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Results:
    """What a job gave. refs: what its last step emitted, by (key, name). facts: by step and task key."""

    refs: tuple[Ref, ...]
    facts: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def of(self, step: str) -> list[Mapping[str, Any]]:
        """Give the facts of a step's tasks in the order of their keys."""
        return [facts for _, facts in sorted(self.facts[step].items())]

    def paths(self, key: str) -> list[Path]:
        """Give the files emitted under a key, in the order of their names."""
        return [Path(ref.path) for ref in self.refs if ref.key == key and ref.path]


class Engine(Protocol):
    """Runs jobs: on a cluster (sid_pipelines.beam), or for tests in this process (inline.py)."""

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        """Run all tasks of a job, committing each below `scratch`; see committed.py."""

    def about(self) -> dict[str, Any]:
        """Give what a manifest says of the engine, as JSON."""
