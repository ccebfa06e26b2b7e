"""Suffixes: items that share their codes are told apart by one more digit, counted in item order.

The digit says nothing about an item, but no item leaves the codes its content gave it. A new item goes
on counting after the digits that are taken, so published SIDs stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from sid_schemas import DataError
from sid_tokenizers.collisions.base import Apart, Policy, Settled, Sight, Task
from sid_tokenizers.collisions.groups import Rows, places


@dataclass(frozen=True)
class Suffix(Policy):
    """Every item gets a digit: 0 where it has its codes to itself, else 1 to n in item order.

    size: of the level added, 0 for as many digits as needed; a fixed one fails where it does not suffice.
    """

    size: int = 0

    name: ClassVar[str] = "suffix"
    source: ClassVar[str] = "GRID"
    unique: ClassVar[bool] = True
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L+1"
    apart: ClassVar[Apart] = "codes"
    looks_at: ClassVar[Sight] = "colliding"
    least: ClassVar[Mapping[str, int]] = {"size": 0}
    first: ClassVar[int] = 1  # digit of the first of several items
    alone: ClassVar[int | None] = 0  # digit of an item that shares its codes with none, if not the first

    @property
    def digits(self) -> int:
        """Give the size of the level added, or 0 for as many as needed."""
        return self.size

    def settle(self, task: Task) -> Settled:
        """Count on from the digits taken, group by group."""
        digits = self._digits(task)
        top = max(int(digits.max(initial=0)), int(task.taken[:, -1].max(initial=0)))
        if self.size and top >= self.size:
            raise DataError(
                f"{self.name}: digits up to {top} are needed, but size={self.size} allows 0 to "
                f"{self.size - 1}. Raise size, or set it to 0 for as many as needed"
            )
        return with_digits(task, digits, self.size or top + 1)

    def _digits(self, task: Task) -> Rows:
        taken = len(task.taken)
        group, size = task.groups
        following = np.full(int(group.max(initial=-1)) + 1, self.first)
        np.maximum.at(following, group[:taken], task.taken[:, -1].astype(np.int64) + 1)
        digits = following[group[taken:]] + self._places(task, group[taken:])
        if self.alone is not None:
            digits[size[taken:] == 1] = self.alone
        return digits

    def _places(self, task: Task, group: Rows) -> Rows:
        return places(group)


@dataclass(frozen=True)
class SuffixOnCollision(Suffix):
    """Only items that share their codes get a digit, 1 to n in item order; the others keep L codes.

    SIDs then differ in length. Those of one `resolve` without `taken` are free of prefixes: none begins
    another, as the release gate demands of fresh builds. An append may break that: an item published
    alone keeps its L codes when others join it later, and its SID then begins theirs. Decoding must know
    where such an SID ends; choose suffix where every SID is to have the same length.
    """

    name: ClassVar[str] = "suffix-on-collision"
    source: ClassVar[str] = "MiniOneRec (constrained RQ-KMeans); GREAM"
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L or L+1"
    alone: ClassVar[int | None] = -1


@dataclass(frozen=True)
class SuffixFromZero(Suffix):
    """Every item gets a digit, 0 to n - 1 in item order."""

    name: ClassVar[str] = "suffix-from-zero"
    source: ClassVar[str] = "TIGER; UniGRec; RQ-VAE-Recommender"
    first: ClassVar[int] = 0
    alone: ClassVar[int | None] = None


@dataclass(frozen=True)
class SuffixPopularity(Suffix):
    """Every item gets a digit, 1 to n from the most to the least popular; ties go to the earlier item.

    Popularity must come from training events alone, or the SIDs leak.
    """

    name: ClassVar[str] = "suffix-popularity"
    source: ClassVar[str] = "MMGRec"
    inputs: ClassVar[tuple[str, ...]] = ("popularity",)
    alone: ClassVar[int | None] = None

    def _places(self, task: Task, group: Rows) -> Rows:
        assert task.popularity is not None  # `resolve` checked it
        order = np.argsort(-task.popularity, kind="stable")
        out = np.empty(len(group), dtype=np.int64)
        out[order] = places(group[order])
        return out


@dataclass(frozen=True)
class UniqueToken(Suffix):
    """Every item gets a last digit of its own: its number in item order, after those taken.

    The digit alone names the item, so the vocabulary grows with the catalogue.
    """

    name: ClassVar[str] = "unique-token"
    source: ClassVar[str] = "How to Index Item IDs (CID+IID)"
    apart: ClassVar[Apart] = ""
    alone: ClassVar[int | None] = None

    def _digits(self, task: Task) -> Rows:
        return int(task.taken[:, -1].max(initial=-1)) + 1 + np.arange(len(task.codes))


def with_digits(task: Task, digits: Rows, size: int) -> Settled:
    """Give the codes with one more level."""
    sids = np.concatenate([task.codes, digits[:, None].astype(np.int32)], axis=1)
    return Settled(sids, (*task.levels, size))
