"""UniMP: every user's items as JSON for each split, item fields, SIDs, and the list of images to put beside.

It interleaves an image and fields of each item with text (`UniMP/pipeline/mm_utils/rec_dataset.py`). Unlike
recformer.py its sequences end with the target in each file, and its items have prices and images.
"""

from collections.abc import Iterator

from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.writing.folder import Folder

READER = "UniMP"
README = """
Put the folder at `mmrec_path` and start with `--subset all --task rec` (or `search`), `--use_semantic` for
SIDs. In `rec_dataset.py` set `self.all_items = set(range({items}))` (line 273 has the number of the paper's
items).

* `train_users.json`, `eval_users.json`, `test_users.json`: user, and a list of [item, review, rating]; the
  last item is what is predicted. Train ends two before a user's last event, eval one before, test with it.
  Users of fewer than {shortest} train items are in none of them: the trainer draws windows of 5 and one
  more. {short:,} are left out.
* `meta_all.json`: category, brand, title and price of each item, empty where the source has none.
* `id2semantic.json`: codes by item. With `--use_semantic` the trainer makes `item_<code>` tokens of the first
  3 and `item_last_<code>` of the fourth, and levels share these tokens; so a level's codes are shifted past
  those before. Its `item_tokens` have to name as many.
* `images.csv`: item and image as the source says. The trainer opens `all/<item>.jpg` of every item of a
  history, so an item without one stops it: put a blank image there. {images:,} of {items:,} items have one.
* Reviews are empty and ratings the events' values, 0 without one: a release holds no review texts. So the
  task `exp` cannot be fed; `img_sel` files are drawn from these by the trainer's own `data/gen_img_sel.py`,
  `img_gen` needs a VQGAN.
"""


class UnimpSettings(Settings):
    """shortest: train items that a user must have; the trainer needs 6."""

    shortest: int = Field(default=6, ge=2)


def write(feed: Feed, out: Folder, settings: UnimpSettings) -> str:
    """Write sequences for each split, item fields, SIDs and where images are."""
    feed.require_leave_one_out(READER)
    feed.require_length(READER, 1, 4)
    feed.require_levels(READER)
    cut = settings.shortest + 2
    for name, part in (("train", slice(None, -2)), ("eval", slice(None, -1)), ("test", slice(None))):
        out.json_object(f"{name}_users.json", f"items of every user for {name}, the last to be predicted",
                        _sequences(feed, part, cut))  # fmt: skip
    out.json_object("meta_all.json", "the fields of every item", _fields(feed))
    ids = feed.vocabulary.token_ids(feed.sids) - feed.vocabulary.offsets[0]
    codes = ((str(item), ",".join(map(str, row))) for item, row in enumerate(ids.tolist()))
    out.json_object("id2semantic.json", "the codes of every item, shifted level by level", codes)
    rows = ((i, one) for i, one in enumerate(row["image_ref"] for row in feed.items(["image_ref"])) if one)
    images = out.csv("images.csv", "where the image of an item is", ("item", "image"), rows)
    short = sum(len(user.items) < cut for user in feed.users())
    return README.format(items=feed.n_items, shortest=settings.shortest, short=short, images=images)


def _sequences(feed: Feed, part: slice, cut: int) -> Iterator[tuple[str, list[list[object]]]]:
    for user in feed.users():
        if len(user.items) >= cut:
            values = [0 if value != value else value for value in user.values.tolist()]
            pairs = list(zip(user.items.tolist(), values, strict=True))
            yield str(user.index), [[item, "", round(value)] for item, value in pairs[part]]


def _fields(feed: Feed) -> Iterator[tuple[str, dict[str, str]]]:
    columns = ("item_index", "title", "brand", "category_path", "price")
    for row in feed.items(columns):
        yield (
            str(row["item_index"]),
            {
                "category": one_line(" ".join(row["category_path"])),
                "brand": one_line(row["brand"] or ""),
                "title": one_line(row["title"] or ""),
                "price": "" if row["price"] is None else str(row["price"]),
            },
        )


FORMAT = Format(
    "unimp",
    "UniMP (weitianxin/UniMP, 9a541a4)",
    "sequences for each split, item fields, SIDs, and where images are",
    write,
    UnimpSettings,
    papers=(23,),
    protocols=("leave-one-out",),
)
