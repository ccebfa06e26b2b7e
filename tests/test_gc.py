"""gc: what no release, tag, reader or run needs goes, whole and at once; everything else stays."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny import killed_at, tiny_release
from typer.testing import CliRunner

from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import catalog, files, garbage, locks, releases, tagging, tags
from sid_warehouse.names import Ref
from sid_warehouse.reader import Release, Warehouse
from sid_warehouse.retention import Rules
from sid_warehouse.samples import Samples
from sidmill.cli import app

DAY = 86_400
REFRESH = catalog.refresh


@pytest.fixture(autouse=True)
def no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what all tests but the last do not look at, and what takes most of their time."""
    monkeypatch.setattr(catalog, "refresh", lambda warehouse: None)


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def stays(found: garbage.Found) -> dict[str, list[str]]:
    return {kept.ref: kept.why for kept in found.keep}


def goes(found: garbage.Found, what: str = "release") -> list[str]:
    return [piece.name for piece in found.remove if piece.what == what]


def stage(warehouse: Path, key: str, *, days: float, name: str = "d/clean", size: int = 100) -> Path:
    folder = warehouse / "stages" / name / key
    (folder / "rows").mkdir(parents=True)
    (folder / "rows/part-00000.parquet").write_bytes(bytes(size))
    (folder / "manifest.json").write_text("{}")
    age(folder / "manifest.json", days)
    return folder


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def old(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")


# Which releases stay


def test_without_a_rule_no_release_goes(tmp_path: Path) -> None:
    for _ in range(3):
        tiny_release(tmp_path, created=old(900))
    found = garbage.remove(tmp_path, Rules())
    assert goes(found) == []
    assert stays(found)["d@v1"] == ["neither --keep-last nor --keep-days"]
    assert releases.versions(tmp_path, "d") == [1, 2, 3]


def test_the_newest_the_young_and_the_tagged_stay(tmp_path: Path) -> None:
    for days in (90, 80, 70, 60, 50, 1):
        tiny_release(tmp_path, created=old(days))
    for version in (1, 2, 3):
        tagging.move(tmp_path, Ref("d", version), "production")
    tiny_release(tmp_path, "e", created=old(90))
    assert goes(garbage.find(tmp_path, Rules(last=1))) == ["d@v1", "d@v4", "d@v5"]
    assert goes(garbage.find(tmp_path, Rules(last=2))) == ["d@v1", "d@v4"]
    assert goes(garbage.find(tmp_path, Rules(days=55))) == ["d@v1", "d@v4"]
    assert goes(garbage.find(tmp_path, Rules(days=65))) == ["d@v1"]
    assert goes(garbage.find(tmp_path, Rules(last=4, days=0))) == ["d@v1"]
    found = garbage.find(tmp_path, Rules(last=2, days=55))
    assert stays(found) == {
        "d@v2": ["where tag production rolls back to"],
        "d@v3": ["tag production"],
        "d@v5": ["one of the newest 2", "younger than 55 days"],
        "d@v6": ["the latest", "one of the newest 2", "younger than 55 days"],
        "e@v1": ["the latest", "one of the newest 2"],
    }
    assert {piece.why for piece in found.remove} == {
        "not one of the newest 2, older than 55 days, no tag, no reader"
    }
    assert garbage.remove(tmp_path, Rules(last=2, days=55)).remove == found.remove
    assert releases.versions(tmp_path, "d") == [2, 3, 5, 6]
    assert not list(tmp_path.rglob(f"{files.TEMPORARY}*"))
    assert tagging.rollback(tmp_path, Ref("d", tag="production")).now.version == 2


def test_the_latest_stays_whatever_its_age_and_numbers_are_not_used_again(tmp_path: Path) -> None:
    for _ in range(3):
        tiny_release(tmp_path, created=old(900))
    assert goes(garbage.remove(tmp_path, Rules(last=1, days=0))) == ["d@v1", "d@v2"]
    assert tiny_release(tmp_path)["version"] == 4
    assert goes(garbage.remove(tmp_path, Rules(days=0))) == ["d@v3"]
    assert tiny_release(tmp_path)["version"] == 5


def test_the_base_of_what_stays_stays_but_not_the_whole_chain(tmp_path: Path) -> None:
    for version in range(5):
        tiny_release(tmp_path, base=version or None)
    found = garbage.find(tmp_path, Rules(last=1))
    assert goes(found) == ["d@v1", "d@v2", "d@v3"]
    assert stays(found)["d@v4"] == ["base of v5"]


def test_an_age_that_cannot_be_read_is_no_age(tmp_path: Path) -> None:
    for created in ("long ago", None, 5):
        tiny_release(tmp_path, created=created)
    tiny_release(tmp_path)
    assert goes(garbage.find(tmp_path, Rules(days=1))) == []


def test_what_cannot_be_read_stays_and_all_that_it_may_need(tmp_path: Path) -> None:
    for _ in range(3):
        tiny_release(tmp_path)
    (tmp_path / "releases/d/v1/release.json").write_text("{")
    stage(tmp_path, "unknown", days=99)
    stage(tmp_path, "unknown", days=99, name="e/clean")
    found = garbage.remove(tmp_path, Rules(last=1))
    assert (goes(found), goes(found, "stage")) == (["d@v2"], ["e/clean/unknown"])
    assert stays(found)["d@v1"] == ["it cannot be read: see `sidmill verify`"]
    (tmp_path / "tags/d").mkdir(parents=True)
    (tmp_path / "tags/d/production.json").write_text("{")
    with pytest.raises(WarehouseError, match=r"production\.json"):
        garbage.remove(tmp_path, Rules(last=1))


# Readers

READER = """
import sys
from sid_warehouse import Warehouse
held = [Warehouse(sys.argv[1]).release(ref) for ref in sys.argv[2:]]
print("open", flush=True)
for line in sys.stdin:
    held.pop().close() if line == "close\\n" else held.clear()
    print("done", flush=True)
"""


@contextmanager
def reader(warehouse: Path, *refs: str) -> Iterator[Any]:
    command = [sys.executable, "-c", READER, str(warehouse), *refs]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout

        def say(word: str) -> None:
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        assert process.stdout.readline() == "open\n"
        yield process, say
        process.kill()


def test_what_another_process_reads_stays_until_it_lets_go(tmp_path: Path) -> None:
    for _ in range(5):
        tiny_release(tmp_path)
    with reader(tmp_path, "d@v1", "d@v2", "d@v3") as (process, say):
        found = garbage.remove(tmp_path, Rules(last=1))
        assert goes(found) == ["d@v4"]
        assert [stays(found)[f"d@v{version}"] for version in (1, 2, 3)] == [["a reader holds it"]] * 3
        say("close")
        assert goes(garbage.remove(tmp_path, Rules(last=1))) == ["d@v3"]
        say("forget")
        assert goes(garbage.find(tmp_path, Rules(last=1))) == ["d@v1", "d@v2"]
        with reader(tmp_path, "d@v1") as (other, _):
            assert goes(garbage.find(tmp_path, Rules(last=1))) == ["d@v2"]
            other.send_signal(signal.SIGKILL)
            other.wait()
            assert goes(garbage.find(tmp_path, Rules(last=1))) == ["d@v1", "d@v2"]
        assert process.poll() is None


def test_a_forked_worker_holds_what_its_parent_had_open(tmp_path: Path) -> None:
    for _ in range(2):
        tiny_release(tmp_path)
    release = Warehouse(tmp_path).release("d@v1")
    ours, theirs = socket.socketpair()
    if not (worker := os.fork()):
        theirs.recv(1)  # as a DataLoader's worker: alive, and ends without any clean-up
        os._exit(0)
    release.close()
    assert goes(garbage.find(tmp_path, Rules(last=1))) == []
    ours.send(b"!")
    os.waitpid(worker, 0)
    assert goes(garbage.find(tmp_path, Rules(last=1))) == ["d@v1"]
    ours.close()
    theirs.close()


def test_a_release_is_held_by_name_and_let_go_in_every_way(tmp_path: Path) -> None:
    for _ in range(2):
        tiny_release(tmp_path)
    warehouse = Warehouse(tmp_path)

    def free() -> bool:
        return goes(garbage.find(tmp_path, Rules(last=1))) == ["d@v1"]

    release = warehouse.release("d@v1")
    assert not free()
    copy = pickle.loads(pickle.dumps(release))  # noqa: S301 (ours)
    release.close()
    release.close()
    assert not free()
    del copy
    assert free()
    with warehouse.release("d@v1") as release:
        assert not free()
    assert free()
    assert release.table("sids").num_rows == 2  # closed, and as good as before
    release = warehouse.release("d@v1")
    del release
    assert free()
    assert Release(tmp_path / "releases/d/v1").ref == "d@v1"


def test_a_listing_holds_no_descriptors(tmp_path: Path) -> None:
    for _ in range(5):
        tiny_release(tmp_path)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    listed = Warehouse(tmp_path).releases()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert len(listed) == 5
    assert len(goes(garbage.find(tmp_path, Rules(last=1)))) == 4


def test_samples_hold_their_release(tmp_path: Path) -> None:
    for _ in range(2):
        tiny_release(tmp_path)
    release = Warehouse(tmp_path).release("d@v1")
    for name in ("sequences", "train"):
        table = release.table(name)
        with pa.ipc.new_file(release.folder / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    samples = Samples(release.folder, "train", np.zeros((2, 1), np.int32), pad=0, max_history=3)
    del release
    assert stays(garbage.remove(tmp_path, Rules(last=1)))["d@v1"] == ["a reader holds it"]
    sent = pickle.loads(pickle.dumps(samples))  # noqa: S301 (ours)
    del samples
    assert goes(garbage.find(tmp_path, Rules(last=1))) == []
    assert sent[1]["user_index"] == 1
    del sent
    assert goes(garbage.remove(tmp_path, Rules(last=1))) == ["d@v1"]


def test_a_release_that_is_removed_while_it_is_opened_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        tiny_release(tmp_path)
    real = locks.fcntl.flock

    def late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(locks.fcntl, "flock", real)
        garbage.remove(tmp_path, Rules(last=1))
        real(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    with pytest.raises(WarehouseError, match="v1: was removed while it was opened"):
        Warehouse(tmp_path).release("d@v1")


def test_a_reader_that_comes_after_the_search_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        tiny_release(tmp_path)
    held = []
    real = garbage.find

    def late(*arguments: Any, **options: Any) -> garbage.Found:
        found = real(*arguments, **options)
        held.append(Warehouse(tmp_path).release("d@v1"))
        return found

    monkeypatch.setattr(garbage, "find", late)
    found = garbage.remove(tmp_path, Rules(last=1))
    assert (goes(found), stays(found)["d@v1"]) == (["d@v2"], ["a reader holds it"])
    assert held[0].table("sids").num_rows == 2


# Runs


def test_a_run_keeps_everything(tmp_path: Path) -> None:
    for _ in range(2):
        tiny_release(tmp_path)
    leave = stage(tmp_path, "unused", days=99)
    with locks.building(tmp_path), locks.building(tmp_path):
        with pytest.raises(
            WarehouseError, match="a run is under way; expected none while something is removed"
        ):
            garbage.remove(tmp_path, Rules(last=1))
        assert goes(garbage.find(tmp_path, Rules(last=1))) == ["d@v1"]  # to look is no harm
    assert leave.exists()
    assert goes(garbage.remove(tmp_path, Rules(last=1))) == ["d@v1"]


def test_where_there_are_no_locks_nothing_is_removed_but_all_else_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    for _ in range(2):
        tiny_release(tmp_path)
    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    with locks.building(tmp_path):
        assert Warehouse(tmp_path).release("d@v1").ref == "d@v1"
    tagging.move(tmp_path, Ref("d", 1), "production")
    tagging.remove(tmp_path, Ref("d"), "production")
    assert goes(garbage.find(tmp_path, Rules(last=1))) == []
    with pytest.raises(WarehouseError, match="has no locks"):
        garbage.remove(tmp_path, Rules(last=1))


# Stage outputs, leftovers, caches


def test_outputs_that_no_release_that_stays_was_made_from(tmp_path: Path) -> None:
    for mark in ("one", "two"):
        tiny_release(tmp_path, mark=mark)
        stage(tmp_path, f"clean-{mark}", days=99)
    stage(tmp_path, "ingest-all", days=99, name="d/ingest")
    stage(tmp_path, "unused", days=8)
    stage(tmp_path, "young", days=6)
    broken = stage(tmp_path, "broken", days=0)
    (broken / "manifest.json").unlink()
    age(broken, 8)
    found = garbage.find(tmp_path, Rules())
    assert goes(found, "stage") == ["d/clean/broken", "d/clean/unused"]
    assert goes(garbage.find(tmp_path, Rules(), stage_days=5), "stage") == [
        "d/clean/broken", "d/clean/unused", "d/clean/young",
    ]  # fmt: skip
    found = garbage.remove(tmp_path, Rules(last=1))  # what the release had goes with it
    assert goes(found, "stage") == ["d/clean/broken", "d/clean/clean-one", "d/clean/unused"]
    left = sorted(path.name for path in (tmp_path / "stages").glob("*/*/*"))
    assert left == ["clean-two", "ingest-all", "young"]


def test_what_killed_processes_left(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = socket.gethostname()
    names = {
        f"{host}-{dead.pid}-aa": True,
        f"{host}-{os.getpid()}-aa": False,
        f"elsewhere-{dead.pid}-old": True,
        f"elsewhere-{dead.pid}-new": False,
    }
    for place in ("", "releases/d", "stages/d/clean", "tags/d", "cache/vectors/ab", "cards/d"):
        for name in names:
            path = tmp_path / place / f"{files.TEMPORARY}{name}"
            path.mkdir(parents=True)
            (path / "half").write_bytes(bytes(10))
            age(path, 8 if name.endswith("old") else 6)
    found = garbage.remove(tmp_path, Rules())
    assert (len(found.remove), found.bytes) == (12, 120)
    left = {path.name.removeprefix(files.TEMPORARY) for path in tmp_path.rglob(f"{files.TEMPORARY}*")}
    assert left == {name for name, gone in names.items() if not gone}


def test_what_tasks_of_runs_that_ended_gave_each_other(tmp_path: Path) -> None:
    stage(tmp_path, "aa", days=0)
    for name, days in (("clean-aa-01", 0), ("clean-bb-01", 8), ("embed_text-cc-01", 6), ("clean-dd-01", 8)):
        task = tmp_path / "scratch/d" / name / "events/cut/00000"
        task.mkdir(parents=True)
        (task / "done.json").write_bytes(bytes(10))
        for folder in (task.parent, task.parent.parent, task.parent.parent.parent):
            age(folder, days)
    age(tmp_path / "scratch/d/clean-dd-01/events/cut", 1)  # a task ended yesterday
    found = garbage.remove(tmp_path, Rules())
    assert goes(found, "leftover") == ["scratch/d/clean-aa-01", "scratch/d/clean-bb-01"]
    assert {piece.why for piece in found.remove} == {
        "the output that its tasks were to make is there", "no task of its run has ended for 8 days"
    }  # fmt: skip
    left = {path.name for path in (tmp_path / "scratch/d").iterdir()}
    assert left == {"embed_text-cc-01", "clean-dd-01"}


def test_vectors_of_encoders_that_no_release_was_made_with(tmp_path: Path) -> None:
    made = {
        "encoder": "minilm",
        "weights": "ab",
        "precision": "fp32",
        "device": "cpu",
        "packages": {"torch": "2"},
    }
    image = {"encoder": "onnx", "weights": "cd", "packages": {}, "batch": 8}
    facts = {
        "embeddings_text": {"dim": 2, "options": {}, **made},
        "embeddings_image": {"dim": 2, "encoder": image},
        "embeddings_cf": {"dim": 2, "model": "als", "encoder": "none", "weights": ""},
    }
    tiny_release(tmp_path, embeddings=facts)
    identities: dict[str, Any] = {
        "text": {"format": 1, **made, "prompt": "", "batches": {"tokens": 5}},
        "image": {"format": 1, **image},
        "weights": {"format": 1, **made, "weights": "xx"},
        "batch": {"format": 1, **image, "batch": 9},
        "young": {"format": 1, "encoder": "other"},
    }
    for name, identity in identities.items():
        folder = tmp_path / "cache/vectors" / name
        folder.mkdir(parents=True)
        (folder / "identity.json").write_text(json.dumps(identity))
        (folder / "shard.safetensors").write_bytes(bytes(1000))
        age(folder, 6 if name == "young" else 8)
    assert garbage.find(tmp_path, Rules()).remove == []
    found = garbage.remove(tmp_path, Rules(), cache=True)
    assert goes(found, "cache") == ["batch", "weights"]
    assert found.bytes > 2000
    assert sorted(path.name for path in (tmp_path / "cache/vectors").iterdir()) == ["image", "text", "young"]


def test_files_of_several_names_are_free_with_the_last(tmp_path: Path) -> None:
    for _ in range(3):
        tiny_release(tmp_path)
    shared = tmp_path / "releases/d/v1/shared.bin"
    shared.write_bytes(bytes(1_000_000))
    os.link(shared, tmp_path / "releases/d/v2/shared.bin")
    both = garbage.find(tmp_path, Rules(last=1))
    assert [piece.bytes > 1_000_000 for piece in both.remove] == [False, True]
    assert both.bytes < 1_100_000
    tagging.move(tmp_path, Ref("d", 2), "production")
    one = garbage.find(tmp_path, Rules(last=1))
    assert (goes(one), one.bytes < 100_000) == (["d@v1"], True)
    assert [kept.bytes > 1_000_000 for kept in one.keep] == [True, False]
    garbage.remove(tmp_path, Rules(last=1))
    assert (tmp_path / "releases/d/v2/shared.bin").stat().st_size == 1_000_000


# Nothing outside the warehouse


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    outside, warehouse = tmp_path / "outside", tmp_path / "w"
    for _ in range(3):
        tiny_release(warehouse)
        tiny_release(outside)
    stage(outside, "unused", days=99)
    dead = subprocess.Popen(["true"])
    dead.wait()
    name = f"{files.TEMPORARY}{socket.gethostname()}-{dead.pid}-aa"
    (outside / name).mkdir()
    (outside / name / "file").write_text("precious")
    (warehouse / "releases/e").symlink_to(outside / "releases/d")  # a whole data set
    (warehouse / "releases/d/v9").symlink_to(outside / "releases/d/v1")
    shutil.rmtree(warehouse / "releases/d/v1")
    (warehouse / "releases/d/v1").symlink_to(outside / "releases/d/v2")  # a release that may go
    (warehouse / "releases/d/v2/more").symlink_to(outside)  # inside one
    (warehouse / "stages").symlink_to(outside / "stages")
    (warehouse / "cache").symlink_to(outside)
    (warehouse / name).symlink_to(outside / name)
    before = tree(outside)
    found = garbage.remove(warehouse, Rules(last=1), cache=True, stage_days=0)
    assert (goes(found), goes(found, "leftover")) == (["d@v1", "d@v2", "d@v3"], [name])
    assert goes(found, "stage") == goes(found, "cache") == []
    assert stays(found)["e@v1"] == ["it lies behind a symbolic link"]
    assert tree(outside) == before
    assert not (warehouse / "releases/d/v1").is_symlink()
    assert not (warehouse / name).is_symlink()


# Whole and at once

KILLED = """
from sid_warehouse import catalog, garbage, releases
from sid_warehouse.retention import Rules
catalog.refresh = lambda warehouse: None
deadly(Path, "rename")
deadly(os, "unlink")
def look():
    there = releases.versions(warehouse, "d")
    for version in there:
        folder = warehouse / f"releases/d/v{version}"
        assert all((folder / name).is_file() for name in releases.read(folder)["files"])
    return there, (warehouse / "stages/d/clean/unused").exists()
act = lambda: garbage.remove(warehouse, Rules(last=1))
"""


def test_a_killed_gc_leaves_each_release_whole_or_gone(tmp_path: Path) -> None:
    for _ in range(3):
        tiny_release(tmp_path)
    stage(tmp_path, "unused", days=99)
    calls = (
        1,
        2,
        2,
        6,
    )  # a rename each: of v1; of v2, after v1; of the output, after v2; while files are deleted
    assert killed_at(tmp_path, calls, KILLED) == [
        "-9 ([1, 2, 3], True)",
        "-9 ([2, 3], True)",
        "-9 ([3], True)",
        "-9 ([3], False)",
    ]
    assert list(tmp_path.rglob(f"{files.TEMPORARY}*"))
    garbage.remove(tmp_path, Rules(last=1))
    assert not list(tmp_path.rglob(f"{files.TEMPORARY}*"))


def test_the_command_lists_and_removes_on_yes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "refresh", REFRESH)
    for mark in ("one", "two", "three", "four"):
        tiny_release(tmp_path, mark=mark)
    tagging.move(tmp_path, Ref("d", 2), "production")
    stage(tmp_path, "unused", days=9, size=1_000)
    arguments = ["gc", "--keep-last", "1", "--warehouse", str(tmp_path)]
    before = tree(tmp_path)
    said = CliRunner().invoke(app, arguments).stdout
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert tree(tmp_path) == before
    assert (told["dry_run"], [piece["name"] for piece in told["remove"]]) == (
        True, ["d@v1", "d@v3", "d/clean/unused"],
    )  # fmt: skip
    assert told["bytes"] == sum(piece["bytes"] for piece in told["remove"]) > 1_000
    assert {kept["ref"]: kept["why"] for kept in told["keep"]} == {
        "d@v2": ["tag production"], "d@v4": ["the latest", "one of the newest 1"],
    }  # fmt: skip
    assert f"nothing is removed yet; with --yes {told['bytes']:,} bytes are free again" in said
    assert all(word in said for word in ("d@v1", "d/clean/unused", "9 days old", "tag production"))
    done = json.loads(CliRunner().invoke(app, [*arguments, "--yes", "--json"]).stdout)
    assert done == told | {"dry_run": False}
    assert catalog.is_current(tmp_path)
    assert "nothing to remove" in CliRunner().invoke(app, [*arguments, "--yes"]).stdout
    with pytest.raises(RecipeError, match="holds no release d@v1; there is: d@v2, d@v4, d@production"):
        Warehouse(tmp_path).release("d@v1")
    assert CliRunner().invoke(app, ["gc", "--keep-last", "0", "-w", str(tmp_path)]).exit_code == 2
    assert tags.names(tmp_path, "d") == ["production"]
