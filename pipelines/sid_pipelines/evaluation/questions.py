"""What everybody is asked: what a user had before, oldest first, and which item came next.

Samples are those of `valid` or `test`; what may be learned from are the train events alone. Of a session with
several targets the first counts. Users and items keep the numbers that the release gives them.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.probes import Lists
from sid_schemas import DataError, RecipeError
from sid_warehouse import parquet
from sid_warehouse.reader import Release

Items = npt.NDArray[np.int64]
SPLITS = ("valid", "test")
COME_BACK = 0.01  # of a split's questions whose target the user has, from which on answers may hold it


@dataclass(frozen=True)
class Questions:
    """Histories, oldest item first, and the item that came after each.

    histories: (n_i,) int64 each, what is read. targets: (n,) int64. n_items: how many could be the answer.
    before: all that each user had, where a window lets histories begin later; else the histories. come_back:
    users of this data set take again what they have, so that answers may hold it.
    """

    histories: list[Items]
    targets: list[int]
    n_items: int
    before: list[Items] | None = None
    come_back: bool = False

    def __len__(self) -> int:
        """Give the number of questions."""
        return len(self.targets)

    @property
    def had(self) -> list[Items]:
        """Give all that each user had before."""
        return self.histories if self.before is None else self.before


@dataclass(frozen=True)
class Exam:
    """The questions of a release's split, and what may be learned from before.

    asked: of all, or of a sample. train: each user's train events. total: questions of the whole split.
    repeats: those of them whose target the user had before. digest: equal where two releases have the same
    questions, train events and catalogue under any numbering, and count answers alike.
    """

    asked: Questions
    train: Lists
    total: int
    repeats: int
    digest: str


def exam(release: Release, split: str, *, max_users: int = 0) -> Exam:
    """Read the questions of a split, by user and time.

    max_users: at most so many users, those whose id has the lowest SHA-256; 0 for all. Raises RecipeError for
    a split that is none, DataError where it has no samples.
    """
    if split not in SPLITS:
        raise RecipeError(f"--split: expected {' or '.join(SPLITS)}, got {split!r}")
    rows = release.table(split, ["user_index", "start", "end", "target"])
    if not len(rows):
        other = SPLITS[1 - SPLITS.index(split)]
        raise DataError(
            f"{release.ref}: split {split!r} has no samples, so nothing can be asked; try --split {other}"
        )
    user, start, end, target = (rows[name].to_numpy().astype(np.int64) for name in rows.column_names)
    order = np.lexsort((end, user))
    users, items = (_ids(release, name) for name in ("user", "item"))
    sequences = release.table("sequences", ["user_index", "items"]).sort_by("user_index")
    lists = sequences["items"].combine_chunks()
    edges, had = lists.offsets.to_numpy().astype(np.int64), lists.values.to_numpy().astype(np.int64)
    row_of = np.full(len(users), -1)
    row_of[sequences["user_index"].to_numpy()] = np.arange(len(sequences))
    first = edges[row_of[user]]
    whole = zip(first, first + end, target, strict=True)
    repeats = sum(bool((had[begin:stop] == wanted).any()) for begin, stop, wanted in whole)
    if max_users and max_users < len(np.unique(user)):
        order = order[np.isin(user[order], _sample(users, np.unique(user), max_users))]
    asked = Questions(
        [had[begin:stop] for begin, stop in zip((first + start)[order], (first + end)[order], strict=True)],
        target[order].tolist(),
        len(items),
        [had[begin:stop] for begin, stop in zip(first[order], (first + end)[order], strict=True)],
        # Of the whole split, so that a sample is counted by the same rule.
        repeats >= COME_BACK * len(user),
    )
    parts = parquet.parts(release.folder, "interactions")
    train = TrainEvents.of(parts, len(users), len(items)).sequences()
    digest = _digest(asked, [users[one] for one in user[order]], items, train, users)
    return Exam(asked, train, len(user), repeats, digest)


def _ids(release: Release, what: str) -> list[str]:
    """Give the ids of users or items by their numbers."""
    table = release.table(f"{what}s", [f"{what}_index", f"{what}_id"]).sort_by(f"{what}_index")
    return table[f"{what}_id"].to_pylist()  # type: ignore[no-any-return]


def _sample(ids: list[str], asked: Items, most: int) -> Items:
    """Give the users whose id has the lowest hash: the same ones whatever number they have."""
    keys = [hashlib.sha256(ids[user].encode()).digest() for user in asked]
    return asked[sorted(range(len(asked)), key=keys.__getitem__)[:most]]


def _digest(asked: Questions, askers: list[str], items: list[str], train: Lists, users: list[str]) -> str:
    """Hash what is asked and what may be learned from, with items and users by their ids."""
    ranks = np.empty(len(items), dtype="<i8")
    ranks[np.argsort(np.array(items, dtype=object))] = np.arange(len(items))
    sha = hashlib.sha256("\0".join(sorted(items)).encode())
    sha.update(f"\0{asked.come_back}".encode())
    rows = list(zip(askers, asked.had, asked.histories, asked.targets, strict=True))
    for who, had, history, target in sorted(rows, key=lambda row: (row[0], len(row[1]))):
        sha.update(f"\0{who}\0{ranks[target]}\0{len(history)}\0".encode() + ranks[had].tobytes())
    for user in sorted(range(len(train)), key=users.__getitem__):
        own = train.items[train.edges[user] : train.edges[user + 1]]
        sha.update(f"\0{users[user]}\0".encode() + ranks[own].tobytes())
    return sha.hexdigest()
