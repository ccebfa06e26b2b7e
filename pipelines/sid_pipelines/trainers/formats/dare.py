"""DARE: a candidate with its category, a label, and a long history with its categories; drawn negatives.

The trainer's own files are object arrays, which are pickles. A structured array of plain numbers reads the
same there, row by row and field by field, and needs none (`dataset.py` 14 to 66).
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import I32, Feed, User
from sid_pipelines.trainers.reading.lists import Categories
from sid_pipelines.trainers.reading.negatives import Negatives
from sid_pipelines.trainers.writing.folder import Folder

READER = "DARE"
BLOCK = 4096  # rows written at a time
FILE_ROWS = 25 * BLOCK  # 102,400 of a train file, as `preprocess/taobao_v4.py` has them
README = """
Start with `-train_dataset_path <this>/train_{{}}.npy -val_dataset_path <this>/val.npy -test_dataset_path
<this>/test.npy -item_n {items} -cate_n {categories} -max_length {history}` (`train_pytorch.py`). The braces
stay: the trainer lists the train files by what stands before them, and takes number and rows from their
names.

* A row is user, item, category, label ([1, 0] for the next item of the user, [0, 1] for a negative), the
  history and its categories, both {history} long, oldest first, filled up with 0 in front. Items count from
  1, categories too; category 1 is none. The history is before the candidate in time.
* {negatives} negatives go with each sample: items that the user has no event with in any split, drawn
  evenly by the seed. DARE draws them by popularity. Train rows are in the order of users; DARE shuffles
  them when it makes them.
* Unlike DARE's own, rows are there for users of every length: of short histories most is padding. The file
  has all samples of the release, not 19 of each user.
* The trainer drops what does not fill the last batch of valid and test, and takes positions for times.
"""


class DareSettings(Settings):
    """What of histories is written, and what is drawn.

    max_history: entries of a history, 200 as in the paper. negatives: drawn for each sample. seed: of the
    draw. category_level: of category paths, 1 the broadest, -1 the narrowest.
    """

    max_history: int = Field(default=200, ge=1)
    negatives: int = Field(default=2, ge=1)
    seed: int = Field(default=0, ge=0)
    category_level: int = -1


def write(feed: Feed, out: Folder, settings: DareSettings) -> str:
    """Write train files of 102,400 rows, and one file each for valid and test."""
    feed.require_samples(READER, "train", "valid", "test")
    feed.require_one_target(READER)
    categories = Categories.at(feed, settings.category_level)
    drawn = np.minimum(_left(feed), settings.negatives)
    kind = _row(settings.max_history)
    for split, name in (("valid", "val"), ("test", "test")):
        rows = _Rows(feed, split, categories, settings)
        out.npy(f"{name}.npy", f"{split} rows", (rows.count(drawn),), kind, rows.blocks())
    rows = _Rows(feed, "train", categories, settings)
    left, blocks = rows.count(drawn), rows.blocks()
    for number in range(1, -(-left // FILE_ROWS) + 1):
        size = min(left, FILE_ROWS)
        out.npy(
            f"train_{number:04}_{size}.npy", "train rows", (size,), kind, islice(blocks, -(-size // BLOCK))
        )
        left -= size
    out.json("categories.json", "names of categories, the first being number 1", categories.names)
    return README.format(
        items=feed.n_items + 1,
        categories=len(categories.names) + 1,
        history=settings.max_history,
        negatives=settings.negatives,
    )


def _row(history: int) -> np.dtype[np.void]:
    """Give the type of a row: what the trainer reads as x[0] to x[5]."""
    ids = (np.int64, (history,))
    return np.dtype(
        [
            ("uid", np.int64), ("iid", np.int64), ("cid", np.int64), ("target", np.int64, (2,)),
            ("hist_iid", *ids), ("hist_cid", *ids),
        ]
    )  # fmt: skip


def _left(feed: Feed) -> npt.NDArray[np.int64]:
    """Give how many items each user has no event with: (n_users,)."""
    left = np.full(feed.n_users, feed.n_items)
    for user in feed.users():
        left[user.index] -= len(np.unique(user.items))
    return left


class _Rows:
    """The rows of one split: each sample, then its negatives."""

    def __init__(self, feed: Feed, split: str, categories: Categories, settings: DareSettings) -> None:
        self.feed, self.split, self.of, self.settings = feed, split, categories.of + 1, settings
        self.draw = Negatives(feed.n_items, settings.seed)

    def count(self, drawn: npt.NDArray[np.int64]) -> int:
        """Give the number of rows. drawn: negatives of a sample of each user, (n_users,)."""
        pieces = self.feed.tables(self.split, ["user_index"])
        return sum(int((1 + drawn[piece["user_index"].to_numpy()]).sum()) for piece in pieces)

    def blocks(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield the rows BLOCK at a time; the last block has the rest."""
        block, filled = np.zeros(BLOCK, _row(self.settings.max_history)), 0
        for row in self._rows():
            block[filled] = row
            filled += 1
            if filled == BLOCK:
                yield block
                filled = 0
        if filled:
            yield block[:filled]

    def _rows(self) -> Iterator[npt.NDArray[np.void]]:
        width = self.settings.max_history
        row = np.zeros((), _row(width))
        for user, candidate, history, number in self._samples():
            past = np.zeros((2, width), np.int64)
            if len(history):
                past[:, -len(history) :] = history + 1, self.of[history]
            seen = user.items
            row["uid"], row["hist_iid"], row["hist_cid"] = user.index + 1, past[0], past[1]
            negatives = self.draw(user.index, number, seen, self.settings.negatives)
            for item, label in ((candidate, (1, 0)), *((int(one), (0, 1)) for one in negatives)):
                row["iid"], row["cid"], row["target"] = item + 1, self.of[item], label
                yield row

    def _samples(self) -> Iterator[tuple[User, int, I32, int]]:
        """Yield (user, target, history, place of the target) of each sample; both come in order of users."""
        users = self.feed.users()
        user = next(users)
        for batch in self.feed.samples(self.split, max_history=self.settings.max_history):
            for i, (index, target, history) in enumerate(batch):
                while user.index != index:
                    user = next(users)
                yield user, target, history, int(batch.end[i])


FORMAT = Format(
    "dare",
    "DARE (thuml/DARE, c72e087)",
    "candidates with category and label, and long histories with categories, as plain structured arrays",
    write,
    DareSettings,
    papers=(29,),
)
