"""What retrieval, graph and serving trainers demand of their files, restated.

Whose own code ran on our files is in docs/verified; the contract of all formats is in test_trainers.py.
"""

import csv
import gzip
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import Run, quickly, run_chain, small_dump
from scipy import sparse

from sid_pipelines.chunks import TEST, TRAIN, VALID
from sid_pipelines.trainers import TRAINERS
from sid_pipelines.trainers.export import export
from sid_pipelines.trainers.feed import Feed, User
from sid_pipelines.trainers.formats import prism, setrec
from sid_pipelines.trainers.writing.npz import ones_file
from sid_pipelines.trainers.writing.plain_pickle import array_file, dict_file, matrix_file
from sid_schemas import RecipeError
from sid_warehouse.reader import Release

HOSTILE = 'Tab\there, "quoted"; it\'s [x] <a_1>\u2028 end,'
CF = '[[embed]]\n[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'


def made(folder: Path, *overrides: str) -> Release:
    recipe = small_dump(folder, movies=14, users=24)
    movies = folder / "dump" / "movies.dat"
    movies.write_text(movies.read_text().replace("Film C2", HOSTILE), encoding="utf-8")
    recipe.write_text(recipe.read_text().replace("[tokenize]\n", f"{CF}[tokenize]\n"))
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return run_chain(recipe, folder / "w", *overrides).release


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Leave-one-out, three levels, vectors of behaviour too, and one title that would break many files."""
    return made(tmp_path_factory.mktemp("three"), "tokenize.levels=[4, 4, 4]", "tokenize.vectors=text")


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Users held out whole, four levels."""
    split = "split={protocol='user-holdout', ratios=[0.6, 0.2, 0.2], fold_in=0.6}"
    folder = tmp_path_factory.mktemp("held")
    return made(folder, "tokenize.levels=[2, 3, 2, 3]", "tokenize.vectors=text", split)


def files_of(release: Release, form: str, to: Path, **given: str) -> Path:
    export(release, TRAINERS[form], to / form, given)
    return to / form


def refused(release: Release, form: str, to: Path, **given: str) -> str:
    with pytest.raises(RecipeError) as caught:
        export(release, TRAINERS[form], to / "refused", given)
    assert not (to / "refused").exists()
    return str(caught.value)


def of(user: User, label: int) -> list[int]:
    items: list[int] = user.items[user.split == label].tolist()
    return items


def lines(path: Path) -> dict[int, list[int]]:
    rows = [[int(one) for one in line.split(" ")] for line in path.read_text().splitlines()]
    assert all(len(row) > 1 for row in rows)
    return {row[0]: row[1:] for row in rows}


def unpickled(path: Path) -> Any:
    """Load as the trainer does, but with no class or function: these files name none."""

    class Plain(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            raise AssertionError(f"{path.name} names {module}.{name}")

    with path.open("rb") as file:
        return Plain(file).load()


# Serving


def test_flashrec_has_every_sid_as_comma_joined_codes(three: Release, tmp_path: Path) -> None:
    folder = files_of(three, "flashrec", tmp_path)
    catalog = json.loads((folder / "catalog.json").read_text())
    codes = [[int(one) for one in key.split(",")] for key in catalog]
    assert codes == sorted(codes)
    ids = dict(zip(*(three.table("sids")[name].to_pylist() for name in ("item_id", "sid")), strict=True))
    assert {one["pid"]: [int(c) for c in key.split(",")] for key, of in catalog.items() for one in of} == ids
    ended = files_of(three, "flashrec", tmp_path / "ended", boundary="true")
    keys = json.loads((ended / "catalog.json").read_text())
    assert [f"{key},1" for key in catalog] == list(keys)
    assert "/4,4,4,2`" in (ended / "README.md").read_text()


# Samples for anyone


def test_hf_opens_with_its_own_library(three: Release, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder, cache = str(files_of(three, "hf", tmp_path)), str(tmp_path / "cache")
    samples = datasets.load_dataset(folder, cache_dir=cache)
    assert list(samples) == ["train", "validation", "test"]
    items = datasets.load_dataset(folder, "items", split="train", cache_dir=cache)
    assert items["item_id"][:] == Feed(three).item_ids
    assert any("Tab\there" in (title or "") for title in items["title"])
    sids = datasets.load_dataset(folder, "sids", split="train", cache_dir=cache)
    tokens = three.table("sids")["token_ids"].to_pylist()
    assert sids["token_ids"][:] == tokens
    for split, ours in (("train", "train"), ("validation", "valid"), ("test", "test")):
        rows = iter(samples[split])
        for batch in Feed(three).samples(ours, max_history=50):
            for _, target, history in batch:
                row = next(rows)
                assert (row["target"], row["history"]) == (target, history.tolist())
                assert row["labels"] == tokens[target]
                assert row["input_ids"] == [one for item in history for one in tokens[item]]


def test_merlin_rows_are_samples_with_what_happened(three: Release, tmp_path: Path) -> None:
    folder = files_of(three, "merlin", tmp_path, max_history="3")
    schema = (folder / "schema.pbtxt").read_text()
    table = pq.read_table(folder / "test" / "part_0.parquet")
    assert [
        line.split('"')[1] for line in schema.splitlines() if line.startswith("  name")
    ] == table.column_names
    categories = {name: int(n) for n, name in list(csv.reader((folder / "category.csv").open()))[1:]}
    firsts = [(row or [""])[0] for row in three.table("items")["category_path"].to_pylist()]
    rows = table.to_pylist()
    for user, row in zip(Feed(three).users(), rows, strict=True):
        assert row["user"] == user.index + 1
        assert row["target"] == user.items[-1] + 1
        assert row["item_list"] == (user.items[-4:-1] + 1).tolist()
        assert row["category_list"] == [categories.get(firsts[item], 0) for item in user.items[-4:-1]]
        assert row["age_hours_list"] == pytest.approx((user.ts[-1] - user.ts[-4:-1]) / 3_600_000)
        assert set(row["event_type_list"]) == {1} == {row["target_event_type"]}  # ratings
        assert len(row["sid_list"]) == 9


# Graphs and clicks


def test_ngcf_has_train_edges_alone_in_train(three: Release, tmp_path: Path) -> None:
    folder = files_of(three, "ngcf", tmp_path)
    train, test = lines(folder / "train.txt"), lines(folder / "test.txt")
    for user in Feed(three).users():
        assert sorted(train[user.index]) == sorted(of(user, TRAIN))
        assert test[user.index] == of(user, TEST)
    assert not set.intersection(*({(u, i) for u in x for i in x[u]} for x in (train, test)))
    names = (folder / "item_list.txt").read_text().splitlines()
    assert names[0] == "org_id remap_id"
    assert names[1] == f"{Feed(three).item_ids[0]} 0"


def test_alpharec_numbers_have_no_gap_and_rows_follow_them(
    held: Release, three: Release, tmp_path: Path
) -> None:
    folder = files_of(three, "alpharec", tmp_path)
    parts = [lines(folder / "cf_data" / f"{split}.txt") for split in ("train", "valid", "test")]
    assert sorted(parts[0]) == list(range(len(parts[0])))
    items = {item for part in parts for row in part.values() for item in row}
    assert items == set(range(len(items)))
    matrix = np.load(folder / "item_info" / "item_cf_embeds_large3_array.npy")
    assert len(matrix) == len(items)
    vectors = np.concatenate(list(Feed(three).vectors("text")))
    named = [
        line.rsplit(" ", 1) for line in (folder / "cf_data" / "item_list.txt").read_text().splitlines()[1:]
    ]
    for item_id, number in named:
        assert np.array_equal(matrix[int(number)], vectors[Feed(three).item_ids.index(item_id)])
    for form in ("alpharec", "ngcf"):
        assert "events of users who train; got none (user-holdout)" in refused(held, form, tmp_path)


def test_mult_vae_folds_in_what_it_does_not_predict(held: Release, tmp_path: Path) -> None:
    folder = files_of(held, "mult-vae", tmp_path)
    columns = (folder / "pro_sg" / "unique_sid.txt").read_text().splitlines()
    rows = (folder / "pro_sg" / "unique_uid.txt").read_text().splitlines()
    feed = Feed(held)
    users = {user.id: user for user in feed.users()}
    start = 0
    for name, label in (("train", TRAIN), ("validation", VALID), ("test", TEST)):
        parts = ["train"] if name == "train" else [f"{name}_tr", f"{name}_te"]
        seen = {}
        for part in parts:
            read = np.loadtxt(
                folder / "pro_sg" / f"{part}.csv", delimiter=",", skiprows=1, dtype=int, ndmin=2
            )
            matrix = sparse.load_npz(folder / f"{part}.npz")
            plain = sparse.csr_matrix((np.ones(len(read)), (read[:, 0] - start, read[:, 1])), matrix.shape)
            assert (matrix != plain).nnz == 0
            assert matrix.has_canonical_format
            assert set(matrix.data) == {1.0}
            seen[part] = matrix
        for row in range(matrix.shape[0]):
            user = users[rows[start + row]]
            whole = {feed.item_ids[item] for item in user.items} & set(columns)
            mine = [{columns[c] for c in seen[part][row].indices} for part in parts]
            assert set.union(*mine) == whole
            assert label in user.split
            if len(mine) == 2:
                assert not mine[0] & mine[1]
                assert mine[1]
        start += matrix.shape[0]
    assert len(set(rows)) == len(rows) == start
    trained = {feed.item_ids[item] for user in feed.users() for item in of(user, TRAIN)}
    assert columns == sorted(trained, key=feed.item_ids.index)


def test_mult_vae_takes_no_other_split(three: Release, tmp_path: Path) -> None:
    assert "protocol user-holdout; got leave-one-out" in refused(three, "mult-vae", tmp_path)


# Pickles and object arrays


def test_recgpt_reads_lists_of_numbers(held: Release, three: Release, tmp_path: Path) -> None:
    data = files_of(held, "recgpt", tmp_path, fill="true") / "data"
    feed = Feed(held)
    train = unpickled(data / "pre_train" / "train.pkl")
    assert train == {user.index: of(user, TRAIN) for user in feed.users() if of(user, TRAIN)}
    tokens = unpickled(data / "pre_train" / "token_id_list.pkl")
    assert tokens == feed.sids.tolist()
    assert {len(row) for row in tokens} == {4}
    test = unpickled(data / "small" / "test.pkl")
    batches = [
        (row, *one) for batch in feed.samples("test") for row, one in zip(batch.row, batch, strict=True)
    ]
    assert test == {row: [*history.tolist(), target] for row, _, target, history in batches}
    assert unpickled(data / "eval" / "eval_id_map.pkl") == {item: item for item in range(feed.n_items)}
    matrix = np.load(data / "pre_train" / "all_item_text_embeddings.npy")
    assert matrix.shape == (feed.n_items, 768)
    assert np.array_equal(matrix[:, :384], np.concatenate(list(feed.vectors("text"))))
    assert not matrix[:, 384:].any()
    assert "vectors of 768 numbers; got 384" in refused(held, "recgpt", tmp_path)
    assert "SIDs of 4 codes; got 3" in refused(three, "recgpt", tmp_path, fill="true")


def test_setrec_reads_object_arrays_and_a_tensor(
    three: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    assert "behaviour vectors of 64 numbers; got 4" in refused(three, "setrec", tmp_path)
    assert "has no embedding 'cf'" in refused(three, "setrec", tmp_path, cf="cf")
    monkeypatch.setattr(setrec, "CF_WIDTH", 4)
    folder, feed = files_of(three, "setrec", tmp_path), Feed(three)
    read = [np.load(folder / name, allow_pickle=True).item() for name in setrec.FILES]
    for user in feed.users():
        assert [part[user.index] for part in read] == [of(user, label) for label in (TRAIN, VALID, TEST)]
    with (folder / "SASRec_item_embed.pkl").open("rb") as file:
        tensor = pickle.load(file)  # noqa: S301 - of our own making, as the trainer reads it
    assert torch.equal(tensor, torch.tensor(np.concatenate(list(feed.vectors("collaborative")))))
    assert tensor.dtype == torch.float32
    warm, cold = (set(np.load(folder / f"{name}_item.npy").tolist()) for name in ("warm", "cold"))
    assert warm == {item for items in read[0].values() for item in items}
    assert warm | cold == set(range(max(warm) + 1))


def test_pickles_of_our_own_making_hold_any_number(tmp_path: Path) -> None:
    rows = {0: [], -1: [2**31 - 1, -(2**31)], "é\n": [256]}
    assert dict_file(tmp_path / "a.pkl", rows.items()) == 3
    assert unpickled(tmp_path / "a.pkl") == rows
    array_file(tmp_path / "a.npy", rows.items())
    assert np.load(tmp_path / "a.npy", allow_pickle=True).item() == rows
    with pytest.raises(ValueError, match="expected numbers of 32 bits"):
        dict_file(tmp_path / "b.pkl", [(0, [2**31])])
    with pytest.raises(ValueError, match="expected 8 bytes of numbers, got 4"):
        matrix_file(tmp_path / "c.pkl", (2, 1), [[[1.0]]])


def test_a_matrix_of_ones_is_scipys(tmp_path: Path) -> None:
    ones_file(tmp_path / "m.npz", 5, np.array([2, 0, 1]), [[0, 4], [], [3]])
    expected = [[1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    assert sparse.load_npz(tmp_path / "m.npz").toarray().tolist() == expected
    with pytest.raises(ValueError, match="indices: expected 16 bytes, got 8"):
        ones_file(tmp_path / "n.npz", 5, np.array([2]), [[0]])


# Generative retrieval


def test_colarec_counts_from_one(three: Release, tmp_path: Path) -> None:
    folder, feed = files_of(three, "colarec", tmp_path), Feed(three)
    corpus = json.loads((folder / "corpus_512.json").read_text())
    assert list(corpus) == [str(item + 1) for item in range(feed.n_items)]
    assert [one["cid"] for one in corpus.values()] == (feed.sids + 1).tolist()
    assert all("\t" not in one["content"] and "\u2028" not in one["content"] for one in corpus.values())
    rows = list(csv.DictReader((folder / "train_time_inter.csv").open()))
    for user in feed.users():
        mine = [(int(r["item_id"]) - 1, int(r["time"])) for r in rows if int(r["user_id"]) == user.index + 1]
        assert mine == list(zip(of(user, TRAIN), user.ts[user.split == TRAIN].tolist(), strict=True))
    for name, label in (("valid", VALID), ("test", TEST)):
        pairs = [tuple(map(int, r)) for r in list(csv.reader((folder / f"{name}_inter.csv").open()))[1:]]
        assert pairs == [(user.index + 1, item + 1) for user in feed.users() for item in of(user, label)]
    near = json.loads((folder / "cid_neg_dict.json").read_text())
    for item, one in corpus.items():
        alike = [int(k) for k, v in corpus.items() if v["cid"][:2] == one["cid"][:2] and k != item]
        assert near[item]["sec"] == alike


def test_colarec_wants_three_codes(small: Run, tmp_path: Path) -> None:
    assert "SIDs of 3 codes; got 2" in refused(small.release, "colarec", tmp_path)


def packed(path: Path) -> Iterator[list[str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        yield from (line.rstrip("\n").split("\t") for line in file)


def test_ddro_numbers_begin_after_t5(three: Release, tmp_path: Path) -> None:
    folder, feed = files_of(three, "ddro", tmp_path), Feed(three)
    docids = dict(
        line.split("\t") for line in (folder / "encoded_docid" / "pq_docid.txt").read_text().splitlines()
    )
    assert {name: [int(one) for one in text.split(",")] for name, text in docids.items()} == {
        f"[d{item}]": [32128 + 4 * place + code for place, code in enumerate(sid)]
        for item, sid in enumerate(feed.sids.tolist())
    }
    docs = [json.loads(line) for line in (folder / "docs.json").read_text().split("\n")[:-1]]
    assert [one["docid"] for one in docs] == [f"d{item}" for item in range(feed.n_items)]
    assert all(type(one["sents"]) is list and one["title"] for one in docs)
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        queries = dict(packed(folder / f"{name}-queries.tsv.gz"))
        qrels = [row[0].split(" ") for row in packed(folder / f"{name}-qrels.tsv.gz")]
        assert [row[0] for row in qrels] == list(queries)
        triples = [line.split("\t") for line in (folder / f"{name}-triples.tsv").read_text().splitlines()]
        samples = [one for batch in feed.samples(split, max_history=10) for one in batch if len(one[2])]
        users = {user.index: set(user.items.tolist()) for user in feed.users()}
        for (user, target, history), rel, triple in zip(samples, qrels, triples, strict=True):
            assert queries[rel[0]] == " ; ".join(feed.titles[item] for item in history)
            assert rel[1:] == ["0", f"D{target}", "1"]
            assert triple[:2] == [rel[0], f"D{target}"]
            assert int(triple[2][1:]) not in users[user]
            assert f"[{triple[2].lower()}]" in docids
    assert "events with a query; got none" in refused(three, "ddro", tmp_path, query="search")


def test_hype_rows_have_every_path(three: Release, tmp_path: Path) -> None:
    assert "a table 'item_paths'" in refused(three, "hype", tmp_path)
    recipe = small_dump(tmp_path, movies=14, users=24)
    recipe.write_text(recipe.read_text().split("[tokenize]")[0])
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        overrides = ("tokenize.tokenizer=category-path", "tokenize.flat=true", "tokenize.max_depth=2")
        release = run_chain(recipe, tmp_path / "w", *overrides).release
    folder, feed = files_of(release, "hype", tmp_path / "to"), Feed(release)
    paths = release.table("item_paths", ["item_index", "path", "text"]).to_pylist()
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    docids = json.loads((folder / "docids.json").read_text())
    bare = set(range(feed.n_items)) - {one["item_index"] for one in paths}
    assert bare  # films without a genre
    texts = {(one["item_index"], one["text"]) for one in paths} | {
        (i, f"[DOC] {docids[str(i)]}") for i in bare
    }
    assert {(row["item"], row["target"]) for row in rows} <= texts
    documents = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
    assert {(row["item"], row["target"]) for row in documents} == texts
    for row in (json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()):
        assert row["target"] == f"[DOC] {docids[str(row['item'])]}"
    assert all(target.endswith(docids[str(item)]) for item, target in texts)
    steps = {tuple(json.loads(line)) for line in (folder / "hierarchy.jsonl").read_text().splitlines()}
    for one in paths:
        assert set(zip(one["path"][:-1], one["path"][1:], strict=True)) <= steps
    assert feed.n_items == len(docids)


def test_prism_counts_items_from_one(three: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "behaviour vectors of 64 numbers; got 4" in refused(three, "prism", tmp_path)
    monkeypatch.setattr(prism, "CF_WIDTH", 4)
    folder, feed = files_of(three, "prism", tmp_path), Feed(three)
    codes = json.loads((folder / "semantic_id_mappings.json").read_text())["item_to_codes"]
    assert codes == {str(item): sid for item, sid in enumerate(feed.sids.tolist(), 1)}
    for name, end in (("train", -3), ("valid", -2), ("test", -1)):
        rows = {row["user"]: row for row in pq.read_table(folder / f"{name}.parquet").to_pylist()}
        for user in feed.users():
            assert rows[user.index]["history"] == (user.items[:end] + 1).tolist()
            assert rows[user.index]["target"] == user.items[end] + 1
    items = pq.read_table(folder / "item_emb.parquet").to_pylist()
    vectors = np.concatenate(list(feed.vectors("text")))
    assert np.array_equal([row["attribute_embedding"] for row in items], vectors)
    named = np.load(folder / "tag_mapping.npy", allow_pickle=True).item()
    tags = pq.read_table(folder / "tag_embeddings.parquet").to_pylist()
    assert {row["tag_text"]: row["tag_id"] for row in tags} == named
    for row in tags:
        mine = [row["tag_id"] in item["category_tag_ids"] for item in items]
        assert np.allclose(row["tag_embedding"], vectors[mine].mean(axis=0), atol=1e-6)
    assert all(
        [named[text] for text in row["category_tag_texts"]] == row["category_tag_ids"] for row in items
    )
    scores = [row["popularity_score"] for row in items]
    assert (min(scores), max(scores)) == (0, 1)
    collaborative = np.load(folder / "lightgcn" / "item_embeddings_collab.npy")
    assert not collaborative[0].any()
    assert np.array_equal(collaborative[1:], np.concatenate(list(feed.vectors("collaborative"))))
