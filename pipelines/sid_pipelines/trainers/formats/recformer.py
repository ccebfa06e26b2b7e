"""Recformer: sequences as JSON, and each item as its fields, key by key; the trainer makes text of them.

It reads no IDs but its own and no vectors; unlike lc_rec.py, in which an item's texts are beside its SID,
fields here are the item.
"""

from collections.abc import Iterator

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.writing.folder import Folder

READER = "Recformer"
README = """
Start with `python finetune.py --data_path <this folder> --pretrain_ckpt ...`; the file names are its
defaults (`finetune.py` 150 to 160).

* `train.json`, `val.json` and `test.json` have the user's number as key; the sequence but for the last two
  events, the one before last, and the last. Item numbers are those of `smap.json`, which has the source's
  own item ids.
* `meta_data.json` has title, brand and category of each item, in this order: the tokenizer takes the first
  3 alone (`max_attr_num`), 32 tokens each. An item's every field is there, an empty text where the source
  has none; an item without any has its id as title. `category` is the path joined by blanks, as in
  `finetune_data/process.py`.
* `umap.json` is read by nothing; `finetune_data/process.py`, which makes such files, keeps one of five
  users at random: here are all.
"""


def write(feed: Feed, out: Folder, settings: Settings) -> str:
    """Write sequences, item fields and the two maps of ids."""
    feed.require_leave_one_out(READER)
    for name, part, says in (
        ("train", slice(None, -2), "train items of every user, oldest first"),
        ("val", slice(-2, -1), "the valid item of every user"),
        ("test", slice(-1, None), "the test item of every user"),
    ):
        rows = ((str(user.index), user.items[part].tolist()) for user in feed.users())
        out.json_object(f"{name}.json", says, rows)
    out.json_object("meta_data.json", "the fields of every item, by its id", fields(feed))
    out.json_object("smap.json", "item numbers by item id", ((one, i) for i, one in enumerate(feed.item_ids)))
    out.json_object("umap.json", "user numbers by user id", ((one, i) for i, one in enumerate(feed.user_ids)))
    return README


def fields(feed: Feed) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (item id, its fields): title, brand, category in this order, one line each, never all empty."""
    for row in feed.items(["item_id", "title", "brand", "category_path"]):
        brand, category = one_line(row["brand"] or ""), " ".join(map(one_line, row["category_path"]))
        title = one_line(row["title"] or "") or row["item_id"] * (not brand and not category)
        yield row["item_id"], {"title": title, "brand": brand, "category": category}


FORMAT = Format(
    "recformer",
    "Recformer (AaronHeee/RecFormer, 26b00a5)",
    "sequences as JSON, and every item as its fields",
    write,
    papers=(20,),
    protocols=("leave-one-out",),
)
