"""Formats of text files: P5's bundle, RecBole's atomic files, HSTU's CSV, ActionPiece's cache."""

import ast
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Run, quickly, run_chain, write_dump

from sid_pipelines.trainers import TRAINERS
from sid_pipelines.trainers.export import export
from sid_schemas import RecipeError
from sid_warehouse.reader import Release

TITLES = (
    '"Quoted" (1999)',
    "NA (2001)",
    "N/A",
    "a,b|c",
    "tab",
    "",
    "\u2028line",
    "['x'] # (2000)",
    "\\ ' \"",
)


def written(form: str, release: Release, to: Path, **given: str) -> Path:
    export(release, TRAINERS[form], to, given)
    return to


def column(release: Release, table: str, name: str) -> list[Any]:
    values: list[Any] = release.table(table, [name])[name].to_pylist()
    return values


def json_at(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def dumped(folder: Path, *overrides: str, ratings: list[str] | None = None) -> Release:
    """Run the chain on a dump whose titles are hostile."""
    draw = np.random.default_rng(1)
    movies = [f"{m:07d}::{title}::{'Drama' if m % 2 else ''}" for m, title in enumerate(TITLES)]
    rows = ratings or [
        f"{user + 1}::{movie:07d}::{movie}::{1_300_000_000 + 60 * place}"
        for user in range(12)
        for place, movie in enumerate(draw.permutation(len(TITLES))[:5].tolist())
    ]
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return run_chain(write_dump(folder, rows, movies), folder / "w", *overrides).release


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return dumped(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return dumped(
        tmp_path_factory.mktemp("timed"), "split.protocol=per-user-ratio", "split.ratios=[0.4, 0.3, 0.3]"
    )


@pytest.mark.parametrize("name", ["hstu", "rqvae-recommender", "recbole", "actionpiece"])
def test_who_splits_by_itself_wants_leave_one_out(name: str, timed: Release, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expects leave-one-out"):
        written(name, timed, tmp_path / "to")
    assert not (tmp_path / "to").exists()


# RQ-VAE-Recommender


@pytest.mark.parametrize("fixture", ["small", "hostile"])
def test_p5_bundle(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = request.getfixturevalue(fixture)
    release = run.release if isinstance(run, Run) else run
    to = written("rqvae-recommender", release, tmp_path / "to", name="beauty") / "raw" / "beauty"
    lines = [list(map(int, line.split())) for line in (to / "sequential_data.txt").read_text().splitlines()]
    users = column(release, "sequences", "items")
    assert lines == [[u + 1, *(item + 1 for item in items)] for u, items in enumerate(users)]
    maps = json_at(to / "datamaps.json")
    ids = column(release, "items", "item_id")
    assert maps["item2id"] == {one: str(i + 1) for i, one in enumerate(ids)}
    assert maps["id2item"] == {str(i + 1): one for i, one in enumerate(ids)}
    assert maps["id2user"]["1"] == column(release, "users", "user_id")[0]
    # A line of bytes each, evaluated; the trainer joins by asin and so drops items that have none.
    metas = [
        ast.literal_eval(line.decode())
        for line in gzip.decompress((to / "meta.json.gz").read_bytes()).splitlines()
    ]
    assert [meta["asin"] for meta in metas] == ids
    titles = column(release, "items", "title")
    for meta, title, path in zip(metas, titles, column(release, "items", "category_path"), strict=True):
        assert meta["title"] == (" ".join((title or "").split()) or meta["asin"])
        assert meta["categories"][0] == path
        assert meta.keys() == {"asin", "title", "brand", "categories", "price"}


# RecBole


def atomic(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a file as pandas does: fields between tabs, double quotes matched."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    assert all(len(row) == len(header) for row in rows)
    return header, [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.parametrize("fixture", ["small", "hostile"])
def test_recbole_atomic(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = request.getfixturevalue(fixture)
    release = run.release if isinstance(run, Run) else run
    to = written("recbole", release, tmp_path / "to")
    header, rows = atomic(to / "small.inter")
    assert header == ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    events = release.table("interactions").to_pylist()
    assert [
        (
            int(r["user_id:token"]),
            int(r["item_id:token"]),
            float(r["rating:float"]),
            float(r["timestamp:float"]),
        )
        for r in rows
    ] == [(e["user_index"], e["item_index"], e["value"], e["ts"] / 1000) for e in events]
    # The trainer's clock is float32 and its sort stable: in file order, times may tie but never go back.
    clock = np.array([float(row["timestamp:float"]) for row in rows], dtype=np.float32)
    users = np.array([int(row["user_id:token"]) for row in rows])
    assert (np.diff(clock)[users[1:] == users[:-1]] >= 0).all()
    header, items = atomic(to / "small.item")
    assert [row["source_item_id:token"] for row in items] == column(release, "items", "item_id")
    assert [row["sid:token_seq"].split(" ") for row in items] == column(release, "sids", "tokens")
    assert len(atomic(to / "small.user")[1]) == len(column(release, "users", "user_id"))
    for line in (to / "config.yaml").read_text().splitlines():
        key, _, value = line.partition(": ")
        assert key.replace("_", "").isalpha()
        json.loads(value)


def test_recbole_split(small: Run, timed: Release, tmp_path: Path) -> None:
    for release in (small.release, timed):
        to = written(
            "recbole", release, tmp_path / release.record["fingerprint"], layout="split", max_history="2"
        )
        users = column(release, "sequences", "items")
        for split in ("train", "valid", "test"):
            header, rows = atomic(to / f"small.{split}.inter")
            assert header == ["user_id:token", "item_id_list:token_seq", "item_id:token"]
            samples = release.table(split).to_pylist()
            assert [list(row.values()) for row in rows] == [
                [str(s["user_index"]), " ".join(map(str, items[-2:])), str(s["target"])]
                for s in samples
                if (items := users[s["user_index"]][s["start"] : s["end"]])
            ]
        assert '"MAX_ITEM_LIST_LENGTH": 2'.replace('"', "") in (to / "config.yaml").read_text()


# HSTU


def lists(path: Path) -> list[dict[str, Any]]:
    """Read the CSV as the trainer does: each list a literal, a single number being a list of one."""
    rows: list[dict[str, Any]] = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            parsed = {key: ast.literal_eval(value) for key, value in row.items()}
            rows.append({key: list(v) if isinstance(v, tuple) else v for key, v in parsed.items()})
    return rows


@pytest.mark.parametrize(
    ("dataset", "folder", "first"), [("ml-1m", "ml-1m", 1), ("amzn-books", "amzn_books", 0)]
)
def test_hstu_rows(small: Run, dataset: str, folder: str, first: int, tmp_path: Path) -> None:
    to = written("hstu", small.release, tmp_path / "to", dataset=dataset)
    rows = lists(to / "tmp" / folder / "sasrec_format.csv")
    for row, stored in zip(rows, small.release.table("sequences").to_pylist(), strict=True):
        assert row["user_id"] == stored["user_index"]
        assert row["sequence_item_ids"] == [item + first for item in stored["items"]]
        assert row["sequence_ratings"] == stored["value"]
        assert row["sequence_timestamps"] == [ts // 1000 for ts in stored["ts"]]
        assert all(type(value) is int for value in row["sequence_ratings"])
    assert (to / "tmp" / "processed").exists() == bool(first)
    assert (
        f"expected_num_unique_items={len(column(small.release, 'items', 'item_id'))}"
        in (to / "README.md").read_text()
    )


def test_hstu_movies_are_texts_to_pandas(hostile: Release, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    to = written("hstu", hostile, tmp_path / "to")
    movies = pandas.read_csv(to / "tmp" / "processed" / "ml-20m" / "movies.csv", delimiter=",")
    assert movies["movie_id"].tolist() == list(range(1, len(movies) + 1))
    for field in ("genres", "cleaned_title"):
        assert all(isinstance(value, str) and value.split("|") for value in movies[field])
    found = dict(
        zip(
            column(hostile, "items", "title"),
            movies[["cleaned_title", "year"]].to_numpy().tolist(),
            strict=True,
        )
    )
    assert found["NA (2001)"] == ["NA ", 2001]
    assert found["N/A"] == ["N/A ", 0]
    assert found['"Quoted" (1999)'] == ['"Quoted"', 1999]


def test_hstu_cuts_no_value_unasked(tmp_path: Path) -> None:
    rows = [f"{u}::{m:07d}::{m}.5::{1_300_000_000 + m}" for u in range(1, 7) for m in range(5)]
    release = dumped(tmp_path, "tokenize.levels=[3, 3]", ratings=rows)
    with pytest.raises(RecipeError, match=r"30 that are negative, too large or not whole.*ratings=cut"):
        written("hstu", release, tmp_path / "to")
    for ratings, expected in (("cut", [0, 1, 2, 3, 4]), ("none", [1] * 5)):
        to = written("hstu", release, tmp_path / ratings, ratings=ratings)
        assert lists(to / "tmp" / "ml-20m" / "sasrec_format.csv")[0]["sequence_ratings"] == expected


# ActionPiece


@pytest.mark.parametrize("fixture", ["small", "hostile"])
def test_actionpiece_cache(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = request.getfixturevalue(fixture)
    release = run.release if isinstance(run, Run) else run
    to = written("actionpiece", release, tmp_path / "to", category="Beauty", model="m") / "cache"
    raw, cache = (to / "AmazonReviews2014" / "Beauty" / one for one in ("raw", "processed"))
    assert {path.name for path in raw.iterdir()} == {"reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"}
    ids, names = column(release, "items", "item_id"), column(release, "users", "user_id")
    users = column(release, "sequences", "items")
    assert json_at(cache / "all_item_seqs.json") == {
        names[user]: [ids[item] for item in items] for user, items in enumerate(users)
    }
    maps = json_at(cache / "id_mapping.json")
    for kind, own in (("item", ids), ("user", names)):
        assert maps[f"id2{kind}"] == ["[PAD]", *own]
        assert maps[f"{kind}2id"] == {one: number for number, one in enumerate(maps[f"id2{kind}"])}
    vectors = np.fromfile(cache / "m.sent_emb", dtype=np.float32).reshape(len(ids), -1)
    assert vectors.tolist() == column(release, "embeddings_text", "vector")
    features = json_at(cache / "item.sentence.feat")
    assert features == dict(zip(ids, column(release, "sids", "sid"), strict=True))
    assert len({tuple(one) for one in features.values()}) == len(ids)
    assert json_at(cache / "m.sem_ids") == dict(zip(ids, column(release, "sids", "codes"), strict=True))
    assert json_at(cache / "metadata.sentence.json").keys() == set(ids)
