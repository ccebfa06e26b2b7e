"""The ledger of clean: what each step left and took, counted on all rows or added up over buckets of users.

Events and users of buckets add up; an item is in many. But steps only take, so the last step that left an
event of an item says for every step whether it was there, and the latest of all buckets is that of the whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_pipelines.kcore import degrees
from sid_pipelines.rows import Rows
from sid_schemas import DataError


class Tally:
    """What each step left of some rows, in a form that adds up over buckets of users.

    steps: step, reason, interactions, users. last: (items,) int8, the last step that left an event of the
    item: steps only take, so it says which of them did.
    """

    def __init__(self, rows: Rows) -> None:
        """Enter what there is."""
        self.rows = rows
        self.steps: list[dict[str, Any]] = []
        self.last = np.full(len(degrees(rows.items, rows.alive)), -1, dtype=np.int8)
        self.enter("raw", "what ingest could read")

    def enter(self, step: str, reason: str) -> None:
        """Enter what is left after a step."""
        rows, number = self.rows, len(self.steps)
        left = int(np.count_nonzero(rows.alive))
        if number and left == self.steps[-1]["interactions"]:  # a step that took nothing
            users = self.steps[-1]["users"]
            self.last[self.last == number - 1] = number
        else:
            users = int(np.count_nonzero(degrees(rows.users, rows.alive)))
            self.last[degrees(rows.items, rows.alive) > 0] = number
        self.steps.append({"step": step, "reason": reason, "interactions": left, "users": users})

    def items(self) -> list[int]:
        """Give how many items each step left."""
        return items_left(self.last, len(self.steps))


def items_left(last: npt.NDArray[np.int8], steps: int) -> list[int]:
    """Give how many items each of so many steps left; last: (items,), see Tally."""
    found = np.bincount(last[last >= 0], minlength=steps)
    return [int(left) for left in np.cumsum(found[::-1])[::-1]]


def ledger(tallies: Sequence[Sequence[Mapping[str, Any]]], items: Sequence[int]) -> list[dict[str, Any]]:
    """Give the steps in order, each with what it left and what it took.

    tallies: the steps of each bucket of users. items: that each step left over all buckets. Raises
    DataError where a step leaves nothing.
    """
    entries: list[dict[str, Any]] = []
    for number, steps in enumerate(zip(*tallies, strict=True)):
        step, reason = steps[0]["step"], steps[0]["reason"]
        left, users = (sum(one[name] for one in steps) for name in ("interactions", "users"))
        before = entries[-1]["interactions"] if entries else left
        if not left:
            raise DataError(f"clean: step '{step}' ({reason}) leaves nothing of {before:,} interactions")
        found = {"interactions": left, "users": users, "items": items[number]}
        entries.append(entry(step, reason, found, before))
    return entries


def entry(step: str, reason: str, left: Mapping[str, int], before: int) -> dict[str, Any]:
    """Give a step's entry. left: its interactions, users and items; before: interactions there were."""
    told = {name: left[name] for name in ("interactions", "users", "items")}
    return {"step": step, "reason": reason} | told | {"removed": before - left["interactions"]}
