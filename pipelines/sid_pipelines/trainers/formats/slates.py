"""Lists as they were shown, clicked or not: FINN.no's slate arrays, and all that is known of each list.

Unlike timeline.py, which puts what users did in one order and lists beside, the list itself is the event
here. FINN.no's files are those of its data set package, which the trainers of the paper read.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import I32, Feed
from sid_pipelines.trainers.reading.lists import Categories
from sid_pipelines.trainers.writing.folder import Folder

READER = "FINN.no's slates"
PAD, NO_CLICK, FIRST_ITEM = 0, 1, 3  # 2 is an unknown item; item i is i + 3
SEARCH, RECOMMENDATION = 1, 2
SPLITS = {"train": 1, "valid": 2, "test": 3, "context": 4}
COLUMNS = (
    "user_index", "ts", "impression_id", "session_id", "query", "items", "clicked", "positions",
    "propensities", "n_shown", "split",
)  # fmt: skip
SHOWN = pa.schema(
    [
        pa.field("user_index", pa.int32()),
        pa.field("ts", pa.int64()),
        pa.field("impression_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("query", pa.string()),
        pa.field("items", pa.list_(pa.int32())),
        pa.field("clicked", pa.list_(pa.bool_())),
        pa.field("click_index", pa.int32()),
        pa.field("positions", pa.list_(pa.int32())),
        pa.field("propensities", pa.list_(pa.float64())),
        pa.field("n_shown", pa.int32()),
        pa.field("split", pa.string()),
    ]
)
README = """
`slates.parquet` is a format of ours and has every list as it was shown: `click_index` is the place of the
first clicked item, counted from 0, and -1 where nothing was clicked; such lists are kept. `propensities` is
null where the source has none. Items that cleaning took out of the release are out of the lists too;
`n_shown` counts them.

The other three files are those of `recsys_slates_dataset` (README "Dataset files", `dataset_torch.py` 63 to
133): put the folder at `data_dir`. `data.npz` has {users:,} users, {steps} steps, {width} places:

* numbers: 0 padding, 1 no click, 2 unknown, item i is i + 3. Place 0 of every slate is 1, no click; then
  the items as shown. `slate_lengths` counts place 0 too. `click` is the item, or 1; `click_idx` its place,
  or 0.
* a list with several clicks is a step for each of them; there are {several:,} such steps beyond the first.
* `interaction_type` is 1 where the list has a query, otherwise 2. Of longer lists the first {places} items
  stay; a click beyond them makes its step one of no item: {lost:,} steps were left out for it.
* each user's newest {steps} steps, oldest first, padded at the end; {older:,} older ones are in
  slates.parquet alone.
* `split` is ours, in addition: 0 padding, 1 train, 2 valid, 3 test, 4 context.

Traps: `load_dataloaders` downloads FINN.no's own files over these in any case; set
`data_helper.download_data_files = lambda **_: None` first. It then makes a split of its own: 5 % of users
each for valid and test, from their sixth step on; ours is `split`. It loads everything into memory.
"""


class SlatesSettings(Settings):
    """The width of FINN.no's arrays; slates.parquet is whole in any case.

    steps: newest lists of a user. places: items of a list. category_level: of itemattr.npz, 1 the broadest.
    """

    steps: int = Field(default=20, ge=1)
    places: int = Field(default=24, ge=1)
    category_level: int = 1


@dataclass
class _Steps:
    """All steps of FINN.no's arrays but the slates themselves: (users, steps) each."""

    users: list[int]
    click: list[I32]
    click_idx: list[I32]
    lengths: list[I32]
    kind: list[I32]
    split: list[I32]
    several: int = 0
    lost: int = 0
    older: int = 0


def write(feed: Feed, out: Folder, settings: SlatesSettings) -> str:
    """Write the lists as they are, and as FINN.no's arrays."""
    feed.require_table(
        READER, "impressions", "Build it from a source with lists as shown: `sidmill sources` has them"
    )
    categories = Categories.at(feed, settings.category_level)
    out.parquet("slates.parquet", "every list as it was shown", SHOWN, shown(feed))
    found = _Steps([], [], [], [], [], [])
    with zipfile.ZipFile(
        out.file("data.npz", "FINN.no's arrays: users, steps, places"), "w", zipfile.ZIP_DEFLATED
    ) as pack:
        _write_slates(pack, feed, settings, found)
        shape = (len(found.users), settings.steps)
        _member(pack, "userId", np.array(found.users, np.int32))
        for name in ("click", "click_idx", "lengths", "kind", "split"):
            rows = np.array(getattr(found, name), np.int32).reshape(shape)
            _member(pack, {"lengths": "slate_lengths", "kind": "interaction_type"}.get(name, name), rows)
    with zipfile.ZipFile(out.file("itemattr.npz", "each item's category, as a number"), "w") as pack:
        numbers = np.concatenate([[PAD, NO_CLICK, 2], categories.of + FIRST_ITEM])
        _member(pack, "category", numbers.astype(np.float64))
    names = ["PAD", "noClick", "<UNK>", "none", *categories.names[1:]]
    kinds = {"0": "<UNK>", "1": "search", "2": "rec"}
    out.json(
        "ind2val.json",
        "what the numbers of categories and interaction types mean",
        {"category": {str(n): name for n, name in enumerate(names)}, "interaction_type": kinds},
    )
    return README.format(
        users=len(found.users),
        steps=settings.steps,
        width=settings.places + 1,
        places=settings.places,
        several=found.several,
        lost=found.lost,
        older=found.older,
    )


def shown(feed: Feed) -> Iterator[pa.Table]:
    """Yield the lists as they were shown, with the place of the first click: a table of SHOWN, at a time."""
    for batch in feed.tables("impressions", COLUMNS):
        clicks = [one.index(True) if True in one else -1 for one in batch["clicked"].to_pylist()]
        yield batch.append_column("click_index", pa.array(clicks, pa.int32())).select(SHOWN.names)


def _write_slates(pack: zipfile.ZipFile, feed: Feed, settings: SlatesSettings, found: _Steps) -> None:
    """Write the slates user by user, and gather what is as large as users alone."""
    users = _count_users(feed)
    shape = (users, settings.steps, settings.places + 1)
    with _opened(pack, "slate", shape, np.int32) as file:
        for user, lists in _by_user(feed):
            steps = [step for one in lists for step in _steps(one, settings, found)]
            found.older += max(0, len(steps) - settings.steps)
            slates = np.zeros(shape[1:], np.int32)
            facts = np.zeros((5, settings.steps), np.int32)
            for place, (slate, fact) in enumerate(steps[-settings.steps :]):
                slates[place, : len(slate)], facts[:, place] = slate, fact
            file.write(slates.tobytes())
            found.users.append(user)
            for name, row in zip(("click", "click_idx", "lengths", "kind", "split"), facts, strict=True):
                getattr(found, name).append(row)


def _steps(
    row: dict[str, Any], settings: SlatesSettings, found: _Steps
) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """Yield the steps of one list: one for each click, or one of no click."""
    slate = [NO_CLICK, *(item + FIRST_ITEM for item in row["items"][: settings.places])]
    clicks = [place for place, clicked in enumerate(row["clicked"], start=1) if clicked]
    reached = [place for place in clicks if place < len(slate)]
    found.several += max(0, len(reached) - 1)
    found.lost += len(clicks) - len(reached)
    kind = SEARCH if row["query"] else RECOMMENDATION
    for place in reached or ([] if clicks else [0]):
        yield slate, (slate[place], place, len(slate), kind, SPLITS[row["split"]])


def _by_user(feed: Feed) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield each user's lists, oldest first; users without any do not come."""
    mine: list[dict[str, Any]] = []
    for row in feed.rows("impressions", ["user_index", "query", "items", "clicked", "split"]):
        if mine and row["user_index"] != mine[0]["user_index"]:
            yield mine[0]["user_index"], mine
            mine = []
        mine.append(row)
    if mine:
        yield mine[0]["user_index"], mine


def _count_users(feed: Feed) -> int:
    seen = np.zeros(feed.n_users, bool)
    for batch in feed.tables("impressions", ["user_index"]):
        seen[batch["user_index"].to_numpy()] = True
    return int(seen.sum())


def _member(pack: zipfile.ZipFile, name: str, array: npt.NDArray[Any]) -> None:
    with _opened(pack, name, array.shape, array.dtype) as file:
        file.write(np.ascontiguousarray(array).tobytes())


def _opened(pack: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> IO[bytes]:
    """Open an array of an npz file for writing, its header written; no time of day is in it."""
    member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = pack.compression
    file = pack.open(member, "w", force_zip64=True)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


FORMAT = Format(
    "slates",
    "dynamic slate recommenders (finn-no/recsys_slates_dataset, b394e52)",
    "lists as shown with clicks, places and propensities, unclicked ones kept, and as slate arrays",
    write,
    SlatesSettings,
    papers=(14, 42),
)
