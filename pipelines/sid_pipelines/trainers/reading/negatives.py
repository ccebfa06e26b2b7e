"""Items that a user has no event with, drawn evenly; the same draw for the same seed, user and row."""

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


class Negatives:
    """Draws of items that users have not met, each by a generator of its own: no draw hangs on another."""

    def __init__(self, n_items: int, seed: int) -> None:
        """Draw from items 0..n_items-1."""
        self.n_items, self.seed = n_items, seed

    def __call__(self, user: int, row: int, seen: npt.NDArray[np.integer], count: int) -> I64:
        """Draw `count` different items out of those that are not in `seen`, fewer where there are fewer."""
        draw = np.random.default_rng((self.seed, user, row))
        met = np.unique(seen)
        left = self.n_items - len(met)
        if left <= 0:
            return np.empty(0, np.int64)
        # The k-th item that was not met: k, and one more for each met item at or below it.
        drawn = draw.choice(left, size=min(count, left), replace=False).astype(np.int64)
        return drawn + np.searchsorted(met - np.arange(len(met)), drawn, side="right")
