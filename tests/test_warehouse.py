"""The warehouse: outputs whole or absent, releases immutable, the catalog answers from anywhere."""

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import Run, run_chain, small_dump

import sidmill
from sid_schemas import RecipeError, WarehouseError
from sid_schemas.tables import SEQUENCES, TABLES, TEXTS, VALID
from sid_warehouse import files, parquet, releases
from sid_warehouse.names import Ref
from sid_warehouse.reader import Release
from sid_warehouse.stages import StageStore


def texts(n: int, start: int = 0) -> pa.Table:
    index = list(range(start, start + n))
    return pa.table({"item_index": index, "item_id": [str(i) for i in index], "text": ["x"] * n})


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Tables


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [7, 3], [0, 10, 0]])
def test_the_same_rows_give_the_same_bytes_however_they_come(
    tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(parquet, "ROWS_PER_PART", 8)
    parquet.write(tmp_path / "whole", TEXTS, texts(10))
    starts = np.cumsum([0, *sizes])
    batches = [b for n, s in zip(sizes, starts[:-1], strict=True) for b in texts(n, int(s)).to_batches()]
    assert parquet.write(tmp_path / "pieces", TEXTS, batches) == 10
    assert tree(tmp_path / "pieces") == tree(tmp_path / "whole")
    assert [path.name for path in parquet.parts(tmp_path / "whole", "texts")] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert parquet.read(tmp_path / "whole", "texts")["item_index"].to_pylist() == list(range(10))


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    parquet.write(tmp_path, TEXTS, [])
    assert parquet.rows(tmp_path, "texts") == 0
    assert parquet.read(tmp_path, "texts").schema == TEXTS.arrow()


def test_a_null_where_none_may_be_is_refused(tmp_path: Path) -> None:
    table = pa.table({"item_index": [0], "item_id": ["a"], "text": pa.array([None], pa.string())})
    with pytest.raises(ValueError, match="column 'text' holds 1 nulls"):
        parquet.write(tmp_path, TEXTS, table)


@pytest.mark.parametrize("name", TABLES)
def test_every_column_says_what_it_means(name: str) -> None:
    for field in TABLES[name].arrow():
        assert field.metadata[b"description"]
        assert field.type != pa.int64() or b"unit" in field.metadata or field.name == "source_row"


# Stage outputs


def test_a_stage_output_is_whole_or_absent(tmp_path: Path) -> None:
    store = StageStore(tmp_path, "d")

    class KilledError(Exception):
        pass

    def killed() -> None:
        with store.write("text", "key", {}) as draft:
            draft.write(TEXTS, texts(3))
            raise KilledError

    with pytest.raises(KilledError):
        killed()
    assert store.find("text", "key") is None
    with store.write("text", "key", {"params": {"a": 1}}) as draft:
        draft.write(TEXTS, texts(3))
        draft.commit({"n": 3}, "three")
    found = store.find("text", "key")
    assert found is not None
    assert (found.facts, found.manifest["rows"], found.manifest["params"]) == (
        {"n": 3},
        {"texts": 3},
        {"a": 1},
    )
    assert [path.name for path in (tmp_path / "stages/d/text").iterdir()] == ["key"]


def test_two_processes_may_write_the_same_stage(tmp_path: Path) -> None:
    store = StageStore(tmp_path, "d")
    with store.write("text", "key", {}) as one, store.write("text", "key", {}) as two:
        one.write(TEXTS, texts(3))
        two.write(TEXTS, texts(3))
        one.commit({}, "one")
        assert two.commit({}, "two").manifest["summary"] == "one"


def test_a_damaged_stage_output_is_told(tmp_path: Path) -> None:
    store = StageStore(tmp_path, "d")
    with store.write("text", "key", {}) as draft:
        draft.write(TEXTS, texts(3))
        output = draft.commit({}, "")
    part = parquet.parts(output.folder, "texts")[0]
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(WarehouseError, match=r"missing or cut short.*Remove the folder"):
        store.find("text", "key")


def test_what_killed_processes_left_is_swept_and_no_more(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = os.uname().nodename
    for pid in (dead.pid, os.getpid()):
        (tmp_path / f"{files.TEMPORARY}{host}-{pid}-abc").mkdir()
    (tmp_path / f"{files.TEMPORARY}other-host-{dead.pid}-abc").mkdir()
    (tmp_path / "key").mkdir()
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{files.TEMPORARY}{host}-{os.getpid()}-abc",
        f"{files.TEMPORARY}other-host-{dead.pid}-abc",
        "key",
    }


# Releases


def test_a_damaged_stage_file_is_not_published(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    done = run_chain(recipe, tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "releases")
    mapped = done.outputs["sequences"].folder / "sequences.arrow"
    spoilt = bytearray(mapped.read_bytes())
    spoilt[-100] ^= 1
    mapped.write_bytes(spoilt)
    with pytest.raises(WarehouseError, match=r"sequences\.arrow: was damaged after it was written"):
        run_chain(recipe, tmp_path / "w")
    assert releases.versions(tmp_path / "w", "small") == []


def test_a_folder_that_is_no_release_takes_its_number(tmp_path: Path) -> None:
    (tmp_path / "w/releases/d/v1").mkdir(parents=True)
    (tmp_path / "w/releases/d/v1/junk").write_text("")
    (tmp_path / "w/releases/d/v\u00b2").mkdir()
    assert publish(tmp_path / "w", "a")["version"] == 2
    assert releases.versions(tmp_path / "w", "d") == [2]


@pytest.mark.parametrize(
    "text", ["catalog", "../x", "X", "a@1", "a@v0", "a@v1x", "main", "a@", "", "a/b", 'a"b', "1a"]
)
def test_a_reference_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        Ref.parse(text)


def test_references() -> None:
    assert Ref.parse("movie-tweets_2") == Ref("movie-tweets_2")
    assert str(Ref.parse("a@v12")) == "a@v12"


def publish(warehouse: Path, fingerprint: str, content: str = "hello") -> dict[str, object]:
    source = warehouse.parent / f"source-{fingerprint}"
    source.write_text(content)
    return releases.publish(warehouse, "d", {"sub/file.txt": source}, {"fingerprint": fingerprint})


def test_versions_count_up_and_the_same_again_is_a_no_op(tmp_path: Path) -> None:
    warehouse = tmp_path / "w"
    assert [publish(warehouse, mark)["version"] for mark in ("a", "b", "a", "b", "c")] == [1, 2, 1, 2, 3]
    assert releases.versions(warehouse, "d") == [1, 2, 3]
    entry = releases.read(warehouse / "releases/d/v1")["files"]["sub/file.txt"]
    assert entry == files.hashes(warehouse / "releases/d/v1/sub/file.txt")


def test_publishers_at_once_each_get_a_version(tmp_path: Path) -> None:
    warehouse, results = tmp_path / "w", []

    def work(mark: str) -> None:
        results.append(publish(warehouse, mark)["version"])

    threads = [threading.Thread(target=work, args=(f"{n % 6}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {1, 2, 3, 4, 5, 6}
    assert releases.versions(warehouse, "d") == [1, 2, 3, 4, 5, 6]


def test_a_release_is_self_contained(example: Run, tmp_path: Path) -> None:
    shutil.copytree(example.release.folder, tmp_path / "copy")
    release = Release(tmp_path / "copy")
    assert release.table("sids").num_rows == 1_342
    assert release.samples("test")[0]["target"].shape == (3,)


def test_the_tables_have_the_columns_others_rely_on(example: Run) -> None:
    release = example.release
    expected = {"embeddings_text", "items", "users", "interactions", "sequences", "train", "valid", "test"}
    assert set(release.tables) == expected | {"sids", "sid_to_items", "rejects"}
    for name in set(release.tables) - {"embeddings_text"}:
        found, expected_schema = release.table(name).schema, TABLES[name].arrow()
        assert found.equals(expected_schema), name
        assert [field.metadata for field in found] == [field.metadata for field in expected_schema]
    items = release.table("items")
    assert items["item_id"].to_pylist() == sorted(items["item_id"].to_pylist())
    assert items["item_index"].to_pylist() == list(range(1_342))
    vectors = release.table("embeddings_text")["vector"]
    assert vectors.type == pa.list_(pa.float32(), 384)
    norms = np.linalg.norm(np.array(vectors.to_pylist(), dtype=np.float32), axis=1)
    assert np.allclose(norms, 1, atol=1e-5)


def test_the_sids_are_consistent(example: Run) -> None:
    release = example.release
    vocabulary, trie, tokenizer = release.vocabulary, release.trie(), release.tokenizer()
    assert vocabulary.levels == tuple(tokenizer.levels) == (64, 64, 64)
    rows = release.table("sids").to_pylist()
    keys = {row["sid_key"] for row in rows}
    assert len(keys) == len(rows) == 1_342
    for row in rows:
        assert row["sid_key"] == "-".join(map(str, row["sid"]))
        assert row["tokens"] == vocabulary.tokens(row["sid"])
        assert row["text"] == "".join(row["tokens"])
        assert row["token_ids"] == [3 + 64 * level + code for level, code in enumerate(row["sid"])]
        assert trie.item(row["sid"]) == row["item_index"]
        assert row["slot"] == 0
        assert row["suffix"] is None
    back = {row["sid_key"]: row["item_indexes"] for row in release.table("sid_to_items").to_pylist()}
    assert back == {row["sid_key"]: [row["item_index"]] for row in rows}
    X = np.array(release.table("embeddings_text")["vector"].to_pylist(), dtype=np.float32)
    assert tokenizer.encode(X).tolist() == [row["codes"] for row in rows]


def test_release_json_has_the_lineage(example: Run) -> None:
    record = example.release.record
    raw = {file["label"]: file["sha256"] for file in record["raw_files"]}
    data = Path(__file__).parent.parent / "examples/data"
    assert raw == {label: files.sha256(data / label) for label in raw}
    assert list(record["stages"]) == [planned.label for planned in example.plan.stages]
    assert record["recipe"]["tokenize"]["n_init"] == 4  # defaults are spelled out
    assert record["packages"]["duckdb"]
    assert all(gate["check"] and gate["why"] for gate in record["gates"])


def test_the_report_is_one_self_contained_page(example: Run, tmp_path: Path) -> None:
    page = (example.release.folder / "report.html").read_text()
    for words in ("1,342", "k_core", "next-nearest", "182 gate checks hold", "&lt;a_", "leave-one-out"):
        assert words in page
    assert not [word for word in ("src=", "http://", "https://", "url(", "<link") if word in page]
    recipe = small_dump(tmp_path)
    movies = tmp_path / "dump" / "movies.dat"
    movies.write_text(movies.read_text().replace("Film A0", "<script>alert(1)</script>"))
    page = (run_chain(recipe, tmp_path / "w").release.folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


# Readers


def test_opening_what_is_not_there_says_so(small: Run, tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="no warehouse there"):
        sidmill.open(tmp_path / "none")
    warehouse = sidmill.open(small.plan.warehouse)
    with pytest.raises(RecipeError, match="holds no release small@v7; there is: small@v1"):
        warehouse.release("small@v7")
    with pytest.raises(RecipeError, match="holds no release other; there is: small"):
        warehouse.release("other")
    with pytest.raises(
        WarehouseError, match="holds no table 'sid'; there are: embeddings_text, interactions"
    ):
        warehouse.release("small").table("sid")
    with pytest.raises(WarehouseError, match="has no split 'training'; there are: train, valid, test"):
        warehouse.release("small").samples("training")
    with pytest.raises(WarehouseError, match="has no split 'sequences'"):
        warehouse.release("small").samples("sequences")
    assert [release.ref for release in warehouse.releases()] == ["small@v1"]


def test_a_release_of_a_later_format_is_refused(small: Run, tmp_path: Path) -> None:
    shutil.copytree(small.release.folder, tmp_path / "v1")
    record = json.loads((tmp_path / "v1/release.json").read_text())
    (tmp_path / "v1/release.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(WarehouseError, match="expected format 1, got 99"):
        Release(tmp_path / "v1")


def slow_samples(release: Release, split: str, max_history: int) -> list[tuple[list[int], list[int]]]:
    """History and target token ids by walking the interactions table, row by row."""
    tokens = {row["item_index"]: row["token_ids"] for row in release.table("sids").to_pylist()}
    users: dict[int, list[dict[str, object]]] = {}
    for row in release.table("interactions").to_pylist():
        users.setdefault(row["user_index"], []).append(row)
    samples = []
    for user in sorted(users):
        for place, event in enumerate(users[user]):
            if event["split"] == split and place:
                history = [tokens[one["item_index"]] for one in users[user][:place]][-max_history:]
                padding = [0] * 3 * (max_history - len(history))
                samples.append((padding + [t for item in history for t in item], tokens[event["item_index"]]))
    return samples


@pytest.mark.parametrize(("split", "max_history"), [("train", 20), ("valid", 50), ("test", 3)])
def test_samples_are_the_slow_ones(example: Run, split: str, max_history: int) -> None:
    samples = example.release.samples(split, max_history=max_history)
    slow = slow_samples(example.release, split, max_history)
    assert len(samples) == len(slow)
    for found, (history, target) in zip(samples, slow, strict=True):
        assert found["history"].tolist() == history
        assert found["target"].tolist() == target
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_sequences_cross_batch_borders(example: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sid_warehouse import samples as module

    def rows(samples: module.Samples) -> list[tuple[list[int], int]]:
        return [(samples[n]["history"].tolist(), samples[n]["target_item"]) for n in range(len(samples))]

    whole = example.release.samples("valid", max_history=20)
    expected = rows(whole)
    monkeypatch.setattr(parquet, "IPC_BATCH", 100)
    for table in (SEQUENCES, VALID):
        shutil.copytree(example.release.folder / table.name, tmp_path / table.name)
        parquet.write_ipc(tmp_path, table)
    cut = module.Samples(tmp_path, "valid", whole.tokens, pad=0, max_history=20)
    assert rows(cut) == expected


def test_a_data_loader_with_two_workers_iterates(example: Run) -> None:
    import torch
    from torch.utils.data import DataLoader, Dataset

    train = example.release.sequences("train", max_history=20)
    assert isinstance(train, Dataset)
    plain = example.release.samples("train", max_history=20)
    seen = 0
    for context in ("fork", "spawn"):
        loader = DataLoader(train, batch_size=512, num_workers=2, multiprocessing_context=context)
        for batch in loader:
            assert batch["history"].dtype == batch["target"].dtype == torch.int64
            assert batch["history"].shape == (len(batch["target"]), 60)
            assert batch["target"][0].tolist() == plain[seen % len(plain)]["target"].tolist()
            seen += len(batch["target"])
    assert seen == 2 * len(plain) == 2 * 20_396
