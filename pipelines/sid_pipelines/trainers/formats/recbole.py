"""RecBole: atomic files of events, items and users, or files of samples that are split already.

`layout=atomic` leaves the split to the trainer, which takes each user's last two events for valid and test;
`layout=split` writes a file for each split, of any protocol (`recbole/data/dataset/dataset.py` 290 to 318).
"""

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from sid_pipelines.trainers.base import Format, Name, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.writing.folder import Folder

READER = "RecBole with layout=atomic"
SPLITS = ("train", "valid", "test")


class RecBoleSettings(Settings):
    """What may be chosen for RecBole.

    layout: `atomic` or `split`, see the README. name: of the data set, empty for the release's. max_history:
    the newest items of a history that are kept, where files are split.
    """

    layout: Literal["atomic", "split"] = "atomic"
    name: Name = ""
    max_history: int = Field(default=50, ge=1)


def write(feed: Feed, out: Folder, settings: RecBoleSettings) -> str:
    """Write interactions in one of both layouts, items, users and the configuration that reads them."""
    name = settings.name or feed.dataset
    if settings.layout == "atomic":
        feed.require_leave_one_out(READER)
        rated = feed.n_without_value == 0
        _write_events(feed, out, name, rated=rated)
        config = _atomic_config(rated=rated)
        left_out = 0
    else:
        feed.require_samples("RecBole with layout=split", *SPLITS)
        feed.require_one_target("RecBole with layout=split")
        left_out = sum(_write_samples(feed, out, name, split, settings.max_history) for split in SPLITS)
        config = _split_config(settings.max_history)
    _write_items(feed, out, name)
    users = ((i, clean(user)) for i, user in enumerate(feed.user_ids))
    out.csv(f"{name}.user", "users and their source ids", USER_HEADER, users, delimiter="\t")
    with out.text("config.yaml", "the configuration that reads these files as they are meant") as file:
        file.writelines(f"{key}: {json.dumps(value)}\n" for key, value in config.items())
    return _readme(feed, name, settings, left_out)


USER_HEADER = ("user_id:token", "source_user_id:token")
ITEM_HEADER = (
    "item_id:token", "source_item_id:token", "title:token_seq", "categories:token_seq", "brand:token",
    "domain:token", "sid:token_seq",
)  # fmt: skip


def clean(text: str) -> str:
    """Give a text that stays one field: on one line, without the double quotes that pandas would match up."""
    return one_line(text).replace('"', "'")


def _write_events(feed: Feed, out: Folder, name: str, *, rated: bool) -> None:
    header = ["user_id:token", "item_id:token", *(["rating:float"] if rated else []), "timestamp:float"]
    out.csv(
        f"{name}.inter",
        "all events, user by user in the release's order; timestamp in seconds",
        header,
        _events(feed, rated=rated),
        delimiter="\t",
    )


def _events(feed: Feed, *, rated: bool) -> Iterator[list[Any]]:
    for user in feed.users():
        for item, value, ts in zip(user.items.tolist(), user.values.tolist(), user.ts.tolist(), strict=True):
            yield [user.index, item, *([f"{value:.15g}"] if rated else []), f"{ts / 1000:.3f}"]


def _write_samples(feed: Feed, out: Folder, name: str, split: str, max_history: int) -> int:
    """Write `<name>.<split>.inter`; gives how many samples without a history are left out."""
    rows = (
        (user, " ".join(map(str, history.tolist())), target)
        for batch in feed.samples(split, max_history=max_history)
        for user, target, history in batch
        if len(history)
    )
    header = ("user_id:token", "item_id_list:token_seq", "item_id:token")
    says = f"{split}: a user, the items before, oldest first, and the item to predict"
    return feed.count(split) - out.csv(f"{name}.{split}.inter", says, header, rows, delimiter="\t")


def _write_items(feed: Feed, out: Folder, name: str) -> None:
    columns = ("item_index", "item_id", "title", "category_path", "brand", "domain")
    rows = (
        (
            row["item_index"],
            clean(row["item_id"]),
            clean(row["title"] or ""),
            " ".join(clean(one).replace(" ", "_") for one in row["category_path"]),
            clean(row["brand"] or ""),
            clean(row["domain"]),
            " ".join(feed.vocabulary.tokens(sid[sid >= 0].tolist())),
        )
        for row, sid in zip(feed.items(columns), feed.sids, strict=True)
    )
    says = "items: source id, texts, and the SID as a sequence of tokens"
    out.csv(f"{name}.item", says, ITEM_HEADER, rows, delimiter="\t")


def _atomic_config(*, rated: bool) -> dict[str, Any]:
    columns = ["user_id", "item_id", *(["rating"] if rated else []), "timestamp"]
    return {
        "load_col": {"inter": columns},
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "group_by": "user",
            "order": "TO",
            "mode": "full",
        },
        "train_neg_sample_args": None,
    }


def _split_config(max_history: int) -> dict[str, Any]:
    return {
        "benchmark_filename": list(SPLITS),
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "MAX_ITEM_LIST_LENGTH": max_history,
        "eval_args": {"mode": "full", "order": "TO", "group_by": "user", "split": {"LS": "valid_and_test"}},
        "train_neg_sample_args": None,
    }


def _readme(feed: Feed, name: str, settings: RecBoleSettings, left_out: int) -> str:
    if settings.layout == "atomic":
        how = """The trainer makes the split from `.inter`: each user's last item tests, the one before
validates. Its times become float32, which tells seconds of our days apart only every two minutes; it sorts
stably, and rows stand in the release's order, so ties stay as the release has them. Do not sort or shuffle
the file."""
    else:
        how = f"""The files are the release's split ({feed.protocol}); the trainer makes none. `seq_len` of
the trainer would keep the first items of a history, so histories are cut here, to the newest
{settings.max_history} (`--set max_history=`). Samples without a history are left out, as its models cannot
read them: {left_out:,}."""
    return f"""
Put the `{name}.*` files at `<data_path>/{name}/`, `<data_path>` being `dataset/` unless set, and start with

    run_recbole(model="SASRec", dataset={name!r}, config_file_list=["config.yaml"])

{how}

Users and items are called by their numbers in the release, from 0; the trainer numbers them anew and puts
[PAD] first, so it prints one user and one item more than there are. An item that no file of events has is
not in its catalogue. `train_neg_sample_args` is off, as losses over all items want it; set it for BPR.
`load_col` reads events alone; name `item` columns there, `sid` for one, to have them.
Texts have single quotes for double ones, which pandas would match up over lines.
"""


FORMAT = Format(
    "recbole",
    "RecBole (RUCAIBox/RecBole 1.2.1)",
    "atomic files, or files of samples that are split already",
    write,
    RecBoleSettings,
)
