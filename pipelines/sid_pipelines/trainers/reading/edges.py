"""Users and items as the edges of a graph, numbered without a gap: what recommenders of graphs read.

ngcf.py and alpharec.py write them as lines `user item item ...`. Such trainers size their tables by the
highest number in their files, or by how many numbers there are, and know no user without a train event: so
only users who train have a number, and only items that stand in a file. Where a release has no others,
numbers stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sid_pipelines.chunks import TEST, TRAIN, VALID
from sid_pipelines.trainers.feed import Feed, User, one_line
from sid_pipelines.trainers.writing.folder import Folder

LABELS = {"train": TRAIN, "valid": VALID, "test": TEST}
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Edges:
    """The numbers of users and items, and their edges by split.

    user_numbers, item_numbers: (n_users,), (n_items,) int32, -1 for those without one. counts: edges of each
    split. lost: held-out events of users who do not train, or of an item that the user has in train too.
    """

    feed: Feed
    user_numbers: I32
    item_numbers: I32
    counts: dict[str, int]
    lost: int

    @classmethod
    def of(cls, feed: Feed, splits: tuple[str, ...] = ("train", "valid", "test")) -> "Edges":
        """Look through all events once."""
        users, items = np.zeros(feed.n_users, dtype=bool), np.zeros(feed.n_items, dtype=bool)
        counts, lost = dict.fromkeys(splits, 0), 0
        for user in feed.users():
            users[user.index] = (user.split == TRAIN).any()
            for split in splits:
                own = _items(user, split)
                counts[split] += len(own)
                items[own] = True
                if split != "train":
                    lost += len(np.unique(user.items[user.split == LABELS[split]])) - len(own)
        return cls(feed, _numbered(users), _numbered(items), counts, lost)

    def require(self, reader: str) -> None:
        """Refuse where a split has no edge at all."""
        for split, count in self.counts.items():
            if not count:
                raise self.feed.refuse(
                    reader,
                    f"{split} events of users who train",
                    f"none ({self.feed.protocol})",
                    "Choose a split protocol within users, such as per-user-ratio or leave-one-out",
                )

    def write(self, out: Folder, name: str, split: str) -> None:
        """Write a split as lines `user item item ...`, users ascending, their items oldest first."""
        with out.text(name, f"the {split} items of every user who has any: `user item item ...`") as file:
            file.writelines(f"{user} {' '.join(map(str, items))}\n" for user, items in self.lists(split))

    def lists(self, split: str) -> Iterator[tuple[int, list[int]]]:
        """Yield (user, items) in the edges' own numbers, for users who have any."""
        for user in self.feed.users():
            items = _items(user, split)
            if len(items):
                yield int(self.user_numbers[user.index]), self.item_numbers[items].tolist()

    def write_names(self, out: Folder, users: str, items: str) -> None:
        """Write what the numbers stand for: the source's ids, one line each, header `org_id remap_id`."""
        for name, numbers, ids in (
            (users, self.user_numbers, self.feed.user_ids),
            (items, self.item_numbers, self.feed.item_ids),
        ):
            rows = ((one_line(ids[one]), numbers[one]) for one in np.flatnonzero(numbers >= 0).tolist())
            header = ("org_id", "remap_id")
            out.csv(name, "the source's ids of the numbers; no program reads it", header, rows, delimiter=" ")

    def kept(self, numbers: I32) -> int:
        """Give how many have a number."""
        return int((numbers >= 0).sum())

    def says(self) -> str:
        """Give what a README owes about numbers and about what is not there."""
        users, items = self.kept(self.user_numbers), self.kept(self.item_numbers)
        return f"""
- {users:,} of {self.feed.n_users:,} users train and {items:,} of {self.feed.n_items:,} items stand in a
  file; they are numbered from 0 in the release's order. `user_list.txt` and `item_list.txt` have the
  source's ids.
- An item counts once for a user. {self.lost:,} held-out entries are left out: their user does not train, or
  has the item in train already.
"""


def _items(user: User, split: str) -> I32:
    """Give the distinct items that a user has in a split, oldest first; in no other than train if there
    too."""
    mine: I32 = user.items[user.split == LABELS[split]]
    _, first = np.unique(mine, return_index=True)
    mine = mine[np.sort(first)]
    if split == "train":
        return mine
    train = user.items[user.split == TRAIN]
    kept: I32 = mine[~np.isin(mine, train)] if len(train) else mine[:0]
    return kept


def _numbered(kept: npt.NDArray[np.bool_]) -> I32:
    return np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
