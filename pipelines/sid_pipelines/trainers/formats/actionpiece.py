"""ActionPiece: the files of its cache folder, which it reads in the place of a download and of fitting codes.

What the trainer finds it does not make: sequences, id maps, texts, vectors, features. Its own codes are of an
OPQ; any release's SIDs of one length do, as it takes an item for a set of (place, code).
"""

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.reading.digits import told_apart
from sid_pipelines.trainers.writing.folder import Folder

READER = "ActionPiece"
PAD = "[PAD]"


class ActionPieceSettings(Settings):
    """What may be chosen for ActionPiece.

    category: the one of the trainer's categories in whose place the release is put; it takes no other names.
    embedding: whose vectors go along. model: the last part of the trainer's `sent_emb_model`, which names
    files.
    """

    category: Literal[
        "Books", "Electronics", "Movies_and_TV", "CDs_and_Vinyl", "Clothing_Shoes_and_Jewelry",
        "Home_and_Kitchen", "Kindle_Store", "Sports_and_Outdoors", "Cell_Phones_and_Accessories",
        "Health_and_Personal_Care", "Toys_and_Games", "Video_Games", "Tools_and_Home_Improvement", "Beauty",
        "Apps_for_Android", "Office_Products", "Pet_Supplies", "Automotive", "Grocery_and_Gourmet_Food",
        "Patio_Lawn_and_Garden", "Baby", "Digital_Music", "Musical_Instruments", "Amazon_Instant_Video",
    ] = "Sports_and_Outdoors"  # fmt: skip
    embedding: str = "text"
    model: str = Field("sentence-t5-base", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


def write(feed: Feed, out: Folder, settings: ActionPieceSettings) -> str:
    """Write the cache of one category."""
    feed.require_leave_one_out(READER)
    feed.require_embedding(settings.embedding)
    if PAD in feed.item_ids or PAD in feed.user_ids:
        raise feed.refuse(READER, f"no id {PAD!r}, which is its padding", "one", "Rename it in the dump")
    sids, added = told_apart(feed, READER)
    place = f"cache/AmazonReviews2014/{settings.category}"
    for name in (f"reviews_{settings.category}_5.json.gz", f"meta_{settings.category}.json.gz"):
        with out.text(f"{place}/raw/{name}", "empty: without it the trainer downloads"):
            pass
    ids = feed.item_ids
    out.json_object(
        f"{place}/processed/all_item_seqs.json",
        "source ids of every user's items, oldest first",
        ((user.id, [ids[item] for item in user.items.tolist()]) for user in feed.users()),
    )
    says = "source ids to numbers from 1, and back; 0 is padding"
    out.json_object(f"{place}/processed/id_mapping.json", says, _maps(feed))
    texts = zip(ids, (one_line(row["text"]) for row in feed.items(["text"])), strict=True)
    out.json_object(f"{place}/processed/metadata.sentence.json", "the text of every item", texts)
    dim = feed.dim(settings.embedding)
    out.raw(
        f"{place}/processed/{settings.model}.sent_emb",
        f"vectors of `{settings.embedding}`: float32 without a header, {dim} of each item, in order",
        (feed.n_items, dim),
        "float32",
        feed.vectors(settings.embedding),
    )
    codes = zip(ids, (row[row >= 0].tolist() for row in feed.codes), strict=True)
    out.json_object(
        f"{place}/processed/{settings.model}.sem_ids", "the tokenizer's codes of every item", codes
    )
    says = "the SID of every item" + (", and a digit where items share it" if added else "")
    features = zip(ids, sids.tolist(), strict=True)
    out.json_object(f"{place}/processed/item.sentence.feat", f"{says}: the trainer's features", features)
    return _readme(feed, settings, sids.shape[1], dim)


def _maps(feed: Feed) -> Iterator[tuple[str, Any]]:
    for kind, ids in (("user", feed.user_ids), ("item", feed.item_ids)):
        yield f"{kind}2id", {one: number for number, one in enumerate([PAD, *ids])}
        yield f"id2{kind}", [PAD, *ids]


def _readme(feed: Feed, settings: ActionPieceSettings, length: int, dim: int) -> str:
    place = f"cache/AmazonReviews2014/{settings.category}/processed"
    options = {"category": settings.category, "sent_emb_pca": -1, "sent_emb_dim": dim}
    given = " ".join(f"--{key}={value}" for key, value in options.items())
    size = sum(feed.vocabulary.levels)
    return f"""
Put `cache/` into the trainer's checkout, or give `--cache_dir=<this folder>/cache/`, and start with

    python main.py {given} --rq_n_codebooks={feed.codes.shape[1]} --actionpiece_vocab_size=40000

- The category only names the folder: the trainer takes no name but those of Amazon 2014.
- `item.sentence.feat` holds {length} numbers of each item, all items different; where it is there, no codes
  are fitted and no hash digit is drawn. Remove it, and the trainer reads `.sem_ids` and draws its own digit:
  that needs `--rq_n_codebooks`, without which it stops with a KeyError (`tokenizer.py` 225). Remove both,
  and it fits its OPQ on `.sent_emb`: then give `--pq_n_codebooks` too.
- `.sent_emb` is read as {dim} numbers an item: give `--sent_emb_pca=-1`, as with a PCA it expects that many
  (128).
- `actionpiece_vocab_size` must be above the {size:,} codes and padding there are to begin with.
- It keeps `{place}/actionpiece.json`, the pieces that it learned: remove that before another export goes
  there.
- The trainer splits by itself: a user's last item tests, the one before validates.
- As published at ae8e61a its modules import each other in a ring (`utils.py` 31, `dataset.py` 22), and
  `_convert_value` makes a list of every text in its configuration (`utils.py` 298): mend both before it
  starts.
- `labels.tostring()` (`tokenizer.py` 416) is gone from NumPy 2.3: use an older one.

Settings as JSON: `{json.dumps(options)}`.
"""


FORMAT = Format(
    "actionpiece",
    "ActionPiece (google-deepmind/action_piece at ae8e61a)",
    "its cache folder: sequences, ids, texts, vectors, features",
    write,
    ActionPieceSettings,
    protocols=("leave-one-out",),
)
