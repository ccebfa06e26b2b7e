"""Which SIDs are occupied, and how much room is left under every prefix.

A SID is one number in mixed radix, so the SIDs under a prefix are a range of numbers. What was occupied
at the start is a sorted array and is asked about by binary search, a million at a time; what is added
since lies in small dicts.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes
from sid_tokenizers.collisions.groups import LARGEST

Numbers = npt.NDArray[Any]  # int64, or Python integers where the levels multiply past 63 bits


def numbers_of(codes: Codes, levels: Sequence[int]) -> Numbers:
    """Give each prefix as one number in the radix of the levels: (n, p) -> (n,)."""
    dtype = np.int64 if math.prod(levels) <= LARGEST else object
    numbers = np.zeros(len(codes), dtype=dtype)
    for level in range(codes.shape[1]):
        numbers = numbers * levels[level] + codes[:, level].astype(dtype)
    return numbers


def codes_of(numbers: Numbers, levels: Sequence[int]) -> Codes:
    """Give back the codes of SIDs: (n,) -> (n, L) int32."""
    codes = np.empty((len(numbers), len(levels)), dtype=np.int32)
    for level in range(len(levels) - 1, -1, -1):
        codes[:, level] = numbers % levels[level]
        numbers = numbers // levels[level]
    return codes


class Leaves:
    """The occupied SIDs of a prefix tree, each good for `room` items.

    A prefix of length p is known by its number; `under[p]` SIDs lie under it.
    """

    def __init__(self, levels: Sequence[int], occupied: Numbers, *, room: int = 1) -> None:
        """Take the numbers of SIDs occupied at the start, one per item, in any order."""
        self.levels = list(levels)
        self.room = room
        self.under = [math.prod(self.levels[depth:]) for depth in range(len(self.levels) + 1)]
        self.occupied = np.sort(occupied)
        self.added: list[dict[int, int]] = [{} for _ in self.under]
        self.children: dict[tuple[int, int], list[int]] = {}

    def at_start(self, depth: int, numbers: Numbers) -> npt.NDArray[np.int64]:
        """Give how many items lay under prefixes of length `depth` at the start."""
        stride = self.under[depth]
        low = np.searchsorted(self.occupied, numbers * stride, side="left")
        return np.asarray(np.searchsorted(self.occupied, (numbers + 1) * stride, side="left") - low)

    def is_full(self, depth: int, number: int) -> bool:
        """Say whether a prefix has no room left."""
        held = int(self.at_start(depth, np.array([number], dtype=self.occupied.dtype))[0])
        return held + self.added[depth].get(number, 0) >= self.under[depth] * self.room

    def nearest_child(self, depth: int, number: int, distances: npt.NDArray[np.float32]) -> int:
        """Give the nearest code with room that may follow a prefix, as the number of the longer prefix.

        distances: (K,); of equals the lower code. The prefix must not be full.
        """
        k = self.levels[depth]
        held, added = self._children(depth, number), self.added[depth + 1]
        full = self.under[depth + 1] * self.room
        for code in np.argsort(distances, kind="stable").tolist():
            if held[code] + added.get(number * k + code, 0) < full:
                return number * k + int(code)
        raise AssertionError("a full prefix was asked for room")

    def add(self, leaf: int) -> None:
        """Occupy one SID."""
        for depth, stride in enumerate(self.under):
            prefix = leaf // stride
            self.added[depth][prefix] = self.added[depth].get(prefix, 0) + 1

    def _children(self, depth: int, number: int) -> list[int]:
        """Give how many items lay under each code that may follow a prefix, at the start."""
        if (depth, number) in self.children:
            return self.children[depth, number]
        k, stride = self.levels[depth], self.under[depth + 1]
        edges = (np.arange(k + 1).astype(self.occupied.dtype) + number * k) * stride
        held: list[int] = np.diff(np.searchsorted(self.occupied, edges)).tolist()
        if depth + 1 < len(self.levels):  # inner prefixes are few, and asked about again and again
            self.children[depth, number] = held
        return held
