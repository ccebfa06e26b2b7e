"""Train events as two arrays: who did something with what, each user's in the declared total order."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_pipelines.chunks import TRAIN, chunks
from sid_pipelines.probes import Lists

Indexes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class TrainEvents:
    """Train events, user after user. users, items: (e,) int32; n_users, n_items: how many there are."""

    users: Indexes
    items: Indexes
    n_users: int
    n_items: int

    def __len__(self) -> int:
        """Give the number of events."""
        return len(self.items)

    @classmethod
    def of(cls, parts: Sequence[Path], n_users: int, n_items: int) -> "TrainEvents":
        """Read the events of split "train" from `interactions`; no other row is looked at."""
        users, items = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        for chunk in chunks(parts, ["user_index", "item_index", "split"]):
            train = chunk.labels == TRAIN
            users.append(chunk.users[train])
            items.append(chunk.items[train])
        return cls(np.concatenate(users), np.concatenate(items), n_users, n_items)

    @cached_property
    def popularity(self) -> npt.NDArray[np.int64]:
        """Give the events of each item: (n_items,)."""
        return np.bincount(self.items, minlength=self.n_items)

    def matrix(self) -> Any:
        """Give how often each user had each item, as a CSR matrix (n_users, n_items) of float32."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self), dtype=np.float32)
        counts = csr_matrix((ones, (self.users, self.items)), shape=(self.n_users, self.n_items))
        counts.sum_duplicates()
        return counts

    def sequences(self) -> Lists:
        """Give each user's items in the declared order."""
        return Lists.by_user(self.users, self.items, self.n_users)

    def dense(self) -> tuple["TrainEvents", npt.NDArray[np.int64]]:
        """Number anew only users and items that have an event; give the old numbers of the items too.

        What is fitted on that does not depend on how many others there are, so that no random draw
        moves where an item without train events comes or goes.
        """
        known, items = np.unique(self.items, return_inverse=True)
        people, users = np.unique(self.users, return_inverse=True)
        dense = TrainEvents(users.astype(np.int32), items.astype(np.int32), len(people), len(known))
        return dense, known.astype(np.int64)

    def digest(self) -> str:
        """Give the SHA-256 over both arrays, which says what was fitted on."""
        sha = hashlib.sha256()
        for column in (self.users, self.items):
            sha.update(np.ascontiguousarray(column, dtype="<i4").data)
        return sha.hexdigest()
