"""Files that tasks send each other: tables as Arrow IPC, arrays as .npy, and what is only passed on.

What goes to many tasks is one file. A file that a task passes on is not copied, and was checked when it came.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.sharded.job import Task


def named(task: Task) -> dict[str, Path]:
    """Give what came in by name."""
    return {ref.name: Path(ref.path) for ref in task.refs}


def send(task: Task, to: Mapping[str, str], values: npt.NDArray[Any], *, file: str = "") -> None:
    """Send an array. to: task -> the name it has there. file: its name here, else that of the first."""
    path = task.out / f"{file or next(iter(to.values()), 'none')}.npy"
    np.save(path, values)
    for key, name in to.items():
        task.emit(key, path, name=name)


def send_table(task: Task, to: Mapping[str, str], table: pa.Table, *, file: str = "") -> None:
    """Send a table, packed with LZ4; as `send`.

    Dictionaries become one for all batches, as a file of Arrow IPC demands.
    """
    path = task.out / f"{file or next(iter(to.values()), 'none')}.arrow"
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table.unify_dictionaries())
    for key, name in to.items():
        task.emit(key, path, name=name, rows=len(table))


def read_table(path: Path, columns: tuple[int, ...] = ()) -> pa.Table:
    """Read a table, all of it or the columns with these places."""
    options = pa.ipc.IpcReadOptions(included_fields=list(columns) or None)
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file, options=options).read_all()


def pass_on(task: Task, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Send what came in to the same task of the next step, but for names that begin so; no facts."""
    for ref in task.refs:
        if not ref.name.startswith(without or ("\0",)):
            task.emit(task.key, Path(ref.path) if ref.path else None, name=ref.name, rows=ref.rows)
    return {}
