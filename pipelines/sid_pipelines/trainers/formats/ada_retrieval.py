"""Ada-Retrieval: sequences, and one valid and one test item each, as Feather files; the trainer pads.

`src/data/seqrecdataset.py` 31 to 38 fills histories up with 0 in front, to `max_seq_len`; so users and
items count from 1 here.
"""

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from sid_pipelines.trainers.base import Format, Name, Settings
from sid_pipelines.trainers.feed import Feed, User
from sid_pipelines.trainers.writing.folder import Folder

READER = "Ada-Retrieval"
USERS = 65_536  # of a batch
README = """
Put the five data files into `data/{name}` and `{name}.yaml` into `src/config/dataset`. Users and items
count from 1; 0 is padding, which the trainer puts in front of histories shorter than `max_seq_len` (50 in
`src/config/base.yaml`).

* `train.ftr` and `user_history.ftr` have `user_id` and `item_seq`, `valid.ftr` and `test.ftr` `user_id` and
  `item_id`.
* The trainer takes an event's history to be what stands before that item in the sequence
  (`src/data/adduserhistory.py` 24 to 40), so `prepare_data.py` keeps an item's first event of a user alone.
  So does this folder, but for valid and test targets, which keep their place: {repeats:,} repeated events
  are left out.
* `need_user_history` makes it leave items of the train sequence out of what it ranks, as these are.
"""


class AdaRetrievalSettings(Settings):
    """name: of the data set in paths, empty for the release's."""

    name: Name = ""


def write(feed: Feed, out: Folder, settings: AdaRetrievalSettings) -> str:
    """Write the files of one data set."""
    feed.require_leave_one_out(READER)
    sequences = {"train": slice(None, -2), "user_history": slice(None)}
    for name, part in sequences.items():
        says = "items of every user but the last two" if name == "train" else "all items of every user"
        _feather(out, f"{name}.ftr", says, feed, part)
    for name, place in (("valid", -2), ("test", -1)):
        _feather(out, f"{name}.ftr", f"the {name} item of every user", feed, place)
    users = feed.n_users
    formats = {
        "train": "user-item_seq",
        "valid": "user-item",
        "test": "user-item",
        "user_history": "user-item_seq",
    }
    info = {"n_users": users + 1, "n_items": feed.n_items + 1, "id_added_one": 0}
    info |= {f"n_lines_{name}": users for name in formats}
    told = {f"{name}_file_format": kind for name, kind in formats.items()}
    out.json("data.info", "counts and formats; the trainer reads the YAML", {**info, **told})
    name = settings.name or feed.dataset
    with out.text(f"{name}.yaml", "the data set's configuration") as file:
        settled = {"n_items": info["n_items"], "n_users": info["n_users"], **dict(sorted(told.items()))}
        file.writelines(f"{key}: {value}\n" for key, value in settled.items())
    return README.format(name=name, repeats=sum(len(user.items) - len(_once(user)) for user in feed.users()))


def _once(user: User) -> list[int]:
    """Give a user's items, of repeated ones the first; the last two events stay, whatever was before."""
    items = user.items.tolist()
    held = items[-2:]
    return [*(one for one in dict.fromkeys(items[:-2]) if one not in held), *held]


def _feather(out: Folder, name: str, says: str, feed: Feed, part: slice | int) -> None:
    kind = pa.list_(pa.int64()) if isinstance(part, slice) else pa.int64()
    schema = pa.schema(
        [("user_id", pa.int64()), ("item_seq" if isinstance(part, slice) else "item_id", kind)]
    )
    with pa.ipc.new_file(out.file(name, says), schema) as file:
        for users in _batches(feed.users()):
            found = [[item + 1 for item in _once(user)][part] for user in users]
            file.write_table(pa.table([[user.index + 1 for user in users], found], schema=schema))


def _batches(users: Iterator[User]) -> Iterator[list[User]]:
    while batch := list(islice(users, USERS)):
        yield batch


FORMAT = Format(
    "ada-retrieval",
    "Ada-Retrieval (ll0ruc/Ada-Retrieval, 3b6b5a9)",
    "Feather files of train sequences, valid and test items, and whole histories",
    write,
    AdaRetrievalSettings,
    papers=(52,),
    protocols=("leave-one-out",),
)
