"""The k-core by rounds: buckets of users peel, one task adds up what items lost, until nothing falls.

    peel (by bucket) -> add_up (ALL) -> peel -> add_up -> ...

In a round a bucket runs the local `k_core` on its own events to their own fixed point, with the events that
items have in other buckets held: more than there will be, so nothing goes that the whole core has. Where a
round takes nothing, every bucket is at its fixed point with the true counts: the core, which is unique,
whatever the buckets. A round costs four bytes per item and bucket; what no longer falls is only passed on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sid_pipelines.clean import CleanParams, method
from sid_pipelines.kcore import degrees, largest_k
from sid_pipelines.rows import Indexes, Mask
from sid_pipelines.sharded.job import ALL, Step, Task
from sid_pipelines.sharded.passing import named, pass_on, read_table, send

DEGREES, FALLEN, ROWS, ALIVE, LEFT, SETTLED = "degrees", "fallen", "rows", "alive", "left", "settled"
NONE = np.empty(0, dtype=np.int32)


def rounds(params: CleanParams, count: int) -> tuple[Step, ...]:
    """Give the steps of so many rounds; a single pass is one."""
    steps = []
    for number in range(1 if params.k_core == "single-pass" else count):
        steps += [Step(f"peel-{number:02d}", peel, params), Step(f"add-{number:02d}", add_up, params)]
    return tuple(steps)


def peel(task: Task) -> Mapping[str, Any]:
    """Take from a bucket's events what cannot be in the core; say how often each item fell, and what is left.

    Reads `rows`; `alive`, not in the first round; `degrees`, (items,) int32 over all buckets, absent once the
    core is found. Sends `fallen`, (2, m) int32, items and how many of their events went; and `left`, (2,)
    int64, events and users.
    """
    files = named(task)
    if task.key == ALL or DEGREES not in files:
        return pass_on(task)
    params: CleanParams = task.params
    users, items, alive = pairs(files)
    own, held = degrees(items, alive), np.load(files[DEGREES])
    held[: len(own)] -= own
    method(params)(users, items, params.k_core_user, params.k_core_item, alive, held=(NONE, held))
    own -= degrees(items, alive)
    fallen = np.flatnonzero(own).astype(np.int32)
    left = np.array([np.count_nonzero(alive), np.count_nonzero(degrees(users, alive))])
    send(task, {ALL: f"{FALLEN}-{task.key}"}, np.stack([fallen, own[fallen]]))
    send(task, {ALL: f"{LEFT}-{task.key}"}, left)
    send(task, {task.key: ALIVE}, alive)
    return pass_on(task, without=(ALIVE, DEGREES))


def add_up(task: Task) -> Mapping[str, Any]:
    """Take from items what fell in any bucket, and tell all buckets; if nothing fell, the core is found."""
    files = named(task)
    if task.key != ALL or SETTLED in files:
        return pass_on(task)
    params: CleanParams = task.params
    counts, fell = np.load(files[DEGREES]), 0
    buckets = [name.removeprefix(f"{FALLEN}-") for name in files if name.startswith(FALLEN)]
    for bucket in buckets:
        items, by = np.load(files[f"{FALLEN}-{bucket}"])
        counts[items] -= by
        fell += int(by.sum())
    if settled := not fell or params.k_core == "single-pass":
        task.emit(ALL, name=SETTLED)
    told = [] if settled else buckets
    send(task, dict.fromkeys((ALL, *told), DEGREES), counts)
    gone = (DEGREES, FALLEN) if settled else (DEGREES, FALLEN, LEFT)
    return pass_on(task, without=gone) | {"fell": fell}


def largest(task: Task) -> Mapping[str, Any]:
    """Give the largest k of which the k-core holds any of all buckets' rows: nine bytes each in one task."""
    users, items, first = [], [], 0
    for path in task.paths:
        of_users, of_items, _ = pairs({ROWS: path})
        users.append(of_users + first)
        items.append(of_items)
        first += int(of_users.max(initial=-1)) + 1
    return {"k": largest_k(np.concatenate(users), np.concatenate(items))}


def pairs(files: Mapping[str, Path]) -> tuple[Indexes, Indexes, Mask]:
    """Give users and items of a bucket's rows, (n,) int32 each, and which are alive, (n,) bool."""
    users, items = (column.to_numpy() for column in read_table(files[ROWS], (0, 1)).columns)
    return users, items, np.load(files[ALIVE]) if ALIVE in files else np.ones(len(users), dtype=bool)
