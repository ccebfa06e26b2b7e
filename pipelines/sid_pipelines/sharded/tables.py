"""Tables that tasks write in parts: how parts are sent on, put together, and counted."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from sid_pipelines.sharded.job import Ref, Results, Task
from sid_schemas import Table, WarehouseError
from sid_warehouse import parquet


def send_parts(task: Task, table: Table, key: str = "") -> None:
    """Send the parts of a table that a task wrote; without a key, under the table's name."""
    for number, part in enumerate(parquet.parts(task.out, table.name)):
        rows = pq.read_metadata(part).num_rows
        task.emit(key or table.name, part, name=f"{table.name} {task.key} {number:05d}", rows=rows)


def pass_parts(task: Task, *tables: Table) -> None:
    """Send the parts of tables that came in on, under the tables' names."""
    for table in tables:
        for ref in named_refs(task, table.name):
            task.emit(table.name, Path(ref.path), name=ref.name, rows=ref.rows)


def named_refs(task: Task, what: str) -> list[Ref]:
    """Give what came in of one kind: the first word of a name says what the file holds."""
    return [ref for ref in task.refs if ref.name.startswith(f"{what} ")]


def named_files(task: Task, what: str) -> list[Path]:
    """Give the files that came in of one kind; as `named_refs`."""
    return [Path(ref.path) for ref in named_refs(task, what)]


def filled(refs: Iterable[Ref]) -> list[Path]:
    """Give the paths of parts in order, without empty ones unless there are no others."""
    refs = list(refs)
    return [Path(ref.path) for ref in [ref for ref in refs if ref.rows] or refs[:1]]


def parts_of(made: Results, table: Table) -> list[Path]:
    """Give a table's parts, in order, of what a job gave."""
    return filled(ref for ref in made.refs if ref.key == table.name)


def check_count(stage: str, what: str, expected: int, got: int) -> None:
    """Raise WarehouseError where rows were lost or doubled on their way."""
    if got != expected:
        raise WarehouseError(
            f"{stage}: the engine lost or doubled rows: {what} {got:,}, expected {expected:,}. Nothing was "
            "published. Run again, or choose another --runner in [engine] options"
        )
