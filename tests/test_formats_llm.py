"""What LC-Rec, LETTER, DiscRec, MiniOneRec, OpenOneRec, OpenP5 and UniGRec demand of files, in our words.

Files are read as their trainers read them, and every value is compared with the release's tables. That the
trainers' own code reads them too is in docs/verified.
"""

import ast
import csv
import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from helpers import quickly, run_chain, small_dump

from sid_pipelines.trainers import TRAINERS
from sid_pipelines.trainers.export import export
from sid_pipelines.trainers.formats import discrec
from sid_schemas import RecipeError
from sid_warehouse.reader import Release

BEHAVIOUR = '[[embed]]\n[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'
HOSTILE = (
    "None",
    "['a', __import__('os').abort()]",
    'Tab\t"quoted", {braces}; <a_1>',
    "Line\u2028break \x0bhere",
    "nan",
    "1917",
    "Größe 東京 🎬",
    "\\",
    "'",
)
CATEGORY = "Industrial_and_Scientific"
PERIOD = f"{CATEGORY}_5_2016-10-2018-11"


def made(folder: Path, *overrides: str, recipe: str = "") -> Release:
    """Give a small release of hostile titles and ids."""
    path = small_dump(folder)
    movies = path.parent / "dump" / "movies.dat"
    rows = [line.split("::") for line in movies.read_text().splitlines()]
    movies.write_text(
        "".join(f"{row[0]}::{title}::{row[2]}\n" for row, title in zip(rows, HOSTILE, strict=True)), "utf-8"
    )
    path.write_text(path.read_text().replace("[tokenize]\n", recipe + "[tokenize]\n"))
    return run_chain(path, folder / "w", *overrides).release


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        yield


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Three levels, an SID of its own for every item."""
    folder = tmp_path_factory.mktemp("three")
    return made(folder, "tokenize.levels=[4, 4, 4]", "collisions.policy=next-nearest")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Four levels, and vectors of behaviour."""
    folder = tmp_path_factory.mktemp("four")
    given = ("tokenize.levels=[4, 4, 4, 4]", "collisions.policy=next-nearest", "tokenize.vectors=text")
    return made(folder, *given, recipe=BEHAVIOUR)


@pytest.fixture(scope="module")
def unfit(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Release]:
    """Give small releases that some format cannot hold, each made once."""
    kept: dict[tuple[str, ...], Release] = {}

    def get(*overrides: str) -> Release:
        if overrides not in kept:
            folder = tmp_path_factory.mktemp("unfit")
            recipe = small_dump(folder)
            if "tokenize.tokenizer=sequential" in overrides:
                recipe.write_text(recipe.read_text().replace("levels = [4, 4]\n", ""))
            kept[overrides] = run_chain(recipe, folder / "w", *overrides).release
        return kept[overrides]

    return get


FIVE = ("tokenize.levels=[2, 2, 2, 2, 2]", "collisions.policy=next-nearest")
TIED = ("tokenize.levels=[2, 2, 2]", "collisions.policy=none", "gates.max_collision_rate=1")


def written(form: str, release: Release, to: Path, **given: str) -> Path:
    export(release, TRAINERS[form], to, given)
    return to


def refused(form: str, release: Release, to: Path, says: str, **given: str) -> None:
    with pytest.raises(RecipeError, match=says):
        export(release, TRAINERS[form], to, given)
    assert not to.exists()


def column(release: Release, table: str, name: str) -> list[Any]:
    values: list[Any] = release.table(table, [name])[name].to_pylist()
    return values


def sequences(release: Release) -> list[list[int]]:
    return column(release, "sequences", "items")


def vectors(release: Release, name: str = "text") -> np.ndarray[Any, Any]:
    return np.stack(release.table(f"embeddings_{name}", ["vector"])["vector"].to_numpy())


def targets(release: Release, split: str) -> list[tuple[int, list[int], int]]:
    """Give (user, history, target) of every sample."""
    items = sequences(release)
    rows = release.table(split, ["user_index", "start", "end", "target"]).to_pylist()
    return [(r["user_index"], items[r["user_index"]][r["start"] : r["end"]], r["target"]) for r in rows]


def one_line(text: str) -> str:
    return " ".join(re.sub(r"[\u2028\t\n\x0b]", " ", text).split())


# LC-Rec and LETTER: JSON objects keyed by numbers as text; the last two items of a user are held back.


def check_lc_rec(release: Release, folder: Path, name: str, index: str = ".index.json") -> None:
    inter = json.loads((folder / f"{name}.inter.json").read_text("utf-8"))
    sids = json.loads((folder / f"{name}{index}").read_text("utf-8"))
    items = json.loads((folder / f"{name}.item.json").read_text("utf-8"))
    assert list(inter) == [str(user) for user in range(len(inter))]
    assert list(inter.values()) == sequences(release)
    for held, place in (("test", -1), ("valid", -2)):
        assert {row[0]: row[2] for row in targets(release, held)} == {
            int(user): row[place] for user, row in inter.items()
        }
    assert list(sids) == list(items) == [str(item) for item in range(len(sids))]
    assert list(sids.values()) == column(release, "sids", "tokens")
    assert {str(item) for row in inter.values() for item in row} <= set(sids)
    titles = column(release, "items", "title")
    assert [one["title"] for one in items.values()] == [one_line(title) for title in titles]
    assert all(set(one) == {"title", "description", "brand", "categories"} for one in items.values())
    assert all(type(text) is str for one in items.values() for text in one.values())
    array = np.load(folder / f"{name}.emb-text.npy")
    assert array.dtype == np.float32
    assert (array == vectors(release)).all()


def test_lc_rec(three: Release, tmp_path: Path) -> None:
    folder = written("lc-rec", three, tmp_path / "to")
    check_lc_rec(three, folder, "small")
    readme = (folder / "README.md").read_text()
    assert "no `small.user.json`" in readme
    count = sum(len(items) - 3 for items in sequences(three))
    assert f"This release has {count:,}: give 0" in readme


def test_letter(four: Release, tmp_path: Path) -> None:
    given = {"name": "Games", "index_file": ".llamaindex-sk4-sk.json"}
    folder = written("letter", four, tmp_path / "to", **given)
    check_lc_rec(four, folder, "Games", ".llamaindex-sk4-sk.json")
    tensor = torch.load(folder / "Games-4d-collaborative.pt", weights_only=True)
    assert tensor.dtype == torch.float32
    assert (tensor.numpy() == vectors(four, "collaborative")).all()
    refused("letter", four, tmp_path / "a", "has no embedding 'cf'; there are", cf="cf")
    refused("letter", four, tmp_path / "a", "name = '../x'", name="../x")


@pytest.mark.parametrize("name", ["lc-rec", "letter"])
def test_one_length_and_leave_one_out(name: str, unfit: Callable[..., Release], tmp_path: Path) -> None:
    changed = unfit("tokenize.levels=[4, 2]", "collisions.policy=suffix-on-collision")
    lengths = {len(sid) for sid in column(changed, "sids", "sid")}
    assert len(lengths) == 2
    refused(name, changed, tmp_path / "to", r"SIDs of one length; got SIDs of 2 to 3 codes")
    timed = unfit("split.protocol=global-time")
    refused(name, timed, tmp_path / "to", r"leave-one-out, as it takes each user's last two")


# DiscRec: items count from 1 in its array of SIDs, whose row 0 pads; its vocabulary is 4 x 256 codes.


def test_discrec(four: Release, three: Release, tmp_path: Path) -> None:
    folder = written("discrec", four, tmp_path / "to", cf="collaborative")
    inter = json.loads((folder / "Beauty.inter.json").read_text())
    assert list(inter.values()) == sequences(four)
    assert (np.load(folder / "Beauty.emb-llama-td.npy") == vectors(four)).all()
    behaviour = torch.load(folder / "Beauty-cf_emb.pt", weights_only=True)
    assert torch.cat([torch.zeros((1, 4), dtype=torch.long), behaviour]).shape == (len(behaviour) + 1, 4)
    indices = np.load(folder / "indices.npy")
    assert indices.dtype == np.int64
    assert indices.shape == (max(max(row) for row in inter.values()) + 2, 4)
    assert not indices[0].any()
    assert indices[1:].tolist() == column(four, "sids", "sid")
    refused("discrec", three, tmp_path / "a", "SIDs of 4 codes; got 3")
    refused("discrec", four, tmp_path / "a", "has no embedding 'words'", embedding="words")


def test_discrec_has_room_for_so_many_codes(
    four: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discrec, "CODES", 3)  # 256, which nine items cannot fill
    refused("discrec", four, tmp_path / "to", r"at most 3 codes; got levels of \[4, 4, 4, 4\]")


# MiniOneRec: CSV read by pandas, lists by `eval`, an item three tokens, titles keys of a table.


def test_minionerec(three: Release, tmp_path: Path) -> None:
    folder = written("minionerec", three, tmp_path / "to", max_history="2")
    info = (folder / "info" / f"{PERIOD}.txt").read_text("utf-8").split("\n")[:-1]
    sids, titles, numbers = zip(*(line.split("\t") for line in info), strict=True)
    assert [int(number) for number in numbers] == list(range(len(info)))
    assert list(sids) == ["".join(tokens) for tokens in column(three, "sids", "tokens")]
    assert len(set(sids)) == len(sids)
    assert all(len(tokens) == 3 for tokens in column(three, "sids", "tokens"))
    for split in ("train", "valid", "test"):
        file = next(folder.glob(f"{split}/{CATEGORY}*11.csv"))
        frame = pd.read_csv(file)
        header = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid"
        assert list(frame.columns) == header.split(",")
        expected = targets(three, split)
        assert len(frame) == len(expected)
        for row, (user, history, target) in zip(frame.to_dict("records"), expected, strict=True):
            assert row["user_id"] == f"A{user}"
            assert ast.literal_eval(row["history_item_id"]) == history[-2:]
            assert ast.literal_eval(row["history_item_sid"]) == [sids[item] for item in history[-2:]]
            assert ast.literal_eval(row["history_item_title"]) == [titles[item] for item in history[-2:]]
            assert (row["item_id"], row["item_sid"]) == (target, sids[target])
            assert str(row["item_title"]) == titles[target]
    array = np.load(folder / "index" / f"{CATEGORY}.emb-qwen-td.npy")
    assert array.dtype == np.float16
    assert (array == vectors(three).astype(np.float16)).all()


def test_text_that_minionerec_would_lose_or_run(three: Release, tmp_path: Path) -> None:
    folder = written("minionerec", three, tmp_path / "to", category="Books")
    items = json.loads((folder / "index" / "Books.item.json").read_text("utf-8"))
    titles = {one["title"] for one in items.values()}
    assert {'"None"', '"nan"', 'Tab "quoted", {braces}; <a_1>', "Line break here"} <= titles
    assert not any(one["description"].startswith("[") for one in items.values())
    with (folder / "train" / "Books_5_2016-10-2018-11.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert set(ast.literal_eval(row["history_item_title"])) <= titles


def test_minionerec_takes_three_tokens_and_no_ties(
    unfit: Callable[..., Release], four: Release, tmp_path: Path
) -> None:
    refused("minionerec", unfit(*FIVE), tmp_path / "to", "SIDs of 3 codes; got 5")
    refused("minionerec", four, tmp_path / "to", "SIDs of 3 codes; got 4")
    refused(
        "minionerec", unfit(*TIED), tmp_path / "to", r"an SID of its own for every item; got \d items too"
    )
    refused("minionerec", four, tmp_path / "to", "category = 'Movies': Input should be", category="Movies")


# OpenOneRec: Parquet of numbers for its builders, and shards of JSON text for its trainer.


def test_openonerec_tables(three: Release, tmp_path: Path) -> None:
    folder = written("openonerec", three, tmp_path / "to", domain="goods")
    sids = pd.read_parquet(folder / "pid2sid.parquet")
    assert sids["pid"].tolist() == list(range(len(sids)))
    assert [list(sid) for sid in sids["sid"]] == column(three, "sids", "sid")
    assert [list(codes) for codes in sids["codes"]] == column(three, "sids", "codes")
    embedding = pd.read_parquet(folder / "embedding.parquet")
    assert (np.stack(embedding["embedding"].to_numpy()) == vectors(three)).all()
    captions = pd.read_parquet(folder / "pid2caption.parquet")
    assert captions["dense_caption"].tolist() == column(three, "items", "text")
    rows = pd.read_parquet(folder / "metadata.parquet")
    for number, split in enumerate(("train", "valid", "test")):
        mine = rows[rows["split"] == number]
        read = zip(mine["uid"], mine["hist_goods_pid"], mine["target_goods_pid"], strict=True)
        assert [(u, list(h), t[0]) for u, h, t in read] == targets(three, split)


@pytest.mark.parametrize("kind", ["pretrain", "sft"])
def test_openonerec_shards(three: Release, tmp_path: Path, kind: str) -> None:
    folder = written("openonerec", three, tmp_path / "to", rows_per_file="7")
    names = json.loads((folder / kind / "file_list.json").read_text())
    assert names == [f"part-{n:05d}-of-{len(names):05d}.parquet" for n in range(len(names))]
    files = [pq.ParquetFile(folder / kind / name) for name in names]
    assert {file.metadata.num_row_groups for file in files} == {1}
    assert [file.metadata.num_rows for file in files[:-1]] == [7] * (len(names) - 1)
    rows = [row for file in files for row in file.read_row_group(0).to_pylist()]
    sid = [
        "".join(f"<s_{'abc'[i]}_{code}>" for i, code in enumerate(one))
        for one in column(three, "sids", "sid")
    ]
    text = [f"<|sid_begin|>{one}<|sid_end|>" for one in sid]
    expected = targets(three, "train")
    assert len(rows) == len(expected)
    for number, (row, (user, history, target)) in enumerate(zip(rows, expected, strict=True)):
        assert uuid.UUID(row["uuid"]).version == 5
        assert row["source"]
        assert json.loads(row["metadata"]) == {"uid": user, "split": "train", "row": number}
        asked = "".join(text[item] for item in history)
        if kind == "pretrain":
            assert row["messages"] is None
            assert json.loads(row["segments"]) == [{"type": "text", "text": asked + text[target]}]
            continue
        assert row["segments"] is None
        question, answer = json.loads(row["messages"])
        assert (question["role"], answer["role"]) == ("user", "assistant")
        assert asked in question["content"][0]["text"]
        assert answer["content"] == [{"type": "text", "text": text[target]}]
    assert len({row["uuid"] for row in rows}) == len(rows)


def test_openonerec_vocabulary(
    unfit: Callable[..., Release], three: Release, four: Release, tmp_path: Path
) -> None:
    folder = written("openonerec", three, tmp_path / "to", list_prefix="/data/")
    assert json.loads((folder / "sft" / "file_list.json").read_text())[0].startswith(
        "/data/sft/part-00000-of-"
    )
    readme = (folder / "README.md").read_text()
    assert "--vocab_size_per_layer 4" in readme
    assert f"[151669, {151_669 + 3 * 4 + 1}]" in readme
    refused("openonerec", four, tmp_path / "b", "SIDs of 3 codes; got 4")
    tied = written("openonerec", unfit(*TIED), tmp_path / "c")
    assert re.search(r"There are [1-9] items more than SIDs", (tied / "README.md").read_text())


# OpenP5: lines split at single blanks, IDs in caches under names of three options.


def test_openp5(three: Release, tmp_path: Path) -> None:
    folder = written("openp5", three, tmp_path / "to", token_size="64", cluster="4", last="random")
    cache = "collaborative_indexing_64_4_random.txt"
    read = {path.name: path.read_text("utf-8").split("\n")[:-1] for path in folder.glob("*.txt")}
    items = dict(line.split(" ") for line in read[f"item_{cache}"])
    users = dict(line.split(" ") for line in read["user_indexing.txt"])
    assert list(items) == column(three, "items", "item_id")
    assert list(users) == column(three, "users", "user_id")
    assert list(users.values()) == [str(number + 1) for number in range(len(users))]
    for sid, tokens in zip(column(three, "sids", "sid"), items.values(), strict=True):
        found = re.findall(r"\<.*?\>", tokens)
        assert "".join(found) == tokens
        assert found == [f"<CI{code + 4 * place}>" for place, code in enumerate(sid)]
    names = list(items)
    raw = dict(line.split(" ", 1) for line in read["user_sequence.txt"])
    assert [row.split(" ") for row in raw.values()] == [
        [names[item] for item in row] for row in sequences(three)
    ]
    assert read[f"user_sequence_{cache}"] == [
        " ".join([users[user], *(items[item] for item in row.split(" "))]) for user, row in raw.items()
    ]
    numbered = written("openp5", three, tmp_path / "b", ids="index")
    first = (numbered / "user_sequence.txt").read_text().split("\n")[0]
    assert first == " ".join(map(str, [0, *sequences(three)[0]]))


def test_openp5_refuses_what_its_lines_cannot_hold(unfit: Callable[..., Release], tmp_path: Path) -> None:
    recipe = small_dump(tmp_path / "a")
    ratings = recipe.parent / "dump" / "ratings.dat"
    ratings.write_text(re.sub(r"(?m)^1::", "user one::", ratings.read_text()))
    spaced = run_chain(recipe, tmp_path / "a" / "w").release
    refused("openp5", spaced, tmp_path / "to", r"ids without blanks; got 'user one'.*ids=index")
    written("openp5", spaced, tmp_path / "b", ids="index")
    refused("openp5", unfit(*TIED), tmp_path / "to", "an SID of its own")


# UniGRec: one row a user, all numbers from 1, the trainer expands.


def test_unigrec(four: Release, tmp_path: Path) -> None:
    folder = written("unigrec", four, tmp_path / "to", cf="collaborative")
    for split, less in (("train", 2), ("valid", 1), ("test", 0)):
        frame = pd.read_parquet(folder / f"{split}.parquet")
        assert str(frame["user"].dtype) == str(frame["target"].dtype) == "int64"
        assert frame["user"].tolist() == list(range(1, len(frame) + 1))
        given = [[item + 1 for item in row[: len(row) - less]] for row in sequences(four)]
        assert [
            [*history, target] for history, target in zip(frame["history"], frame["target"], strict=True)
        ] == given
    for file, key, name in (
        ("item_emb_td", "embedding", "text"),
        ("cf_emb_sasrec256", "cf_embedding", "collaborative"),
    ):
        frame = pd.read_parquet(folder / f"{file}.parquet")
        assert frame["ItemID"].tolist() == list(range(1, len(frame) + 1))
        assert (np.stack(frame[key].to_numpy()) == vectors(four, name)).all()
    refused("unigrec", four, tmp_path / "a", "has no embedding 'cf'", cf="cf")


@pytest.mark.parametrize("name", ["lc-rec", "minionerec", "openonerec"])
def test_paths_of_one_vocabulary_have_no_levels(
    name: str, unfit: Callable[..., Release], tmp_path: Path
) -> None:
    paths = unfit("tokenize.tokenizer=sequential")
    refused(name, paths, tmp_path / "to", "a code for each level; got IDs that are paths")


def test_openp5_takes_the_tokens_of_paths_as_they_are(unfit: Callable[..., Release], tmp_path: Path) -> None:
    paths = unfit("tokenize.tokenizer=sequential")
    tokens = column(paths, "sids", "tokens")
    if all(re.fullmatch(r"<[^<>\s]+>", token) for sid in tokens for token in sid):
        folder = written("openp5", paths, tmp_path / "to")
        lines = (folder / "item_collaborative_indexing_500_20_sequential.txt").read_text().split("\n")[:-1]
        assert [line.split(" ")[1] for line in lines] == ["".join(sid) for sid in tokens]
    else:
        refused("openp5", paths, tmp_path / "to", "tokens in angle brackets without blanks")
