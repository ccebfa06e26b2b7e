"""RecGPT (HKUDS): users' items as pickled dicts, four tokens of 15,360 for every item, texts' vectors.

The numbers of all four places are one vocabulary without offset, 0 to 15,359, and 15,360 pads (utils/data.py
23). Unlike other trainers it counts on users it has never seen: test rows are whole sequences whose last
item is the target, and `predict.py` makes tokens anew with its own autoencoder.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sid_pipelines.chunks import TRAIN
from sid_pipelines.trainers.base import Format, Name, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder
from sid_pipelines.trainers.writing.plain_pickle import dict_file, list_file, map_file

READER = "RecGPT"
TOKENS = 15_360  # of its finite scalar quantization, [8, 8, 8, 6, 5]
PLACES, WIDTH = 4, 768
Matrix = npt.NDArray[np.float32]


class RecGptSettings(Settings):
    """name: of the folder for prediction, empty for the data set's. embedding: whose vectors go along.

    fill: whether vectors of fewer than 768 numbers are filled up with zeros, as the trainer reads 768.
    """

    name: Name = ""
    embedding: str = "text"
    fill: bool = False


def write(feed: Feed, out: Folder, settings: RecGptSettings) -> str:
    """Write what its three programs read: pre_train.py, eval.py, predict.py."""
    feed.require_levels(READER)
    feed.require_length(READER, PLACES, PLACES)
    feed.require_one_target(READER)
    if max(feed.vocabulary.sizes) > TOKENS:
        got = f"{max(feed.vocabulary.sizes):,}"
        raise feed.refuse(READER, f"at most {TOKENS:,} codes on a level", got, "Choose tokenizer = 'fsq'")
    dim = feed.dim(settings.embedding)
    if dim != WIDTH and not (settings.fill and dim < WIDTH):
        raise feed.refuse(
            READER,
            f"vectors of {WIDTH} numbers",
            f"{dim} in embedding {settings.embedding!r}",
            "Embed by a model of that width, such as all-mpnet-base-v2, or fill up with --set fill=true",
        )
    name = settings.name or feed.dataset
    seen = dict_file(
        out.file("data/pre_train/train.pkl", "{user: items that train, oldest first}"), _train(feed)
    )
    _tokens(feed, out, "data/pre_train/token_id_list.pkl")
    _vectors(feed, out, "data/pre_train/all_item_text_embeddings.npy", settings.embedding)
    dict_file(out.file("data/eval/eval.pkl", "{sample: history and valid target}"), _held_out(feed, "valid"))
    _tokens(feed, out, "data/eval/token_id_list_eval.pkl")
    _vectors(feed, out, "data/eval/all_item_text_embeddings_eval.npy", settings.embedding)
    identity = ((item, item) for item in range(feed.n_items))
    map_file(
        out.file("data/eval/eval_id_map.pkl", "{item: its row of the vectors}, the same number"), identity
    )
    tested = dict_file(
        out.file(f"data/{name}/test.pkl", "{sample: history and test target, the last}"),
        _held_out(feed, "test"),
    )
    _vectors(feed, out, f"data/{name}/item_text_embeddings.npy", settings.embedding)
    return f"""
Copy `data` over the repository's. `accelerate launch pre_train.py` reads `data/pre_train`, `python eval.py`
reads `data/eval`, `python predict.py --dataset {name}` reads `data/{name}`. {seen:,} users train; {tested:,}
of {feed.count("test"):,} test samples have a history and are there.

- The trainer's README runs `--dataset steam` on `data/test/steam`; its code reads `data/steam` (predict.py
  35).
- `token_id_list.pkl` has this release's SIDs. `predict.py` makes tokens of the vectors with the repository's
  own autoencoder (predict.py 55 to 65): for these, train that way, or load the list there instead.
- Items that share an SID: the last one wins (predict.py 85 to 97). Here {feed.n_shared:,} do.
- Rows longer than 256 items are cut by the trainer, which keeps the newest.
- Pickles hold dicts and lists of whole numbers, nothing else.{_filled(dim)}
"""


def _train(feed: Feed) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """Yield each user's train items, for users who have any."""
    for user in feed.users():
        items = user.items[user.split == TRAIN]
        if len(items):
            yield user.index, items


def _held_out(feed: Feed, split: str) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """Yield the history and target of each sample that has a history, by the sample's row."""
    for batch in feed.samples(split):
        for row, (_, target, history) in zip(batch.row.tolist(), batch, strict=True):
            if len(history):
                yield row, np.append(history, np.int32(target))


def _tokens(feed: Feed, out: Folder, name: str) -> None:
    list_file(out.file(name, "the four tokens of every item, entry i is item i"), feed.sids)


def _vectors(feed: Feed, out: Folder, name: str, embedding: str) -> None:
    says = f"vectors of `{embedding}`, float32, row i is item i"
    out.npy(name, says, (feed.n_items, WIDTH), "float32", map(_widened, feed.vectors(embedding)))


def _widened(vectors: Matrix) -> Matrix:
    return np.pad(vectors, ((0, 0), (0, WIDTH - vectors.shape[1])))


def _filled(dim: int) -> str:
    return f"\n- Vectors have {dim} numbers of their own; zeros follow." if dim < WIDTH else ""


FORMAT = Format(
    "recgpt",
    "RecGPT (HKUDS/RecGPT at f15aa49)",
    "users' items and four tokens of 15,360 as pickles, vectors of 768",
    write,
    RecGptSettings,
    papers=(50,),
)
