"""Tags: moved, listed, rolled back; nothing lost however many move them; read in every reference."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import give_up_root, killed_at, tiny_release
from typer.testing import CliRunner

from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import catalog, releases, tagging, tags
from sid_warehouse.names import Ref, check_tag
from sid_warehouse.reader import Warehouse
from sid_warehouse.tags import Entry, Tag
from sidmill.cli import app


@pytest.fixture
def no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what these tests do not look at, and what takes most of their time."""
    monkeypatch.setattr(catalog, "refresh", lambda warehouse: None)


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """Three releases of `d`, named by their marks."""
    for mark in ("one", "two", "three"):
        tiny_release(tmp_path / "w", mark=mark)
    return tmp_path / "w"


def at(warehouse: Path, ref: str) -> int:
    with Warehouse(warehouse).release(ref) as release:
        return int(release.record["version"])


def told(warehouse: Path, *arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--warehouse", str(warehouse), "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout)


# Names


@pytest.mark.parametrize("name", ["production", "a", "v", "vnext", "latest-good", "x_1", "a" * 40])
def test_names_of_tags(name: str) -> None:
    assert check_tag(name) == name
    assert Ref.parse(f"d@{name}") == Ref("d", tag=name)
    assert str(Ref("d", tag=name)) == f"d@{name}"


@pytest.mark.parametrize(
    "name",
    ["", "latest", "v1", "v0", "v1x", "V1", "Production", "1a", "a" * 41, "a.b", "a/b", "../a", "a\n", "ä"],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(RecipeError, match="expected a lower-case letter"):
        check_tag(name)
    if name != "v1":
        with pytest.raises(RecipeError, match="expected DATASET, DATASET@vN or DATASET@TAG"):
            Ref.parse(f"d@{name}")


# Moving


@pytest.mark.usefixtures("no_catalog")
def test_a_tag_is_moved_and_rolled_back_and_remembers_all(warehouse: Path) -> None:
    for version in (1, 2, 3):
        tagging.move(warehouse, Ref("d", version), "production")
    assert at(warehouse, "d@production") == 3
    ref = Ref("d", tag="production")
    assert tagging.rollback(warehouse, ref).now.version == 2
    assert at(warehouse, "d@production") == 2
    assert tagging.rollback(warehouse, ref).now.version == 1  # on, not to and fro
    with pytest.raises(
        RecipeError, match=r"d@production: is at v1 and cannot roll back.*it was at none"
    ) as told:
        tagging.rollback(warehouse, ref)
    assert "\n" not in str(told.value)
    stored = json.loads((warehouse / "tags/d/production.json").read_text())
    entries = [*stored["history"], stored]
    assert [one["version"] for one in entries] == [1, 2, 3, 2, 1]
    assert [one["fingerprint"] for one in entries] == ["one", "two", "three", "two", "one"]
    assert [one["move"] for one in entries] == ["tag"] * 3 + ["rollback"] * 2
    assert [one["set"] for one in entries] == sorted(one["set"] for one in entries)
    tagging.move(warehouse, Ref("d"), "production")
    assert tagging.rollback(warehouse, ref).now.version == 1


@pytest.mark.usefixtures("no_catalog")
def test_a_rollback_to_a_release_said_earlier(warehouse: Path) -> None:
    for version in (1, 2, 3):
        tagging.move(warehouse, Ref("d", version), "production")
    ref = Ref("d", tag="production")
    for never in (3, 4):
        with pytest.raises(RecipeError, match=f"cannot roll back to v{never}; before, it was at v1, v2"):
            tagging.rollback(warehouse, ref, to=never)
    assert tagging.rollback(warehouse, ref, to=1).now.version == 1
    with pytest.raises(RecipeError, match="it was at none"):
        tagging.rollback(warehouse, ref)


@pytest.mark.usefixtures("no_catalog")
def test_the_same_again_records_nothing(warehouse: Path) -> None:
    first = tagging.move(warehouse, Ref("d", 1), "production")
    assert tagging.move(warehouse, Ref("d", 1), "production") == first


@pytest.mark.usefixtures("no_catalog")
def test_a_tag_can_be_set_from_another_one(warehouse: Path) -> None:
    tagging.move(warehouse, Ref("d", 2), "staging")
    assert tagging.move(warehouse, Ref.parse("d@staging"), "production").now.version == 2


def test_a_removed_tag_is_gone(warehouse: Path) -> None:
    tagging.move(warehouse, Ref("d", 1), "production")
    with pytest.raises(RecipeError, match="expected it at v2, got v1; nothing is removed"):
        tagging.remove(warehouse, Ref("d", 2), "production")
    tagging.remove(warehouse, Ref("d"), "production")
    with pytest.raises(RecipeError, match="holds no tag d@production; there is: none"):
        tagging.remove(warehouse, Ref("d"), "production")
    with pytest.raises(RecipeError, match=r"holds no release d@production; there is: d@v1, d@v2, d@v3$"):
        at(warehouse, "d@production")
    assert catalog.is_current(warehouse)


@pytest.mark.usefixtures("no_catalog")
def test_what_is_no_tag_cannot_be_rolled_back(warehouse: Path) -> None:
    with pytest.raises(RecipeError, match="d@v1: expected a tag, DATASET@TAG"):
        tagging.rollback(warehouse, Ref("d", 1))
    tagging.move(warehouse, Ref("d", 1), "staging")
    with pytest.raises(RecipeError, match="holds no tag d@production; there is: d@staging"):
        tagging.rollback(warehouse, Ref("d", tag="production"))


@pytest.mark.usefixtures("no_catalog")
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_release_with_files_missing_is_not_tagged(warehouse: Path, damage: str) -> None:
    part = warehouse / "releases/d/v1/sids/part-00000.parquet"
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(
        WarehouseError, match=r"sids/part-00000.parquet: missing or cut short; expected \d+ bytes"
    ):
        tagging.move(warehouse, Ref("d", 1), "production")
    assert tags.names(warehouse, "d") == []
    tagging.move(warehouse, Ref("d", 2), "production")
    tagging.move(warehouse, Ref("d", 3), "production")
    shutil.rmtree(warehouse / "releases/d/v2")
    with pytest.raises(RecipeError, match="holds no release d@v2"):
        tagging.rollback(warehouse, Ref("d", tag="production"))
    assert at(warehouse, "d@production") == 3


@pytest.mark.usefixtures("no_catalog")
def test_a_tag_never_says_another_release_of_the_same_number(warehouse: Path) -> None:
    for version in (3, 2):
        tagging.move(warehouse, Ref("d", version), "production")
    tagging.move(warehouse, Ref("d", 3), "staging")
    shutil.rmtree(warehouse / "releases/d/v3")
    with pytest.raises(
        RecipeError, match=r"no release d@staging \(it says v3, which is gone\); there is: d@v1, d@v2"
    ):
        at(warehouse, "d@staging")
    assert tiny_release(warehouse, mark="other")["version"] == 3
    for ask in (
        lambda: at(warehouse, "d@staging"),
        lambda: tagging.rollback(warehouse, Ref("d", tag="production")),
    ):
        with pytest.raises(WarehouseError, match=r"expected fingerprint three.*got other"):
            ask()
    assert at(warehouse, "d@production") == 2


@given(st.lists(st.one_of(st.integers(1, 3), st.just(None)), max_size=12))
def test_rollbacks_undo_like_a_stack(moves: list[int | None]) -> None:
    stack: list[int] = []
    tag = Tag("d", "production", ())
    for move in moves:
        if move is None:
            assert (tag.earlier.version if tag.earlier else None) == (stack[-2] if len(stack) > 1 else None)
            if tag.earlier is None:
                continue
            stack.pop()
            entry = Entry(tag.earlier.version, "", "", "rollback")
        else:
            stack.append(move)
            entry = Entry(move, "", "", "tag")
        tag = Tag("d", "production", (*tag.entries, entry))
        assert [one.version for one in tag.trail] == stack


# Several at once

TAGGER = """
import sys
from pathlib import Path
from sid_warehouse import catalog, tagging
from sid_warehouse.names import Ref
catalog.refresh = lambda warehouse: None
for turn in range(25):
    now = tagging.move(Path(sys.argv[1]), Ref("d", 1 + (turn + int(sys.argv[2])) % 3), "production").now
    print(now.version, now.set)
"""


def test_taggers_at_once_lose_nothing(warehouse: Path) -> None:
    commands = [[sys.executable, "-c", TAGGER, str(warehouse), str(one)] for one in range(2)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    told = {line for process in running for line in process.communicate()[0].splitlines()}
    assert [process.returncode for process in running] == [0, 0]
    tag = tags.read(warehouse, "d", "production")
    assert tag
    assert {f"{entry.version} {entry.set}" for entry in tag.entries} == told
    assert len(tag.entries) >= 25
    assert [entry.set for entry in tag.entries] == sorted(entry.set for entry in tag.entries)


KILLED = """
from sid_warehouse import files, tags
deadly(files, "write_json")
deadly(files, "sync")
deadly(Path, "replace")
tag = tags.read(warehouse, "d", "production")
act = lambda: tags.write(warehouse, tags.Tag("d", "production", (*tag.entries, tag.entries[0])))
look = lambda: len(tags.read(warehouse, "d", "production").entries)
"""


def test_a_killed_tagger_leaves_the_old_tag_or_the_new_one(tmp_path: Path) -> None:
    tag = Tag("d", "production", tuple(Entry(version, "", "2026-01-01", "tag") for version in (1, 2)))
    tags.write(tmp_path, tag)
    calls = range(1, 6)  # write_json, sync, replace, sync, none
    assert killed_at(tmp_path, calls, KILLED) == ["-9 2", "-9 2", "-9 2", "-9 3", "0 3"]


WHOLE = {"version": 1, "fingerprint": "one", "set": "2026-01-01", "move": "tag", "history": []}


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"version": 1},
        WHOLE | {"version": "1"},
        WHOLE | {"version": True},
        WHOLE | {"version": 10**9},
        WHOLE | {"fingerprint": 1},
        WHOLE | {"fingerprint": "\ud800"},
        WHOLE | {"set": "then"},
        WHOLE | {"move": "push"},
        WHOLE | {"history": [{}]},
        WHOLE | {"history": None},
        WHOLE | {"more": 1},
    ],
)
def test_a_damaged_tag_is_told_and_disturbs_nothing_else(tmp_path: Path, value: Any) -> None:
    warehouse = tmp_path
    tiny_release(warehouse, mark="one")
    (warehouse / "tags/d").mkdir(parents=True)
    (warehouse / "tags/d/production.json").write_text(json.dumps(WHOLE))
    assert at(warehouse, "d@production") == 1
    (warehouse / "tags/d/production.json").write_text(json.dumps(value))
    with pytest.raises(WarehouseError, match=r"tags/d/production.json: is no tag"):
        at(warehouse, "d@production")
    assert at(warehouse, "d") == 1


def test_a_warehouse_without_write_permission_is_one_line(warehouse: Path) -> None:
    warehouse.chmod(0o555)
    command = [sys.executable, "-m", "sidmill", "tag", "d@v1", "production", "-w", str(warehouse)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=give_up_root)
    warehouse.chmod(0o755)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"sidmill: {warehouse}: cannot be written (Permission denied)")


# Commands


def test_the_commands(warehouse: Path) -> None:
    done = CliRunner().invoke(app, ["tag", "d@v2", "production", "-w", str(warehouse)])
    assert done.stdout == "d@production is d@v2\n"
    moved = told(warehouse, "tag", "d", "production")
    assert (moved["tag"], moved["release"], moved["version"], len(moved["history"])) == (
        "d@production", "d@v3", 3, 1,
    )  # fmt: skip
    assert [one["tag"] for one in told(warehouse, "tags")] == ["d@production"]
    assert told(warehouse, "tags", "e") == []
    assert told(warehouse, "show", "d@production")["version"] == 3
    assert told(warehouse, "rollback", "d@production")["release"] == "d@v2"
    said = CliRunner().invoke(app, ["tags", "-w", str(warehouse)]).stdout.splitlines()
    assert said[1].split()[:2] == ["d@production", "d@v2"]
    assert said[1].endswith("v2, v3")
    assert told(warehouse, "tag", "d", "production", "--remove")["release"] == "d@v2"
    assert told(warehouse, "tags") == []
    with pytest.raises(RecipeError, match="--to two: expected a version, as in v2"):
        told(warehouse, "rollback", "d@production", "--to", "two")
    assert releases.versions(warehouse, "d") == [1, 2, 3]
    assert not list((warehouse / "tags/d").iterdir())
