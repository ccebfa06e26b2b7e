"""Protocols that hold out users or items whole, drawn by a seeded hash of their id, or the newest items."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from sid_pipelines.chunks import CONTEXT, TEST, TRAIN, VALID, Chunk, Labels
from sid_pipelines.order import Events
from sid_pipelines.protocols.base import OWN, Labelling, Protocol, cut_places, share_of
from sid_schemas import DataError


@dataclass(frozen=True)
class UserHoldout(Protocol):
    """Users are held out whole: the first share of their events is context, the rest are targets.

    This is strong generalization. fold_in: that share, at least one event and never all. A held-out user
    with a single event could be no target with a history, and trains. Leaks: train users' events may be
    later than a held-out user's targets.

    ratios: shares of users that train, validate and test.
    """

    name = "user-holdout"
    leaks = "train users' events may be later than the targets of held-out users"
    advice = "no user with 2 events is held out: use a larger dump, or other [split] ratios"

    ratios: Sequence[float] = (0.8, 0.1, 0.1)
    fold_in: float = 0.8

    @property
    def forbids(self) -> tuple[str, ...]:
        """Give the rules that a release must keep."""
        return ("train_of_held_out_users",)

    def check_params(self) -> None:
        """Raise DataError for shares that divide nothing."""
        super().check_params()
        if not 0 < self.fold_in < 1:
            raise DataError(f"fold_in = {self.fold_in}: expected a share between 0 and 1")

    def prepare(self, events: Events) -> Labelling:
        """Draw the users by a seeded hash of their id."""
        drawn = f"select user_index from users order by {events.md5('user_id')}, user_id"
        roles = _roles(events, drawn, self.ratios, len(events.user_ids))
        return Labelling({"users": _sizes(roles)}, arrays={"roles": roles})

    def label(self, chunk: Chunk, labelling: Labelling, events: Events) -> Labels:
        """Give a held-out user's first events as context, the others as targets."""
        kept = np.maximum(share_of(Fraction(str(self.fold_in)), chunk.sizes), 1)
        role = labelling.arrays["roles"][chunk.users[chunk.edges[:-1]]]
        role[chunk.sizes < 2] = TRAIN
        folded = chunk.place < chunk.spread(np.minimum(kept, chunk.sizes - 1))
        labels = chunk.spread(role)
        labels[folded & (labels != TRAIN)] = CONTEXT
        return labels


@dataclass(frozen=True)
class ColdItems(Protocol):
    """Items are held out whole: all events on them are validation or test, all others train.

    draw: "random", by a seeded hash of the item's id, or "time", the newest items by their first event.
    Only items with events are drawn. Leaks: the user's own later events on other items train.

    ratios: shares of items that train, validate and test.
    """

    name = "cold-items"
    leaks = "train events on other items may be later than a test target, the same user's too"
    advice = "too few items: use a larger dump, or other [split] ratios"

    ratios: Sequence[float] = (0.8, 0.1, 0.1)
    draw: Literal["random", "time"] = "random"

    @property
    def forbids(self) -> tuple[str, ...]:
        """Give the rules that a release must keep."""
        return ("train_of_held_out_items",)

    @property
    def allows(self) -> tuple[str, ...]:
        """Give the rules that this protocol breaks by design."""
        return (*OWN, "test_before_last_train")

    def prepare(self, events: Events) -> Labelling:
        """Draw the items, oldest or smallest hash first into train."""
        first = "first, " if self.draw == "time" else ""
        drawn = f"""
            select item_index from items_clean
            join (select item_index, min(ts) as first from events group by item_index) using (item_index)
            order by {first}{events.md5("item_id")}, item_id"""
        roles = _roles(events, drawn, self.ratios, len(events.item_ids))
        return Labelling({"items": _sizes(roles)}, arrays={"roles": roles})

    def label(self, chunk: Chunk, labelling: Labelling, events: Events) -> Labels:
        """Give each event the label of its item."""
        labels: Labels = labelling.arrays["roles"][chunk.items]
        return labels


def _roles(events: Events, drawn: str, ratios: Sequence[float], n: int) -> Labels:
    """Give each of n users or items its label; drawn: SQL that gives them in the order of the draw."""
    [order] = events.connection.sql(drawn).fetchnumpy().values()
    roles: Labels = np.full(n, TRAIN, dtype=np.int8)
    train, valid = cut_places(ratios, len(order))
    roles[order[train:valid]] = VALID
    roles[order[valid:]] = TEST
    return roles


def _sizes(roles: Labels) -> dict[str, int]:
    return {name: int((roles == label).sum()) for name, label in (("valid", VALID), ("test", TEST))}
