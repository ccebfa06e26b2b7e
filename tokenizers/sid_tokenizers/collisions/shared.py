"""none and capacity: items may share a SID, and slots tell them apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_tokenizers.collisions import greedy
from sid_tokenizers.collisions.base import Apart, Policy, Settled, Sight, Task, check_room
from sid_tokenizers.collisions.groups import Rows


@dataclass(frozen=True)
class Keep(Policy):
    """Leave collisions as they are; whoever decodes a shared SID picks one of its items."""

    name: ClassVar[str] = "none"
    source: ClassVar[str] = "OpenOneRec; RecGPT; GRID's random pick on decoding"
    unique: ClassVar[bool] = False
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L"
    apart: ClassVar[Apart] = "codes"
    looks_at: ClassVar[Sight] = "colliding"

    def settle(self, task: Task) -> Settled:
        """Give the codes as they are."""
        return Settled(task.codes, task.levels)


@dataclass(frozen=True)
class Capacity(Policy):
    """Let up to `capacity` items share a SID; the nearest keep it, the others move as in next-nearest.

    With capacity 1 it is next-nearest. An item that moves takes the nearest SID that has room, be it
    empty or shared already.

    Where codes have no order (pq, opq, fsq) the last piece of an SID moves first, then the one before;
    any other piece would be as legitimate.

    capacity: items that may share one SID.
    """

    capacity: int = 4

    name: ClassVar[str] = "capacity"
    source: ClassVar[str] = "our own design, after the capped codes of MiniOneRec's uniform mapping"
    unique: ClassVar[bool] = False
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L"
    apart: ClassVar[Apart] = "prefix"
    looks_at: ClassVar[Sight] = "colliding"
    least: ClassVar[Mapping[str, int]] = {"capacity": 1}

    @property
    def room(self) -> int:
        """Give `capacity`."""
        return self.capacity

    def settle(self, task: Task) -> Settled:
        """Place what does not fit, in turn."""
        check_room(task, room=self.capacity)

        def key(rows: Rows) -> npt.NDArray[np.float32]:
            return greedy.own_distances(task.codes, rows, task.vectors, task.tokenizer)

        moving = greedy.losers(task.groups, len(task.taken), key, room=self.capacity)
        sids = greedy.settle(task.codes, task.taken, moving, task.vectors, task.tokenizer, room=self.capacity)
        return Settled(sids, task.levels)
