"""next-nearest: colliding items move one by one to the nearest free SID; the length stays L."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.collisions import greedy
from sid_tokenizers.collisions.base import Apart, Policy, Settled, Sight, Task, check_room
from sid_tokenizers.collisions.groups import Rows


@dataclass(frozen=True)
class NextNearest(Policy):
    """In every group of equal codes one item keeps them; the others take the nearest free SID.

    order: who keeps them, and who then chooses first: the item closest to its codes ("distance") or the
    most popular ("popularity"); ties go to the earlier item. Groups come largest first. A free last code
    under the own prefix is preferred, then one level up, and so on. Who does not collide never moves.

    A greedy rule: the outcome is near the best (see min-cost), not the best.

    Where codes have no order (pq, opq, fsq) the last piece of an SID moves first, then the one before;
    any other piece would be as legitimate.
    """

    order: Literal["distance", "popularity"] = "distance"

    name: ClassVar[str] = "next-nearest"
    source: ClassVar[str] = "our own design; MSCGRec's empty-leaf rule is its nearest relative"
    unique: ClassVar[bool] = True
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L"
    apart: ClassVar[Apart] = "prefix"
    looks_at: ClassVar[Sight] = "colliding"

    @property
    def needs(self) -> tuple[str, ...]:
        """Give `popularity` where the order asks for it."""
        return ("popularity",) if self.order == "popularity" else ()

    def check_params(self) -> None:
        """Raise DataError for an unknown order."""
        if self.order not in ("distance", "popularity"):
            raise DataError(f"{self.name}: order: expected 'distance' or 'popularity', got {self.order!r}")

    def settle(self, task: Task) -> Settled:
        """Place the losers of every group in turn."""
        check_room(task)

        def key(rows: Rows) -> npt.NDArray[np.floating]:
            if self.order == "popularity":
                assert task.popularity is not None  # `resolve` checked it
                return -task.popularity[rows]
            return greedy.own_distances(task.codes, rows, task.vectors, task.tokenizer)

        moving = greedy.losers(task.groups, len(task.taken), key)
        sids = greedy.settle(task.codes, task.taken, moving, task.vectors, task.tokenizer)
        return Settled(sids, task.levels)
