"""The catalog: plain DuckDB answers from anywhere, and what is changed aside equals what is built anew."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import QUERY, Run, environment, run_chain, small_dump
from tiny import give_up_root, killed_at, tiny_release
from typer.testing import CliRunner

from sid_warehouse import catalog, garbage, releases, tagging, tags
from sid_warehouse.names import Ref
from sid_warehouse.retention import Rules
from sid_warehouse.verify import verify
from sidmill.cli import app


def ask(warehouse: Path, query: str) -> list[Any]:
    with duckdb.connect(str(warehouse / catalog.NAME), read_only=True) as connection:
        return connection.sql(query).fetchall()


def everything(warehouse: Path) -> dict[str, Any]:
    """Every table and view of the catalog: what it is, its columns, its rows in some total order."""
    found: dict[str, Any] = {}
    with duckdb.connect(str(warehouse / catalog.NAME), read_only=True) as connection:
        schemas = connection.sql("select schema_name from duckdb_schemas() where not internal").fetchall()
        relations = connection.sql(
            "select table_schema, table_name, table_type from information_schema.tables"
        ).fetchall()
        for schema, name, kind in relations:
            relation = connection.sql(f'from "{schema}"."{name}"')
            columns = list(zip(relation.columns, map(str, relation.types), strict=True))
            found[f"{schema}.{name}"] = (kind, columns, sorted(map(repr, relation.fetchall())))
    return {**found, "schemas": sorted(schemas)}


# What others rely on


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
    assert verify(done.release.folder) == []
    tiny_release(folder / "w", "small")
    catalog.refresh(folder / "w")
    with duckdb.connect(str(folder / "w" / "catalog.duckdb"), read_only=True) as connection:
        for schema, items in (("small", 2), ('"small@v2"', 2), ('"small@v1"', 9)):
            assert connection.sql(f"select count(*) from {schema}.sids").fetchall() == [(items,)]
    assert done.release.ref == "small@v1"


def test_older_releases_stay_queryable_and_readers_undisturbed(tmp_path: Path) -> None:
    tiny_release(tmp_path)
    path = catalog.refresh(tmp_path)
    with duckdb.connect(str(path), read_only=True) as reader:
        before = reader.sql("select * from d.sids").fetchall()
        tiny_release(tmp_path)
        catalog.refresh(tmp_path)
        assert reader.sql("select * from d.sids").fetchall() == before
    with duckdb.connect(str(path), read_only=True) as reader:
        assert reader.sql('select * from "d@v1".sids').fetchall() == before
        assert reader.sql("select version from releases where latest").fetchall() == [(2,)]
        history = 'select history from "d@v1".train order by user_index, "end"'
        assert reader.sql(history).fetchall() == reader.sql(history.replace("@v1", "@v2")).fetchall()


def test_a_stale_or_broken_catalog_is_noticed(tmp_path: Path) -> None:
    tiny_release(tmp_path / "first")
    catalog.refresh(tmp_path / "first")
    warehouse = tmp_path / "w"
    shutil.copytree(tmp_path / "first", warehouse)
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
    shutil.rmtree(warehouse / "releases/d/v1")
    assert not catalog.is_current(warehouse)


# Changed aside, not built anew


def publish(warehouse: Path, draw: random.Random) -> None:
    tiny_release(warehouse, draw.choice("de"))


def append(warehouse: Path, draw: random.Random) -> None:
    if there := releases.versions(warehouse, "d"):
        tiny_release(warehouse, "d", base=there[-1])


def tag(warehouse: Path, draw: random.Random) -> None:
    for dataset in releases.datasets(warehouse):
        version = draw.choice(releases.versions(warehouse, dataset))
        tagging.move(warehouse, Ref(dataset, version), draw.choice(["production", "staging"]))


def roll_back(warehouse: Path, draw: random.Random) -> None:
    for dataset in tags.datasets(warehouse):
        if any(one.name == "production" and one.earlier for one in tags.of(warehouse, dataset)):
            tagging.rollback(warehouse, Ref(dataset, tag="production"))


def untag(warehouse: Path, draw: random.Random) -> None:
    for dataset in tags.datasets(warehouse):
        if names := tags.names(warehouse, dataset):
            tagging.remove(warehouse, Ref(dataset), draw.choice(names))


def collect(warehouse: Path, draw: random.Random) -> None:
    garbage.remove(warehouse, Rules(last=draw.choice([1, 2, 3])))


def relocate(warehouse: Path, draw: random.Random) -> None:
    """Move the warehouse; what the path of a test calls it is a link to where it lies."""
    place = warehouse.resolve()
    warehouse.unlink()
    warehouse.symlink_to(place.rename(place.with_name(f"at-{draw.random()}")))


def spoil(warehouse: Path, draw: random.Random) -> None:
    for dataset in releases.datasets(warehouse):
        version = draw.choice(releases.versions(warehouse, dataset))
        (warehouse / f"releases/{dataset}/v{version}/release.json").write_text("{")


def copy_or_view(warehouse: Path, draw: random.Random) -> None:
    catalog.refresh(warehouse, copies=draw.random() < 0.7)


OPERATIONS = [
    publish,
    publish,
    append,
    append,
    tag,
    tag,
    tag,
    roll_back,
    untag,
    collect,
    relocate,
    copy_or_view,
]


def compare_with_a_fresh_one(tmp_path: Path, seed: int, steps: int) -> None:
    draw, place, warehouse = random.Random(seed), tmp_path / "at-first", tmp_path / "w"
    place.mkdir()
    warehouse.symlink_to(place)
    for step in range(steps):
        for operation in draw.choices(OPERATIONS, k=4):
            operation(warehouse, draw)
        if step == steps - 1:
            spoil(warehouse, draw)
        copies = catalog.refresh(warehouse)
        assert catalog.is_current(warehouse)
        changed = everything(warehouse)
        [(state,)] = ask(warehouse, "select value from settings where name = 'state'")
        aside = copies.rename(tmp_path / "aside.duckdb")
        catalog.refresh(warehouse, copies=json.loads(state)["copies"])
        assert changed == everything(warehouse), f"seed {seed}, step {step}"
        aside.replace(copies)


def test_a_changed_catalog_equals_a_fresh_one(tmp_path: Path) -> None:
    compare_with_a_fresh_one(tmp_path, 1, steps=4)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(10, 14))
def test_a_changed_catalog_equals_a_fresh_one_after_many_changes(tmp_path: Path, seed: int) -> None:
    compare_with_a_fresh_one(tmp_path, seed, steps=15)


def test_what_stays_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        tiny_release(tmp_path)
        catalog.refresh(tmp_path)
    tiny_release(tmp_path)
    read = []
    real = releases.read
    monkeypatch.setattr(releases, "read", lambda folder: (read.append(folder.name), real(folder))[1])
    catalog.refresh(tmp_path)
    assert sorted(read) == ["v3", "v4"]  # the new one, and the one that is the latest no more
    read.clear()
    before = (tmp_path / catalog.NAME).stat().st_ino
    catalog.refresh(tmp_path)
    assert (read, (tmp_path / catalog.NAME).stat().st_ino) == ([], before)


def enlarge(folder: Path, rows: int) -> None:
    noise = [f"{random.random()}" for _ in range(rows)]
    table = pa.table({"item_index": range(rows), "item_id": noise, "text": noise})
    part = folder / "items/part-00000.parquet"
    pq.write_table(table, part)
    record = json.loads((folder / "release.json").read_text())
    record["files"]["items/part-00000.parquet"]["bytes"] = part.stat().st_size
    (folder / "release.json").write_text(json.dumps(record))


def test_a_file_that_is_mostly_empty_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "SLACK", 4)
    tiny_release(tmp_path)
    enlarge(tmp_path / "releases/d/v1", rows := 300_000)
    tagging.move(tmp_path, Ref("d", 1), "production")
    tiny_release(tmp_path)
    enlarge(tmp_path / "releases/d/v2", 30_000)
    catalog.refresh(tmp_path)
    large = (tmp_path / catalog.NAME).stat().st_size
    tagging.remove(tmp_path, Ref("d"), "production")  # what lay first in the file is a hole now
    assert (tmp_path / catalog.NAME).stat().st_size < large / 2
    assert ask(tmp_path, 'select count(*) from "d@v1".items') == [(rows,)]


# Copies and views


def test_which_releases_are_copied(tmp_path: Path) -> None:
    def kinds() -> dict[str, str]:
        return dict(ask(tmp_path, "select table_schema, table_type from information_schema.tables "
                                  "where table_name = 'items'"))  # fmt: skip

    for _ in range(3):
        tiny_release(tmp_path)
    tagging.move(tmp_path, Ref("d", 1), "production")
    expected = {
        "d@v1": "BASE TABLE",
        "d@v2": "VIEW",
        "d@v3": "BASE TABLE",
        "d": "VIEW",
        "d@production": "VIEW",
    }
    assert kinds() == expected
    assert ask(tmp_path, "select version, copied, latest, tags from releases") == [
        (1, True, False, ["production"]), (2, False, False, []), (3, True, True, []),
    ]  # fmt: skip
    catalog.refresh(tmp_path, copies=False)
    assert kinds() == dict.fromkeys(expected, "VIEW")
    tiny_release(tmp_path)
    catalog.refresh(tmp_path)  # stays as it is
    assert kinds() == dict.fromkeys([*expected, "d@v4"], "VIEW")
    catalog.refresh(tmp_path, copies=True)
    assert [name for name, kind in kinds().items() if kind == "BASE TABLE"] == ["d@v1", "d@v4"]


def test_the_tables_of_all_releases(tmp_path: Path) -> None:
    first = tiny_release(tmp_path, mark="one")
    tiny_release(tmp_path, mark="two", base=1)
    tagging.move(tmp_path, Ref("d", 1), "production")
    assert ask(tmp_path, "select ref, kind, base, fingerprint, items, problem from releases") == [
        ("d@v1", "build", None, "one", 2, None), ("d@v2", "append", 1, "two", 2, None),
    ]  # fmt: skip
    assert ask(tmp_path, "select dataset, tag, ref, version, fingerprint from tags") == [
        ("d", "production", "d@production", 1, "one")
    ]
    assert ask(tmp_path, "select version, stage, key, params->>'k' from lineage") == [
        (1, "clean", "clean-one", "5"), (2, "clean", "clean-two", "5"),
    ]  # fmt: skip
    assert ask(tmp_path, "select metric, value from metrics where version = 1") == [("collisions.rate", 0.5)]
    assert ask(tmp_path, "select sid_key from d.delta_sids") == [("two-1",)]
    assert ask(tmp_path, "select item_text, history from d.train join d.items on item_index = user_index "
                         "order by user_index") == [("two", [0]), ("two's", [1])]  # fmt: skip
    assert first["version"] == 1


def test_a_moved_folder_answers_and_can_be_mended(tmp_path: Path) -> None:
    for mark in ("one", "two", "three"):
        tiny_release(tmp_path / "w", mark=mark)
    tagging.move(tmp_path / "w", Ref("d", 1), "production")
    moved = (tmp_path / "w").rename(tmp_path / "elsewhere")
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "for schema in sys.argv[2:]:\n"
        "    try: print(*c.sql(f'select min(sid_key) from \"{schema}\".sids').fetchall()[0])\n"
        "    except duckdb.IOException as error: print(str(error)[:28])"
    )

    def plain(*schemas: str) -> list[str]:
        command = [sys.executable, "-c", code, str(moved / catalog.NAME), *schemas]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert plain("d", "d@v3", "d@production") == ["three-0", "three-0", "one-0"]
    assert plain("d@v2") == ["IO Error: No files found that"[:28]]
    assert not catalog.is_current(moved)
    done = CliRunner().invoke(app, ["catalog", "--warehouse", str(moved), "--json"])
    assert json.loads(done.stdout) == {
        "catalog": str(moved / catalog.NAME), "releases": ["d@v1", "d@v2", "d@v3"], "problems": {},
    }  # fmt: skip
    assert plain("d@v2") == ["two-0"]
    assert ask(moved, "select distinct path from releases where version = 3") == [(f"{moved}/releases/d/v3",)]


def test_another_database_can_attach_it(tmp_path: Path) -> None:
    tiny_release(tmp_path, mark="one")
    catalog.refresh(tmp_path)
    with duckdb.connect() as connection:
        connection.execute(f"attach '{tmp_path / catalog.NAME}' as w (read_only)")
        assert connection.sql("select count(*) from w.d.train join w.d.items on true").fetchall() == [(4,)]


# Readers and refreshers at once

READER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
for _ in sys.stdin:
    print(connection.sql("select min(sid_key) from d.sids").fetchall(), flush=True)
"""


def test_a_reader_in_another_process_keeps_what_it_opened(tmp_path: Path) -> None:
    tiny_release(tmp_path, mark="one")
    catalog.refresh(tmp_path)

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", READER, str(tmp_path / catalog.NAME)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(reader: subprocess.Popen[str]) -> str:
        assert reader.stdin
        assert reader.stdout
        reader.stdin.write("?\n")
        reader.stdin.flush()
        return reader.stdout.readline()

    old = start()
    assert answer(old) == "[('one-0',)]\n"
    opened = (tmp_path / catalog.NAME).open("rb")
    content = opened.read()
    tiny_release(tmp_path, mark="two")
    catalog.refresh(tmp_path)
    new = start()
    assert (answer(old), answer(new)) == ("[('one-0',)]\n", "[('two-0',)]\n")
    garbage.remove(tmp_path, Rules(last=1))
    assert (answer(old), answer(new)) == ("[('one-0',)]\n", "[('two-0',)]\n")
    for reader in (old, new):
        reader.communicate()
    opened.seek(0)
    assert opened.read() == content  # also what the reader had not asked for yet
    opened.close()


PUBLISHER = """
import sys
from pathlib import Path
from sid_warehouse import catalog
from tiny import tiny_release
for number in range(2):
    tiny_release(Path(sys.argv[1]), mark=f"{sys.argv[2]}{number}")
    catalog.refresh(Path(sys.argv[1]))
"""


def test_two_processes_refresh_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUBLISHER, str(tmp_path)]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    running = [subprocess.Popen([*command, name], env=path) for name in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    assert catalog.is_current(tmp_path)
    found = {mark for (mark,) in ask(tmp_path, "select fingerprint from releases")}
    assert found == {f"{name}{number}" for name in "ab" for number in range(2)}
    assert len(ask(tmp_path, "from d.items")) == 2


KILLED = """
import pandas  # DuckDB imports it for parameters: once here, not in every fork
from sid_warehouse import catalog, catalog_release
deadly(catalog.shutil, "copyfile")
deadly(catalog, "_change")
deadly(catalog_release, "add")
deadly(catalog, "_say_where")
deadly(catalog.files, "sync")
deadly(Path, "replace")
path = warehouse / catalog.NAME
before = path.read_bytes()
act = lambda: catalog.refresh(warehouse)
look = lambda: path.read_bytes() == before
"""


def test_a_killed_refresh_leaves_the_old_one(tmp_path: Path) -> None:
    tiny_release(tmp_path, mark="one")
    catalog.refresh(tmp_path)
    tiny_release(tmp_path, mark="two")
    calls = (1, 2, 4, 6, 7)  # of copyfile, _change, add twice, _say_where, sync, replace
    assert killed_at(tmp_path, calls, KILLED) == ["-9 True"] * 5
    assert not catalog.is_current(tmp_path)
    assert killed_at(tmp_path, [99], KILLED) == ["0 False"]
    assert catalog.is_current(tmp_path)
    assert ask(tmp_path, "select min(sid_key) from d.sids") == [("two-0",)]


def test_a_full_disk_leaves_the_old_one_and_blames_no_release(tmp_path: Path) -> None:
    tiny_release(tmp_path, mark="one")
    catalog.refresh(tmp_path)
    tiny_release(tmp_path, mark="two")
    enlarge(tmp_path / "releases/d/v2", 300_000)
    before = (tmp_path / catalog.NAME).read_bytes()
    code = (
        "import resource, sys; from pathlib import Path; from sid_warehouse import catalog\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "catalog.refresh(Path(sys.argv[1]))"
    )
    # Refused to Python, which copies the old one; to DuckDB, as it makes a table and at the end.
    for size in (len(before) // 2, len(before) + 300_000, len(before) + 5_000_000):
        command = [sys.executable, "-c", code, str(tmp_path), str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert f"WarehouseError: {tmp_path}" in done.stderr
        assert "cannot be written" in done.stderr.splitlines()[-1]
        assert (tmp_path / catalog.NAME).read_bytes() == before
    catalog.refresh(tmp_path)
    assert ask(tmp_path, "select count(problem), count(*) from releases") == [(0, 2)]


def test_a_read_only_file_in_a_read_only_folder_answers(tmp_path: Path) -> None:
    tiny_release(tmp_path / "w", mark="one")
    tiny_release(tmp_path / "w", mark="two")
    catalog.refresh(tmp_path / "w")
    (tmp_path / "w" / catalog.NAME).chmod(0o444)
    (tmp_path / "w").chmod(0o555)
    code = (
        "import sys; from pathlib import Path; from sid_warehouse import catalog; import duckdb\n"
        "w = Path(sys.argv[1]); print(catalog.is_current(w))\n"
        "c = duckdb.connect(str(w / 'catalog.duckdb'), read_only=True)\n"
        "print(c.sql('select min(sid_key) from d.sids').fetchall(), "
        "c.sql('select min(sid_key) from \"d@v1\".sids').fetchall())\n"
        "c.close(); catalog.refresh(w, copies=False)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "w")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=give_up_root)
    assert done.stdout == "True\n[('two-0',)] [('one-0',)]\n"
    assert f"WarehouseError: {tmp_path / 'w'}: cannot be written (Permission denied)" in done.stderr
    (tmp_path / "w").chmod(0o755)
    catalog.refresh(tmp_path / "w", copies=False)  # the file alone being read-only is no hindrance
    assert ask(tmp_path / "w", "select min(sid_key) from d.sids") == [("two-0",)]


def test_what_somebody_left_in_the_old_one_is_not_played_onto_the_new_one(tmp_path: Path) -> None:
    tiny_release(tmp_path, mark="one")
    catalog.refresh(tmp_path)
    code = (
        "import duckdb, os, signal, sys; c = duckdb.connect(sys.argv[1]); "
        "c.execute('create table mine (a int)'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / catalog.NAME)], check=False)
    assert (tmp_path / f"{catalog.NAME}.wal").exists()
    tiny_release(tmp_path, mark="two")
    catalog.refresh(tmp_path)
    assert ask(tmp_path, "select min(sid_key) from d.sids") == [("two-0",)]


# Releases that somebody spoilt


def rewrite(**changed: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        record = json.loads((folder / "release.json").read_text())
        (folder / "release.json").write_text(json.dumps(record | changed))

    return change


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8") and None  # type: ignore[return-value]


SPOILT: dict[str, Callable[[Path], None]] = {
    "no JSON": write("release.json", "{"),
    "deep JSON": write("release.json", "[" * 100_000),
    "a list": write("release.json", "[]"),
    "a table elsewhere": rewrite(rows={"../v1/items": 2}),
    "a table of SQL": rewrite(rows={'items" as select 1; drop schema d cascade; --': 2}),
    "a table that is not there": rewrite(rows={"items": 2, "vectors": 2}),
    "a dim of SQL": rewrite(embeddings={"embeddings_text": {"dim": "2] as vector) from range(1); --"}}),
    "another dim": rewrite(embeddings={"embeddings_text": {"dim": 3}}),
    "no embeddings": rewrite(embeddings={}),
    "two of a name": rewrite(rows={"train": 2, "train_samples": 2, "sequences": 2}),
    "no time": rewrite(created="'); drop table releases; --"),
    "odd text": rewrite(created="\ud800"),
    "no stages": rewrite(stages=None),
    "no metrics": lambda folder: (folder / "metrics.json").unlink(),
    "odd metrics": write("metrics.json", "[" * 900 + "]" * 900),
    "no Parquet": write("items/part-00000.parquet", "PAR1"),
}


def test_a_spoilt_release_is_left_out_and_breaks_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_release(tmp_path, "d", mark="good")
    folders = {}
    for number, what in enumerate(SPOILT):
        folder = folders[f"e{number}@v1"] = tmp_path / f"releases/e{number}/v1"
        shutil.copytree(tmp_path / "releases/d/v1", folder)
        SPOILT[what](folder)
    catalog.refresh(tmp_path)
    problems = catalog.problems(tmp_path)
    missing = [what for what, ref in zip(SPOILT, folders, strict=True) if ref not in problems]
    assert missing in ([], ["odd metrics"])  # how deep is too deep is Python's to say
    assert all("\n" not in problem and len(problem) < 501 for problem in problems.values())
    assert ask(tmp_path, "select min(sid_key) from d.sids") == [("good-0",)]
    schemas = {name for (name,) in ask(tmp_path, "select schema_name from duckdb_schemas()")}
    assert not [ref for ref in problems if ref in schemas or ref.partition("@")[0] in schemas]
    assert catalog.is_current(tmp_path)
    caplog.clear()
    done = CliRunner().invoke(app, ["catalog", "--warehouse", str(tmp_path)])
    assert f", {len(problems)} left out" in done.stdout
    [said] = [line for line in caplog.messages if line.startswith("e3@v1 ")]
    assert said.startswith(f"e3@v1 is left out of the catalog: {folders['e3@v1']}/release.json: 'rows' holds")
    shutil.rmtree(folders["e3@v1"])
    tiny_release(tmp_path, "e3", mark="mended")
    (folders["e0@v1"] / "release.json").unlink()
    catalog.refresh(tmp_path)
    assert catalog.problems(tmp_path).keys() == problems.keys() - {"e3@v1", "e0@v1"}
    assert ask(tmp_path, "select min(sid_key) from e3.sids") == [("mended-0",)]


def test_a_spoilt_latest_release_is_not_passed_off_as_an_older_one(tmp_path: Path) -> None:
    tiny_release(tmp_path, mark="one")
    tiny_release(tmp_path, mark="two")
    SPOILT["no JSON"](tmp_path / "releases/d/v2")
    catalog.refresh(tmp_path)
    with pytest.raises(duckdb.CatalogException):
        ask(tmp_path, "from d.sids")
    assert ask(tmp_path, 'select min(sid_key) from "d@v1".sids') == [("one-0",)]


def test_a_tag_shows_only_the_release_that_was_tagged(tmp_path: Path) -> None:
    tiny_release(tmp_path, mark="one")
    tagging.move(tmp_path, Ref("d", 1), "production")
    shutil.rmtree(tmp_path / "releases/d/v1")
    tiny_release(tmp_path, mark="another")
    (tmp_path / "tags/d/spoilt.json").write_text('{"version": "1; drop table releases"}')
    catalog.refresh(tmp_path)
    assert ask(tmp_path, "select min(sid_key) from d.sids") == [("another-0",)]
    with pytest.raises(duckdb.CatalogException):
        ask(tmp_path, 'from "d@production".sids')
    tagging.move(tmp_path, Ref("d", 1), "production")
    assert ask(tmp_path, 'select min(sid_key) from "d@production".sids') == [("another-0",)]


def test_is_current_notices_tags(tmp_path: Path) -> None:
    tiny_release(tmp_path)
    tiny_release(tmp_path)
    catalog.refresh(tmp_path)
    tag_ = tags.Tag("d", "production", (tags.Entry(1, "x", "2026-01-01T00:00:00+00:00", "tag"),))
    tags.write(tmp_path, tag_)
    assert not catalog.is_current(tmp_path)
    catalog.refresh(tmp_path)
    assert catalog.is_current(tmp_path)
    tags.remove(tmp_path, "d", "production")
    assert not catalog.is_current(tmp_path)


def test_a_catalog_of_another_format_is_built_anew(tmp_path: Path) -> None:
    tiny_release(tmp_path, mark="one")
    catalog.refresh(tmp_path)
    with duckdb.connect(str(tmp_path / catalog.NAME)) as connection:
        connection.execute("update settings set value = '1' where name = 'format'")
        connection.execute("drop schema d cascade")
    assert not catalog.is_current(tmp_path)
    catalog.refresh(tmp_path)
    assert ask(tmp_path, "select min(sid_key) from d.sids") == [("one-0",)]
