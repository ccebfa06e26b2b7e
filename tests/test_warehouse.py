"""The warehouse: outputs whole or absent, releases immutable, the catalog answers from anywhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from helpers import QUERY, Run, environment, run_chain, small_dump

import sidmill
from sid_schemas import RecipeError, WarehouseError
from sid_schemas.tables import SEQUENCES, TABLES, TEXTS, VALID
from sid_warehouse import catalog, files, parquet, releases
from sid_warehouse.names import Ref
from sid_warehouse.reader import Release
from sid_warehouse.stages import StageStore
from sid_warehouse.verify import verify


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
    assert entry == {"bytes": 5, "sha256": files.sha256(warehouse / "releases/d/v1/sub/file.txt")}


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


KILLED = """
import os, signal, sys
from pathlib import Path
from sid_warehouse import files, releases
calls = 0
def deadly(name):
    real = getattr(files, name)
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return wrapper
for name in ("copy_hashed", "sync", "write_json", "rename_folder"):
    setattr(files, name, deadly(name))
warehouse = Path(sys.argv[1])
source = warehouse / "source"
releases.publish(warehouse, "d", {"a": source, "b": source}, {"fingerprint": "new"})
"""


@pytest.mark.parametrize("call", range(1, 12))
def test_a_publisher_killed_anywhere_leaves_the_old_or_the_new_release(tmp_path: Path, call: int) -> None:
    (tmp_path / "source").write_text("hello")
    releases.publish(tmp_path, "d", {"a": tmp_path / "source"}, {"fingerprint": "old"})
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(call)], check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    seen = releases.versions(tmp_path, "d")
    assert seen in ([1], [1, 2])
    assert (seen == [1]) == (call < 9)  # the rename is the 9th call that touches the disk
    assert not any(verify(tmp_path / f"releases/d/v{version}") for version in seen)
    again = releases.publish(tmp_path, "d", {"a": tmp_path / "source"}, {"fingerprint": "new"})
    assert again["version"] == 2


def test_verify_finds_what_is_wrong(example: Run, tmp_path: Path) -> None:
    folder = tmp_path / "v1"
    shutil.copytree(example.release.folder, folder)
    assert verify(folder) == []
    part = folder / "sids" / "part-00000.parquet"
    spoilt = bytearray(part.read_bytes())
    spoilt[100] ^= 1
    part.write_bytes(spoilt)
    (folder / "trie.safetensors").unlink()
    (folder / "stranger").write_text("?")
    shutil.copy(folder / "users/part-00000.parquet", folder / "items/part-00000.parquet")
    found = {finding.file: finding.problem for finding in verify(folder)}
    assert sorted(found) == [
        "items/part-00000.parquet",
        "sids/part-00000.parquet",
        "stranger",
        "trie.safetensors",
    ]
    assert found["sids/part-00000.parquet"].startswith("expected SHA-256")
    assert found["trie.safetensors"] == "is missing"


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
    assert not [word for word in ("<script", "http://", "https://", "url(", "<link") if word in page]
    recipe = small_dump(tmp_path)
    movies = tmp_path / "dump" / "movies.dat"
    movies.write_text(movies.read_text().replace("Film A0", "<script>alert(1)</script>"))
    page = (run_chain(recipe, tmp_path / "w").release.folder / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


# Catalog


def test_plain_duckdb_answers_the_query_from_anywhere(example: Run, tmp_path: Path) -> None:
    path = tmp_path / "moved.duckdb"
    shutil.copy(example.plan.warehouse / "catalog.duckdb", path)
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); "
        "print(c.sql(sys.argv[2]).fetchall()); "
        "print(c.sql('select * from movietweetings.train order by user_index, \"end\" limit 1').fetchall())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), QUERY],
        cwd="/", capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    rows, [train] = map(eval, done.stdout.splitlines())
    assert len(rows) == 5
    assert all(text.startswith("<a_") and title.endswith(")") for text, title in rows)
    _user, start, end, _target, target_ts, _n_targets, history, history_ts = train
    assert (start, end, len(history), len(history_ts)) == (0, 1, 1, 1)
    assert history_ts[0] <= target_ts


def test_the_catalog_has_a_schema_per_release_and_what_made_it(example: Run) -> None:
    with duckdb.connect(str(example.plan.warehouse / "catalog.duckdb"), read_only=True) as connection:
        assert connection.sql('select count(*) from "movietweetings@v1".sids').fetchall() == [(1_342,)]
        assert connection.sql("select ref, latest, items from releases").fetchall() == [
            ("movietweetings@v1", True, 1_342)
        ]
        [(rate,)] = connection.sql(
            "select value from metrics where metric = 'collisions.after.collision_rate'"
        ).fetchall()
        assert rate == 0
        assert ("tokenize", "rq-kmeans") in connection.sql(
            "select stage, params->>'tokenizer' from lineage"
        ).fetchall()
        [(kind,)] = connection.sql(
            "select typeof(vector) from movietweetings.embeddings_text limit 1"
        ).fetchall()
        assert kind == "FLOAT[384]"


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a [b]* "c"'
    done = run_chain(small_dump(folder), folder / "w")
    again = run_chain(folder / "recipe.toml", folder / "w", "tokenize.seed=1")
    assert verify(again.release.folder) == []
    with duckdb.connect(str(folder / "w" / "catalog.duckdb"), read_only=True) as connection:
        for schema in ("small", '"small@v1"', '"small@v2"'):
            assert connection.sql(f"select count(*) from {schema}.sids").fetchall() == [(9,)]
    assert done.release.ref == "small@v1"


def test_older_releases_stay_queryable_and_readers_undisturbed(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    first = run_chain(recipe, tmp_path / "w")
    path = tmp_path / "w" / "catalog.duckdb"
    with duckdb.connect(str(path), read_only=True) as reader:
        before = reader.sql("select * from small.sids").fetchall()
        second = run_chain(recipe, tmp_path / "w", "tokenize.seed=1")
        assert reader.sql("select * from small.sids").fetchall() == before
    assert (first.release.ref, second.release.ref) == ("small@v1", "small@v2")
    with duckdb.connect(str(path), read_only=True) as reader:
        assert reader.sql('select * from "small@v1".sids').fetchall() == before
        assert reader.sql("select version from releases where latest").fetchall() == [(2,)]
        history = 'select history from "small@v1".train order by user_index, "end"'
        assert reader.sql(history).fetchall() == reader.sql(history.replace("@v1", "@v2")).fetchall()


def test_a_stale_or_broken_catalog_is_noticed(small: Run, tmp_path: Path) -> None:
    warehouse = tmp_path / "w"
    shutil.copytree(small.plan.warehouse, warehouse)
    assert not catalog.is_current(warehouse)  # it names the folders it was made for
    catalog.refresh(warehouse)
    assert catalog.is_current(warehouse)
    (warehouse / "catalog.duckdb").write_text("not a database")
    assert not catalog.is_current(warehouse)
    catalog.refresh(warehouse)
    assert catalog.is_current(warehouse)
    moved = tmp_path / "moved"
    warehouse.rename(moved)
    assert not catalog.is_current(moved)
    moved.rename(warehouse)
    shutil.rmtree(warehouse / "releases/small/v1")
    assert not catalog.is_current(warehouse)


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
    monkeypatch.setattr(module, "IPC_BATCH", 100)
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
