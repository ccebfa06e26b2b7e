"""SETRec: users' items by split as object arrays, a behaviour vector of 64 and a text vector for every item.

The trainer learns an item's tokens from these two as it goes, so it reads no SIDs and no `vectors_setrec`:
those are for trainers of our own. Items and users count from 0; the trainer adds 1 to a history's items by
itself (utils/data_utils.py 42, 51).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sid_pipelines.chunks import TEST, TRAIN, VALID
from sid_pipelines.trainers.base import Format, Name, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder
from sid_pipelines.trainers.writing.plain_pickle import array_file, matrix_file

READER = "SETRec"
CF_WIDTH = 64  # input_dim, finetune_t5.py 93
FILES = {"training_dict.npy": TRAIN, "validation_dict.npy": VALID, "testing_dict.npy": TEST}
I32 = npt.NDArray[np.int32]


class SetRecSettings(Settings):
    """name: of the folder, which the trainer repeats in a file's name; empty for the data set's.

    cf: the embedding of behaviour, 64 numbers. embedding: the one of text. encoder: what the trainer calls
    the text encoder, `t5` or `qwen`, whichever program is started.
    """

    name: Name = ""
    cf: str = "collaborative"
    embedding: str = "text"
    encoder: str = "t5"


def write(feed: Feed, out: Folder, settings: SetRecSettings) -> str:
    """Write the three dictionaries, both matrices, and which items are warm or cold."""
    if (dim := feed.dim(settings.cf)) != CF_WIDTH:
        raise feed.refuse(
            READER,
            f"behaviour vectors of {CF_WIDTH} numbers",
            f"{dim} in {settings.cf!r}",
            "Embed with dim = 64",
        )
    feed.require_embedding(settings.embedding)
    known, lost = _known(feed)
    name = settings.name or feed.dataset
    for file, label in FILES.items():
        array_file(out.file(file, "{user: items}, for users who train"), _lists(feed, label))
    matrix_file(
        out.file("SASRec_item_embed.pkl", f"vectors of `{settings.cf}` as one torch tensor, row i is item i"),
        (feed.n_items, CF_WIDTH),
        feed.vectors(settings.cf),
    )
    out.npy(
        f"{name}.emb-{settings.encoder}-tdcb.npy",
        f"vectors of `{settings.embedding}`, float32, row i is item i",
        (feed.n_items, feed.dim(settings.embedding)),
        "float32",
        feed.vectors(settings.embedding),
    )
    warm, cold = np.flatnonzero(known), np.flatnonzero(~known)
    out.npy("warm_item.npy", "items that train", warm.shape, "int64", [warm])
    out.npy("cold_item.npy", "items that do not, up to the highest that does", cold.shape, "int64", [cold])
    return f"""
Put this folder at `data/{name}` and start `bash scripts/train_{settings.encoder}.sh {name} LR N_SEM ALPHA` in
`code`. The trainer makes its samples itself: every prefix of a user's train items, the first valid item after
them, all test items after both.

- It counts items by the highest number in train (utils/data_utils.py 29): {len(known):,} of {feed.n_items:,}
  here. Items beyond have no score, and are in neither `warm_item.npy` nor `cold_item.npy`.
- Users without train events are not there: {lost:,} of {feed.n_users:,}.
- The dictionaries are object arrays as `np.save` writes them: they name numpy's array, and hold a dict of
  lists of whole numbers. `SASRec_item_embed.pkl` names numpy's array and `torch.from_numpy`, and nothing
  else.
"""


def _known(feed: Feed) -> tuple[npt.NDArray[np.bool_], int]:
    """Say of each item up to the highest that trains whether it does, and how many users do not train."""
    trains, held = np.zeros(feed.n_items, dtype=bool), -1
    users = 0
    for user in feed.users():
        mine = user.split == TRAIN
        if mine.any():
            users += 1
            trains[user.items[mine]] = True
            held = max(held, int(user.items[user.split == VALID].max(initial=-1)))
    known = trains[: int(np.flatnonzero(trains).max()) + 1]
    if held >= len(known):
        raise feed.refuse(
            READER,
            f"valid items among the {len(known):,} up to the highest that trains",
            f"item number {held}, {feed.item_ids[held]!r}",
            "Its loss fails on such a label: raise k_core, or split so that every item trains",
        )
    return known, feed.n_users - users


def _lists(feed: Feed, label: int) -> Iterator[tuple[int, I32]]:
    for user in feed.users():
        if (user.split == TRAIN).any():
            yield user.index, user.items[user.split == label]


FORMAT = Format(
    "setrec",
    "SETRec (Linxyhaha/SETRec at 50109bd)",
    "dictionaries of users' items, behaviour vectors of 64 and text vectors",
    write,
    SetRecSettings,
    papers=(40,),
)
