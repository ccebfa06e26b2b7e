"""MMGRec: items' IDs and users' histories as matrices, in one vocabulary that all places share; all from 1.

The trainer's own tokens are codes + 1 and a last digit by popularity (`tgt_input.py` 226 to 257). Its
`load.para` is a pickle of arrays and sparse matrices, which we do not write: the README says how the arrays
here become one.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sid_pipelines.chunks import TEST, TRAIN, VALID
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.reading.digits import popularity_digit
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import shared_ids

READER = "MMGRec"
HISTORY = 32  # `src_input.py` 14
PAIRS = {"train_ui": TRAIN, "val_ui": VALID, "test_ui": TEST}
I64 = npt.NDArray[np.int64]


class MmgRecSettings(Settings):
    """embedding: whose vectors go along, for the trainer's graph network."""

    embedding: str = "text"


def write(feed: Feed, out: Folder, settings: MmgRecSettings) -> str:
    """Write the matrices."""
    feed.require_embedding(settings.embedding)
    feed.require_levels(READER)
    tokens = _tokens(feed)
    out.npy("tgt_mtx.npy", "row i: the ID of item i, from 1", tokens.shape, "int64", [tokens])
    says = f"row u: up to {HISTORY} train items of user u, from 1, filled with 0"
    out.npy("src_mtx.npy", says, (feed.n_users, HISTORY), "int64", _histories(feed))
    for name, label in PAIRS.items():
        count = sum(len(pairs) for pairs in _pairs(feed, label))
        says = "(user, item) of its events, each once, numbers from 0"
        out.npy(f"{name}.npy", says, (count, 2), "int64", _pairs(feed, label))
    dim = feed.dim(settings.embedding)
    says = f"vectors of `{settings.embedding}`, float32, row i is item i"
    out.npy("features.npy", says, (feed.n_items, dim), "float32", feed.vectors(settings.embedding))
    return _readme(feed, tokens, dim)


def _tokens(feed: Feed) -> I64:
    """Give what the trainer calls Rec-IDs: (n_items, L + 1), all different, all from 1.

    Under a policy that adds a digit the codes before it, else the final ones; then the digit by popularity.
    """
    length = feed.codes.shape[1]
    added = feed.vocabulary.length > length
    codes = feed.codes if added else feed.sids[:, : feed.require_length(READER)]
    popularity = [row["popularity_train"] for row in feed.items(["popularity_train"])]
    return np.column_stack([shared_ids(codes), popularity_digit(codes, popularity)])


def _histories(feed: Feed) -> Iterator[I64]:
    for user in feed.users():
        items = user.items[user.split == TRAIN]
        _, last = np.unique(items[::-1], return_index=True)
        newest = np.sort(items[::-1][np.sort(last)[:HISTORY]])
        row = np.zeros((1, HISTORY), dtype=np.int64)
        row[0, : len(newest)] = newest + 1
        yield row


def _pairs(feed: Feed, label: int) -> Iterator[I64]:
    """Yield a user's (user, item) of one split; each once, as the trainer's matrices count them."""
    for user in feed.users():
        items = np.unique(user.items[user.split == label])
        yield np.column_stack([np.full(len(items), user.index), items])


def _readme(feed: Feed, tokens: I64, dim: int) -> str:
    start = int(tokens.max()) + 1
    return f"""
Put the arrays beside the trainer's scripts and make its `load.para` of them once:

    import numpy as np, pickle, scipy.sparse as sparse
    para = {{"user_num": {feed.n_users}, "item_num": {feed.n_items}}}
    for name, key in (("train", "train_matrix"), ("val", "val_matrix"), ("test", "test_matrix")):
        pairs = np.load(f"{{name}}_ui.npy")
        cells = (np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1]))
        para[key] = sparse.coo_matrix(cells, shape=({feed.n_users}, {feed.n_items}))
    para["train_ui"] = np.load("train_ui.npy")
    pickle.dump(para, open("load.para", "wb"))

Then `data_pro.py`, the graph network of `tgt_input.py` for `representation.npy`, and `model_train.py`, which
reads `src_mtx.npy` and `tgt_mtx.npy`. Leave out `data_load.py`, `src_input.py` and the rest of
`tgt_input.py`: these files are what they would make.

- All places share one vocabulary of codes + 1: 0 is padding, S = {start} and E = {start + 1} are start and
  end. The last column is 1 to k among items of equal codes, the most popular in train first.
- IDs have {tokens.shape[1]} numbers here: set `tgt_len = {tokens.shape[1]}` in `model_train.py` (it says 4).
- Histories have no order: the newest {HISTORY} train items by number. The trainer draws {HISTORY} at random
  instead.
- Splits are the release's ({feed.protocol}); the paper's is 80/10/10 of each user at random.
- `tgt_input.py` reads three feature files of 128 numbers: put `features.npy` there, {dim} wide, and give
  `nn.Linear({dim}, 128)` and the two sizes at its top.
- `data_load.py` reads `test_set` before it is made, and `model_test.py` a key that `model_train.py` writes
  one level deeper (`beam_dict`): both stop as they are.
"""


FORMAT = Format(
    "mmgrec",
    "MMGRec (hanliu95/MMGRec at 33b5d1a)",
    "items' IDs, users' histories and splits as matrices",
    write,
    MmgRecSettings,
    papers=(10,),
)
