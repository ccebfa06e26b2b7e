"""Mult-VAE: who clicked what, 0 or 1, for users who train and others who are held out whole.

A held-out user's first share of events folds in, the rest is predicted; recipe's `[split] fold_in` is that
share, 0.8 here and in the source. The source draws it at random, ours is the oldest [D]. The CSV files are
what the notebook writes and reads again; the matrices beside them are the same numbers for who needs no
notebook.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sid_pipelines.chunks import CONTEXT, TEST, TRAIN, VALID
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, User, one_line
from sid_pipelines.trainers.writing.folder import Folder
from sid_pipelines.trainers.writing.npz import ones_file

READER = "Mult-VAE"
PROTOCOL = "user-holdout"
# Whose rows a file has, whether they are what is predicted, and what it is.
PARTS = {
    "train": (TRAIN, False, "all clicks of users who train: user number, column"),
    "validation_tr": (VALID, False, "what folds in for users who validate"),
    "validation_te": (VALID, True, "what is predicted of them"),
    "test_tr": (TEST, False, "what folds in for users who test"),
    "test_te": (TEST, True, "what is predicted of them"),
}
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Who stands where.

    columns: (n_items,), the column of each item that trains, else -1. roles: (n_users,), TRAIN, VALID, TEST,
    or -1 for held-out users with nothing to predict. Users are numbered role after role.
    """

    columns: I64
    roles: npt.NDArray[np.int8]

    def start(self, role: int) -> int:
        """Give the number of a role's first user."""
        return int(((self.roles >= 0) & (self.roles < role)).sum())


def write(feed: Feed, out: Folder, settings: Settings) -> str:
    """Write the five CSV files, the ids of columns and rows, and the five matrices."""
    if feed.protocol != PROTOCOL:
        raise feed.refuse(
            READER,
            f"users held out whole, protocol {PROTOCOL}",
            feed.protocol,
            f"Split by protocol = '{PROTOCOL}'",
        )
    plan = _plan(feed)
    sizes = {role: int((plan.roles == role).sum()) for role in (TRAIN, VALID, TEST)}
    if not all(sizes.values()):
        raise feed.refuse(
            READER,
            "users who train, validate and test",
            f"{sizes[TRAIN]:,}, {sizes[VALID]:,} and {sizes[TEST]:,}",
            "Choose [split] ratios without a zero, such as [0.8, 0.1, 0.1], or a larger dump",
        )
    for part, (_, _, says) in PARTS.items():
        rows = ((user, item) for user, items in _rows(feed, plan, part) for item in items.tolist())
        out.csv(f"pro_sg/{part}.csv", says, ("uid", "sid"), rows)
    _write_ids(feed, out, plan)
    for part, (role, _, _) in PARTS.items():
        counts = np.zeros(sizes[role], dtype=np.int64)
        for user, items in _rows(feed, plan, part):
            counts[user - plan.start(role)] = len(items)
        path = out.file(f"{part}.npz", f"the same as pro_sg/{part}.csv, a sparse matrix for scipy")
        ones_file(path, int(plan.columns.max()) + 1, counts, (items for _, items in _rows(feed, plan, part)))
    return f"""
Set the notebook's `DATA_DIR` to this folder and run it from "Model definition and training" on: cells before
that make these files of MovieLens. Rows of a matrix begin with the first user of its part.

- {sizes[TRAIN]:,} users train, {sizes[VALID]:,} validate, {sizes[TEST]:,} test; {
        int((plan.roles < 0).sum()):,} held-out users have nothing to predict among the {
        int(plan.columns.max()) + 1:,} items that
  train, and are left out.
- Every event counts as 1. The notebook first drops ratings of 3.5 and less: `[clean] min_value` does that.
- An item that folds in is not predicted again, so no entry of `_te` is in `_tr`.
- The notebook draws the 20 % to predict at random; here they are each user's latest.
"""


def _plan(feed: Feed) -> Plan:
    roles = np.full(feed.n_users, -1, dtype=np.int8)
    trains = np.zeros(feed.n_items, dtype=bool)
    for user in feed.users():
        if (user.split == TRAIN).all():
            roles[user.index] = TRAIN
            trains[user.items] = True
    columns = np.where(trains, np.cumsum(trains) - 1, -1)
    for user in feed.users():
        if roles[user.index] != TRAIN and len(_items(user, columns, held_out=True)):
            roles[user.index] = VALID if (user.split == VALID).any() else TEST
    return Plan(columns, roles)


def _rows(feed: Feed, plan: Plan, part: str) -> Iterator[tuple[int, I64]]:
    """Yield (user number, columns ascending) of a part."""
    role, held_out, _ = PARTS[part]
    number = plan.start(role)
    for user in feed.users():
        if plan.roles[user.index] == role:
            yield number, _items(user, plan.columns, held_out=held_out)
            number += 1


def _items(user: User, columns: I64, *, held_out: bool) -> I64:
    """Give the columns of what a user did, or of what is predicted: what is held out and was not there
    before."""
    before = (user.split == CONTEXT) | (user.split == TRAIN)
    had = np.unique(columns[user.items[before]])
    if not held_out:
        return had[had >= 0]
    later = np.unique(columns[user.items[~before]])
    return np.setdiff1d(later[later >= 0], had)


def _write_ids(feed: Feed, out: Folder, plan: Plan) -> None:
    with out.text("pro_sg/unique_sid.txt", "the source's id of every column, in order") as file:
        file.writelines(f"{one_line(feed.item_ids[i])}\n" for i in np.flatnonzero(plan.columns >= 0).tolist())
    order = np.argsort(plan.roles, kind="stable")
    with out.text("pro_sg/unique_uid.txt", "the source's id of every user number, in order") as file:
        file.writelines(f"{one_line(feed.user_ids[u])}\n" for u in order[plan.roles[order] >= 0].tolist())


FORMAT = Format(
    "mult-vae",
    "Mult-VAE (dawenl/vae_cf at ad103c5)",
    "0/1 clicks by held-out users as CSV and sparse matrices, fold-in and held-out",
    write,
    papers=(35,),
    protocols=(PROTOCOL,),
)
