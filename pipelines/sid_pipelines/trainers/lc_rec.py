"""LC-Rec: every user's items as one JSON object, SIDs as lists of angle tokens, items' texts.

The trainer makes its own split of `<DS>.inter.json`: each user's last item tests, the one before validates
(`data.py` 150 to 193). letter.py writes the same files and LETTER's behaviour vectors beside them.
"""

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.folder import Folder
from sid_tokenizers.dialects import DIALECTS

READER = "LC-Rec"


class LcRecSettings(Settings):
    """name: of the data set in file names, empty for the release's. embedding: whose vectors go along."""

    name: str = ""
    embedding: str = "text"


def write(feed: Feed, out: Folder, settings: LcRecSettings) -> str:
    """Write the files of one data set."""
    feed.require_leave_one_out(READER)
    feed.require_prefix_free(READER)
    feed.require_embedding(settings.embedding)
    name = settings.name or feed.dataset
    write_index(feed, out, name)
    out.json_object(
        f"{name}.inter.json",
        "all items of every user, oldest first; the trainer takes the last two for test and valid",
        ((str(user.index), user.items.tolist()) for user in feed.users()),
    )
    write_items(feed, out, name)
    out.npy(
        f"{name}.emb-{settings.embedding}.npy",
        f"vectors of `{settings.embedding}`, float32, row i is item i: for the trainer's own RQ-VAE",
        (feed.n_items, feed.dim(settings.embedding)),
        "float32",
        feed.vectors(settings.embedding),
    )
    return (
        f"Put this folder at `<data_path>/{name}` and start with `--dataset {name} --index_file .index.json`."
    )


def write_index(feed: Feed, out: Folder, name: str) -> None:
    """Write `<name>.index.json`: the SID of every item as a list of tokens."""
    angle, vocabulary = DIALECTS["angle"], feed.vocabulary
    rows = ((str(i), angle.tokens(sid[sid >= 0].tolist(), vocabulary)) for i, sid in enumerate(feed.sids))
    out.json_object(f"{name}.index.json", "the SID of every item, as its tokens", rows)


def write_items(feed: Feed, out: Folder, name: str) -> None:
    """Write `<name>.item.json`: the texts of every item, each one line, empty where there is none."""
    columns = ("item_index", "title", "description", "brand", "category_path")
    rows = (
        (
            str(row["item_index"]),
            {
                "title": one_line(row["title"] or ""),
                "description": one_line(row["description"] or ""),
                "brand": one_line(row["brand"] or ""),
                "categories": ", ".join(one_line(one) for one in row["category_path"]),
            },
        )
        for row in feed.items(columns)
    )
    out.json_object(f"{name}.item.json", "the texts of every item", rows)


FORMAT = Format(
    "lc-rec",
    "LC-Rec (RUCAIBox/LC-Rec)",
    "inter, index and item JSON, and the vectors",
    write,
    LcRecSettings,
)
