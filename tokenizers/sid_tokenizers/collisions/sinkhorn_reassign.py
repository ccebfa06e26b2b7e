"""sinkhorn: colliding groups are coded again at the last level, spread over its codes, a few times over.

As published, with the two ends it lacks: items of equal vectors are set aside first, since no plan can
tell them apart, and what still collides afterwards is settled by next-nearest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes
from sid_tokenizers.blocks import over_blocks
from sid_tokenizers.collisions import greedy
from sid_tokenizers.collisions.base import Policy, Settled, Task, check_room
from sid_tokenizers.collisions.groups import Rows, group_sizes
from sid_tokenizers.collisions.repeats import chunks
from sid_tokenizers.sinkhorn import EPS, ITERATIONS, sinkhorn_codes

CELLS = 2**16  # plan entries worked on at a time (512 KB), so that they stay in the cache


@dataclass(frozen=True)
class SinkhornReassign(Policy):
    """Up to `rounds` times every group of equal codes is coded again at the last level by Sinkhorn.

    eps: how soft the plan is; the smaller, the nearer to the nearest codes. iterations: how often rows and
    columns of the plan are scaled in turn. A plan spreads a small group over all codes, so an item may land
    far from its vector: expect a larger error than next-nearest's. Groups do not see each other within a
    round, nor a single item beside a taken SID: that is left to the end.

    Where codes have no order (pq, opq, fsq) it is the last piece that is coded again, and what is left to
    the end moves the piece before it where need be; any other piece would be as legitimate.

    rounds: how often the colliding groups are coded again, at most.
    """

    rounds: int = 20
    eps: float = EPS
    iterations: int = ITERATIONS

    name: ClassVar[str] = "sinkhorn"
    source: ClassVar[str] = "LC-Rec; LETTER"
    unique: ClassVar[bool] = True
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L"
    least: ClassVar[Mapping[str, int]] = {"rounds": 0, "iterations": 1}

    def check_params(self) -> None:
        """Raise DataError for an eps that is not above 0, or counts below 0."""
        super().check_params()
        if not self.eps > 0:
            raise DataError(f"{self.name}: eps: expected a number > 0, got {self.eps!r}")

    def settle(self, task: Task) -> Settled:
        """Code again round by round, then place what still collides."""
        check_room(task)
        taken = len(task.taken)
        sids, groups = task.codes.copy(), task.groups
        distinct = ~task.repeats
        for _ in range(self.rounds):
            group, size = groups[0][taken:], groups[1][taken:]
            rows = np.flatnonzero((size > 1) & distinct)
            members = np.bincount(group[rows], minlength=int(groups[0].max(initial=-1)) + 1)
            rows = rows[members[group[rows]] > 1]
            if not len(rows):
                break
            self._code_again(task, sids, rows, group, members)
            groups = group_sizes(np.concatenate([task.taken, sids]))

        def key(rows: Rows) -> npt.NDArray[np.float32]:
            return greedy.own_distances(sids, rows, task.vectors, task.tokenizer)

        moving = greedy.losers(groups, taken, key)
        return Settled(greedy.settle(sids, task.taken, moving, task.vectors, task.tokenizer), task.levels)

    def _code_again(self, task: Task, sids: Codes, rows: Rows, group: Rows, members: Rows) -> None:
        """Change the last code of rows in place; group, members: of all rows, and rows per group."""
        rows = rows[np.argsort(group[rows], kind="stable")]
        k = task.levels[-1]
        # Groups of one size make one array, so that thousands of them cost one step.
        for size in np.unique(members[group[rows]]).tolist():
            alike = rows[members[group[rows]] == size]
            for chunk in chunks(alike, max(1, greedy.rows_at_once(k) // size) * size):
                far = task.tokenizer.distances(task.vectors(chunk), sids[chunk, :-1]).reshape(-1, size, k)
                sids[chunk, -1] = self._plans(far).reshape(-1)

    def _plans(self, far: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        codes = np.empty(far.shape[:2], dtype=np.int32)

        def work(batch: slice) -> None:
            codes[batch] = sinkhorn_codes(far[batch], eps=self.eps, iterations=self.iterations)

        over_blocks(len(far), work, size=max(1, CELLS // (far.shape[1] * far.shape[2])))
        return codes
