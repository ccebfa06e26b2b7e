"""LC-Rec: every user's items as one JSON object, SIDs as lists of angle tokens, items' texts.

The trainer makes its own split of `<DS>.inter.json`: each user's last item tests, the one before validates
(`data.py` 150 to 193). letter.py writes the same files and LETTER's behaviour vectors beside them.
"""

from collections.abc import Iterator

from pydantic import Field

from sid_pipelines.trainers.base import Format, Name, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import DIALECTS

READER = "LC-Rec"
TASKS = "seqrec,item2index,index2item,fusionseqrec"  # those that need no user.json
SAMPLED = 100_000  # of fusionseqrec by default, drawn without replacement: utils.py 49


class LcRecSettings(Settings):
    """name: of the data set in file names, empty for the release's. embedding: whose vectors go along.

    index_file: what follows the name of the file of SIDs, as in the trainer's `--index_file`.
    """

    name: Name = ""
    embedding: str = "text"
    index_file: str = Field(".index.json", pattern=r"^\.[A-Za-z0-9_.-]+\.json$")


def write(feed: Feed, out: Folder, settings: LcRecSettings) -> str:
    """Write the files of one data set."""
    feed.require_leave_one_out(READER)
    feed.require_levels(READER)
    feed.require_length(READER)
    feed.require_embedding(settings.embedding)
    name = settings.name or feed.dataset
    write_data_set(feed, out, name, settings)
    return f"""\
{how_to_start(name, settings)} The trainer's `index/` trains an RQ-VAE on the vectors
(`--data_path .../{name}.emb-{settings.embedding}.npy`); with our SIDs that step is done already.

- There is no `{name}.user.json`: the preferences and intentions in it are written by a language model
  (`data_process/get_llm_output.py`), and no release has them. So leave out its two tasks:
  `--tasks {TASKS}`, with as many numbers in
  `--train_prompt_sample_num 1,1,1,1` and `--train_data_sample_num 0,0,0,0`.
- `--train_data_sample_num` draws {SAMPLED:,} samples of `fusionseqrec` by default, without replacement, and
  stops with a ValueError where there are fewer. This release has {samples(feed):,}: {enough(feed)}.
{shared(feed)}"""


def write_data_set(feed: Feed, out: Folder, name: str, settings: LcRecSettings) -> None:
    """Write what LC-Rec and LETTER both read."""
    write_inter(feed, out, name)
    write_index(feed, out, name + settings.index_file)
    out.json_object(f"{name}.item.json", "the texts of every item", item_texts(feed))
    write_vectors(feed, out, f"{name}.emb-{settings.embedding}.npy", settings.embedding)


def write_inter(feed: Feed, out: Folder, name: str) -> None:
    """Write `<name>.inter.json`: the items of every user."""
    rows = ((str(user.index), user.items.tolist()) for user in feed.users())
    says = "all items of every user, oldest first; the trainer takes the last two for test and valid"
    out.json_object(f"{name}.inter.json", says, rows)


def write_index(feed: Feed, out: Folder, file: str) -> None:
    """Write the SID of every item as a list of tokens."""
    angle, vocabulary = DIALECTS["angle"], feed.vocabulary
    rows = ((str(i), angle.tokens(sid[sid >= 0].tolist(), vocabulary)) for i, sid in enumerate(feed.sids))
    out.json_object(file, "the SID of every item, as its tokens", rows)


def write_vectors(feed: Feed, out: Folder, file: str, embedding: str, dtype: str = "float32") -> None:
    """Write one embedding as a numpy array, row i being item i."""
    says = f"vectors of `{embedding}`, {dtype}, row i is item i: for the trainer's own RQ-VAE"
    out.npy(file, says, (feed.n_items, feed.dim(embedding)), dtype, feed.vectors(embedding))


def item_texts(feed: Feed) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every item's number and its texts, each one line, empty where there is none."""
    for row in feed.items(("item_index", "title", "description", "brand", "category_path")):
        yield (
            str(row["item_index"]),
            {
                "title": one_line(row["title"] or ""),
                "description": one_line(row["description"] or ""),
                "brand": one_line(row["brand"] or ""),
                "categories": ", ".join(one_line(one) for one in row["category_path"]),
            },
        )


def how_to_start(name: str, settings: LcRecSettings) -> str:
    """Say where the folder goes and what the trainer is told."""
    return (
        f"Put this folder at `<data_path>/{name}` and start with `--data_path <data_path> --dataset {name} "
        f"--index_file {settings.index_file}`."
    )


def samples(feed: Feed) -> int:
    """Give how many train samples the trainer makes: each train event of a user but the first."""
    return int(feed.release.record["rows"]["interactions"]) - 3 * feed.n_users


def enough(feed: Feed) -> str:
    """Say whether that default works here."""
    return "the default works" if samples(feed) >= SAMPLED else "give 0, which takes all"


def shared(feed: Feed) -> str:
    """Say what becomes of items that share an SID."""
    if not feed.n_shared:
        return "- Every item has an SID of its own."
    return (
        f"- {feed.n_shared:,} items share an SID with another one. The trainer compares SIDs: any of those "
        "that share one is a hit for all of them."
    )


FORMAT = Format(
    "lc-rec",
    "LC-Rec (RUCAIBox/LC-Rec at e6f1b3b)",
    "inter, index and item JSON, and the vectors",
    write,
    LcRecSettings,
    protocols=("leave-one-out",),
)
