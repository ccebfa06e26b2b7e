"""Sequential IDs: numbers in the order in which train events bring items up; neighbours were met together.

Unlike numbered.py's others the number says something: items of one user's history stand close to each other,
and a language model that reads digits sees that.
"""

from typing import ClassVar, Literal, get_args

import numpy as np

from sid_schemas import DataError
from sid_tokenizers.base import Codes
from sid_tokenizers.catalogue import Catalogue, Events
from sid_tokenizers.indexers.numbered import Numbered, Numbers, counted_on, decimals
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

Users = Literal["original", "short2long", "long2short", "random"]


class Sequential(Numbered):
    """Items are counted when they first appear in a train sequence, user after user, each in time order.

    Items that no train event has come after all others, in order of their ids: what was held out never pulls
    a number forward, or the IDs would leak it. (OpenP5 counts them as they stand in the held-out events.)
    users: the order of users: "original", that of their numbers; "short2long" or "long2short", by the length
    of their sequences, equal ones by their numbers; "random", by the seed. first: the number of the first
    item, 1001 in OpenP5, 1 in LLM-RecSys-ID. seed: of the random order. Docids are the decimal digits.
    """

    name: ClassVar[str] = "sequential"
    paper: ClassVar[str] = "Hua et al. 2023, How to Index Item IDs; OpenP5 [C]; order of unseen items [D]"
    traits: ClassVar[Traits] = Traits(ordered=False, unique=True, inputs=("events",))

    def __init__(self, *, users: Users = "original", first: int = 1001, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.users = users
        self.first = first
        self.seed = seed

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, first=0, seed=0)
        if self.users not in get_args(Users):
            raise DataError(f"users: expected one of {', '.join(get_args(Users))}, got {self.users!r}")

    def _numbers(self, about: Catalogue, taken: Numbers) -> Numbers:
        assert about.events is not None
        seen = appearance(about.events, self.users, self.seed)
        order = np.concatenate([seen, np.setdiff1d(np.arange(len(about)), seen)])
        numbers = np.empty(len(about), dtype=np.int64)
        numbers[order] = counted_on(len(about), self.first, taken)
        return numbers

    def docids(self, ids: Codes, about: Catalogue) -> list[str]:
        """Give the numbers as text."""
        return decimals(ids)


def appearance(events: Events, users: Users = "original", seed: int = 0) -> Numbers:
    """Give the items that have events in the order in which they first appear, user after user.

    >>> events = Events(users=np.array([0, 0, 0, 1, 1]), items=np.array([4, 2, 4, 3, 2]))
    >>> appearance(events)
    array([4, 2, 3])
    >>> appearance(events, "short2long")
    array([3, 2, 4])
    """
    known, starts, lengths = np.unique(events.users, return_index=True, return_counts=True)
    if users == "random":
        turn = np.random.default_rng(seed).permutation(len(known))
    elif users == "original":
        turn = np.arange(len(known))
    else:
        turn = np.argsort(lengths if users == "short2long" else -lengths, kind="stable")
    rows = [np.arange(starts[user], starts[user] + lengths[user]) for user in turn]
    items = events.items[np.concatenate([np.empty(0, dtype=np.int64), *rows])]
    found, first = np.unique(items, return_index=True)
    return np.asarray(found[np.argsort(first)], dtype=np.int64)
