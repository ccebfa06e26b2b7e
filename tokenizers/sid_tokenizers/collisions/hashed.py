"""hash-digit: items that share their codes get digits in an order drawn from the codes themselves.

Unlike a counted suffix the digits are used evenly, so none of them means "the first of its group".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes
from sid_tokenizers.collisions.base import Apart, Policy, Settled, Sight, Task
from sid_tokenizers.collisions.groups import Rows, places
from sid_tokenizers.collisions.suffixes import with_digits

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class HashDigit(Policy):
    """Every item gets a digit: the next of a permutation of `size` buckets that its codes decide.

    The i-th item of a group gets (a + i * b) mod size, where a seeded 64-bit mix of the codes gives a, and b
    among the numbers without a common factor with size. seed: of that mix; new items must come with the
    seed and size of those taken. ActionPiece shuffles the buckets; this spreads the digits as evenly.

    size: buckets, which is how many items may share their codes.
    """

    size: int = 128
    seed: int = 0

    name: ClassVar[str] = "hash-digit"
    source: ClassVar[str] = "ActionPiece"
    unique: ClassVar[bool] = True
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L+1"
    apart: ClassVar[Apart] = "codes"
    looks_at: ClassVar[Sight] = "colliding"
    least: ClassVar[Mapping[str, int]] = {"size": 1, "seed": 0}

    @property
    def digits(self) -> int:
        """Give the number of buckets."""
        return self.size

    def settle(self, task: Task) -> Settled:
        """Go on in the permutation of every group after the digits taken."""
        taken = len(task.taken)
        group, _ = task.groups
        following = np.zeros(int(group.max(initial=-1)) + 1, dtype=np.int64)
        start, step, back = self._permutations(task.taken[:, :-1])
        used = (task.taken[:, -1] - start) * back % self.size
        np.maximum.at(following, group[:taken], used + 1)
        turn = following[group[taken:]] + places(group[taken:])
        if turn.max(initial=0) >= self.size:
            worst = int(turn.argmax())
            codes = "-".join(map(str, task.codes[worst].tolist()))
            raise DataError(
                f"hash-digit: the codes {codes} are shared by {int(turn[worst]) + 1} items or more, but "
                f"there are {self.size} digits. Raise size, or choose next-nearest"
            )
        start, step, _ = self._permutations(task.codes)
        return with_digits(task, (start + turn * step) % self.size, self.size)

    def _permutations(self, codes: Codes) -> tuple[Rows, Rows, Rows]:
        """Give where the permutation of each row's codes starts, its step, and the step's inverse."""
        units = [step for step in range(self.size) if math.gcd(step, self.size) == 1]
        inverses = np.array([pow(step, -1, self.size) for step in units])
        mixed = mix_rows(codes, self.seed)
        chosen = ((mixed >> np.uint64(32)) % np.uint64(len(units))).astype(np.int64)
        start = (mixed % np.uint64(self.size)).astype(np.int64)
        return start, np.array(units)[chosen], inverses[chosen]


def mix_rows(codes: Codes, seed: int) -> U64:
    """Give a 64-bit mix of each row: (n, L) -> (n,) uint64, the same on every machine."""
    mixed = _splitmix(np.full(len(codes), seed % 2**64, dtype=np.uint64))
    for column in codes.T:
        mixed = _splitmix(mixed ^ column.astype(np.uint64))
    return mixed


def _splitmix(x: U64) -> U64:
    """Scramble 64 bits one to one (Steele, Lea and Flood's SplitMix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
