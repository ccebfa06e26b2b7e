"""What every collision policy is: parameters, a promise, and `settle`.

It sees all codes that may matter to each other: those of all items, or of some first codes (apart.py).
Policies never see the caller's row order: `resolve` hands them a task whose rows stand in item order, so
"the earlier row" always means the item that comes first.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors, Weights
from sid_tokenizers.collisions.groups import Rows, group_sizes
from sid_tokenizers.collisions.repeats import repeated

State = Mapping[str, npt.NDArray[Any]]
Apart = Literal["codes", "prefix", ""]
Sight = Literal["colliding", "all"]


class Ranker(Protocol):
    """What a policy needs of a tokenizer."""

    levels: Sequence[int]

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give how far each vector is from every code that may follow its prefix."""

    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the vectors that codes stand for."""


@dataclass(frozen=True)
class Task:
    """What a policy is to settle, in item order.

    codes: (n, L), as the tokenizer gave them; taken: (m, W), SIDs that are published and never move.
    vectors: gives the vectors of the rows asked for.
    """

    codes: Codes
    taken: Codes
    tokenizer: Ranker
    vectors: Callable[[Rows], Vectors]
    popularity: Weights | None
    state: State

    @property
    def levels(self) -> tuple[int, ...]:
        """Give the tokenizer's sizes."""
        return tuple(self.tokenizer.levels)

    @cached_property
    def groups(self) -> tuple[Rows, Rows]:
        """Give group number and size of all rows by their L codes: first the m taken, then the n new."""
        return group_sizes(np.concatenate([self.taken[:, : len(self.levels)], self.codes]))

    @cached_property
    def repeats(self) -> npt.NDArray[np.bool_]:
        """Say which rows have exactly the vector of an earlier row."""
        return repeated(self.codes, self.vectors)


@dataclass(frozen=True)
class Settled:
    """What a policy decided, in item order: sids (n, W) int32, the sizes of their levels, what it fitted."""

    sids: Codes
    levels: tuple[int, ...]
    state: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy(ABC):
    """A rule for items that share their codes; its parameters are the fields of the dataclass.

    source: paper or repository it is taken from. unique: promises that every item has an SID of its own,
    or fails loudly. length: of the SIDs it gives, L being the tokenizer's. inputs: what it needs beyond
    codes and vectors. needs_reconstruction: `X - decode(codes)` must mean something. apart: what decides
    alone over an item's SID, so that the rest may be settled elsewhere: "codes", the items of its codes;
    "prefix", those of its first code, as long as they have room under it; "", all items. looks_at: whose
    vectors it may ask for. least: the parameters that are whole numbers, and their least values.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    unique: ClassVar[bool]
    length: ClassVar[Literal["L", "L+1", "L or L+1"]]
    inputs: ClassVar[tuple[str, ...]] = ()
    needs_reconstruction: ClassVar[bool] = False
    apart: ClassVar[Apart] = ""
    looks_at: ClassVar[Sight] = "all"
    least: ClassVar[Mapping[str, int]] = {}

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range. `resolve` calls it; recipes do too."""
        for name, bound in self.least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise DataError(f"{self.name}: {name}: expected a whole number >= {bound}, got {value!r}")

    @property
    def needs(self) -> tuple[str, ...]:
        """Give `inputs` and what the parameters ask for besides."""
        return self.inputs

    @property
    def adds(self) -> int:
        """Give the number of levels added: 0 or 1."""
        return 0 if self.length == "L" else 1

    @property
    def room(self) -> int:
        """Give how many items a SID is good for."""
        return 1

    @property
    def digits(self) -> int:
        """Give the size of the level added where the parameters fix it, else 0."""
        return 0

    @abstractmethod
    def settle(self, task: Task) -> Settled:
        """Give every row of the task its SID, or raise DataError."""


@dataclass(frozen=True)
class Resolution:
    """The outcome, in the caller's row order.

    sids: (n, W) int32, W being L or L + 1; -1 in the last column where an item has no suffix. slots: (n,)
    int32, from 0 among the items that share a SID. moved: (n,) bool, whose codes are no longer the
    tokenizer's. suffix: (n,) int32, the digit added (-1 where none), or None where no level was added.
    levels: sizes of all levels, the added one included. state: what the policy fitted, to be passed to
    the next `resolve`. duplicates: rows whose vector repeats an earlier row's exactly.
    """

    sids: Codes
    slots: npt.NDArray[np.int32]
    moved: npt.NDArray[np.bool_]
    suffix: npt.NDArray[np.int32] | None
    levels: tuple[int, ...]
    state: dict[str, npt.NDArray[Any]]
    duplicates: int


def check_room(task: Task, *, room: int = 1) -> None:
    """Raise DataError where new and taken items outnumber the SIDs, each good for `room` items."""
    items, sids = len(task.codes) + len(task.taken), math.prod(task.levels)
    if items > sids * room:
        each = f", {room} items each" if room > 1 else ""
        raise DataError(
            f"{items} items do not fit into {sids} SIDs of levels {list(task.levels)}{each}: "
            "add a level or enlarge one"
        )
