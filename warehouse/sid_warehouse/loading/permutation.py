"""A shuffle that is computed, not stored: where sample p of an epoch stands, for any p, in no memory.

n numbers are laid out in a grid of about sqrt(n) x sqrt(n); each round of a Feistel network shifts the row
by a keyed hash of the column, or the column by one of the row, which can be undone and so loses no number.
The grid has a few cells more than n; whoever lands there walks on until it is back inside (cycle walking:
Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). It is a shuffle, not a cipher.
"""

from math import isqrt

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
ROUNDS = 8


class Permutation:
    """A permutation of 0 to n - 1, another one for each seed and epoch."""

    def __init__(self, n: int, *, seed: int, epoch: int = 0) -> None:
        """Draw the keys. seed, epoch: 0 or more; raises ValueError for less."""
        self.n = n
        self._rows = np.uint64(isqrt(max(n - 1, 0)) + 1)
        self._columns = np.uint64(-(-n // int(self._rows)))
        self._keys = np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)

    def __call__(self, places: npt.ArrayLike) -> Numbers:
        """Give the numbers at some places, each from 0 to n - 1: (k,) -> (k,) int64.

        >>> sorted(Permutation(5, seed=0)(range(5)).tolist())
        [0, 1, 2, 3, 4]
        """
        cells = self._step(np.asarray(places, dtype=np.uint64))
        while len(outside := np.flatnonzero(cells >= self.n)):
            cells[outside] = self._step(cells[outside])
        return cells.astype(np.int64)

    def _step(self, cells: Words) -> Words:
        row, column = np.divmod(cells, self._columns)
        for number, key in enumerate(self._keys):
            if number % 2:
                column = (column + _hash(row, key) % self._columns) % self._columns
            else:
                row = (row + _hash(column, key) % self._rows) % self._rows
        return row * self._columns + column


def _hash(words: Words, key: np.uint64) -> Words:
    """Mix 64 bits: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = words ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
