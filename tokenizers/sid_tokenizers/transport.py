"""The cheapest assignment of rows to codes in which all codes are used equally often, exactly.

This is a transportation problem with n rows and k codes. General solvers walk a graph of n * k edges;
this one walks a graph of the k codes, whose edge a -> b costs what moving the cheapest row from a to b
costs, and moves many rows per walk. It is fast where the prices it is given are nearly right (those of
`balanced.tune_prices` are) and right whatever they are.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors

STEPS = 2**22  # costs become whole numbers up to this, so that float32 adds a cost and a price exactly

Counts = npt.NDArray[np.int64]


def cheapest_balanced(costs: Vectors, prices: Vectors) -> npt.NDArray[np.int32]:
    """Give each row a code so that the sum of costs is least and counts are n // k or one more.

    costs: (n, k) float32 with n >= k, overwritten; prices: (k,) float32, a guess of what a place in each
    code is worth. Returns (n,) int32. Exact for costs rounded to 1 / STEPS of the largest difference
    within a row, which is about as fine as float32 distances are. Ties go to the lower row.
    """
    return _Transport(costs, prices).solve()


class _Transport:
    """An assignment that is always the cheapest for the sizes it has; `solve` mends the sizes.

    grid: (n, k) costs as whole numbers, each row's least being 0. members: the rows of each code.
    edges: (k, k) float64, the cost of the cheapest move of one row from a to b, infinite from an empty
    code. Whole numbers make equal costs equal, so that no cycle of moves looks better than it is.
    """

    def __init__(self, costs: Vectors, prices: Vectors) -> None:
        n, k = costs.shape
        costs -= costs.min(axis=1, keepdims=True)
        largest = float(costs.max())
        scale = np.float32(STEPS / largest) if largest > STEPS * np.finfo(np.float32).tiny else np.float32(0)
        costs *= scale
        self.grid = np.rint(costs, out=costs)
        # Any whole prices give a start that is the cheapest for its sizes; clipped ones add exactly.
        whole = np.clip(np.rint((prices - prices.mean()) * scale), -STEPS, STEPS).astype(np.float32)
        self.codes = cheapest_codes(self.grid, whole)
        self.sizes: Counts = np.bincount(self.codes, minlength=k)
        groups = np.split(np.argsort(self.codes, kind="stable"), np.cumsum(self.sizes)[:-1])
        self.members: list[list[int]] = [group.tolist() for group in groups]
        self.floor, extra = divmod(n, k)
        self.goal: Counts = np.full(k, self.floor)
        self.goal[np.argsort(-whole, kind="stable")[:extra]] += 1  # a guess, which `solve` corrects
        self.edges = np.empty((k, k))
        for code in range(k):
            self._price_edges(code)

    def solve(self) -> npt.NDArray[np.int32]:
        """Reach the goal sizes, then hand the extra places on for as long as that lowers the cost.

        Cost as a function of sizes is M-convex, so sizes that no single exchange improves are the best.
        """
        while (self.sizes > self.goal).any():
            self._send(self.sizes - self.goal, self.goal - self.sizes)
        while self._send(self.sizes - self.floor, self.floor + 1 - self.sizes, only_gains=True):
            pass
        return self.codes

    def _send(self, excess: Counts, room: Counts, *, only_gains: bool = False) -> int:
        """Move rows along cheapest paths from codes with excess to codes with room; give how many paths.

        All paths come from one search. Its distances are prices under which every edge of the tree is
        free and none is negative; so each path can be taken unless an earlier one took its rows.
        """
        distance, before = self._search(excess > 0)
        touched: set[int] = set()
        sent = 0
        ends = np.flatnonzero(room > 0)
        for end in ends[np.argsort(distance[ends], kind="stable")].tolist():
            if only_gains and distance[end] >= 0:
                break
            path = [end]
            while (previous := int(before[path[-1]])) >= 0:
                path.append(previous)
            path.reverse()
            if excess[path[0]] <= 0 or not self._move_along(path):
                continue
            excess[path[0]] -= 1
            room[end] -= 1
            touched.update(path)
            sent += 1
        for code in sorted(touched):
            self._price_edges(code)
        return sent

    def _move_along(self, path: list[int]) -> bool:
        """Move one row along each edge of a path; give False, moving none, where one is gone."""
        rows: list[int] = []
        for a, b in pairwise(path):
            members = np.array(self.members[a], dtype=np.int64)
            costs = self.grid[members, b] - self.grid[members, a]
            tied = members[costs == self.edges[a, b]]
            if not len(tied):
                return False
            rows.append(int(tied.min()))
        for row, (a, b) in zip(rows, pairwise(path), strict=True):
            self.members[a].remove(row)
            self.members[b].append(row)
            self.codes[row] = b
        self.sizes[path[0]] -= 1
        self.sizes[path[-1]] += 1
        return True

    def _search(self, starts: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Give each code's distance from the nearest start and the code before it, -1 at a start."""
        distance = np.where(starts, 0.0, np.inf)
        before = np.full(len(starts), -1)
        active = np.flatnonzero(starts)
        while len(active):  # Bellman and Ford: edges may be negative, cycles are not
            through = distance[active, None] + self.edges[active]
            reached = through.min(axis=0)
            nearer = np.flatnonzero(reached < distance)
            before[nearer] = active[through[:, nearer].argmin(axis=0)]
            distance[nearer] = reached[nearer]
            active = nearer
        return distance, before

    def _price_edges(self, code: int) -> None:
        block = self.grid[self.members[code]]
        self.edges[code] = (block - block[:, code, None]).min(axis=0, initial=np.inf)


def cheapest_codes(costs: Vectors, prices: Vectors) -> npt.NDArray[np.int32]:
    """Give the code with the least cost plus price: (n, k), (k,) -> (n,) int32; ties go to the lower."""
    codes = np.empty(len(costs), dtype=np.int32)
    for start in range(0, len(costs), 2048):
        codes[start : start + 2048] = (costs[start : start + 2048] + prices).argmin(axis=1)
    return codes
