"""Suites for own Great Expectations: they hold for the release, fail for a spoilt copy, and stay offline."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import great_expectations as gx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Run, environment, sidmill

from sid_pipelines import suites
from sid_schemas import RecipeError
from sid_warehouse import files

# Whatever asks for a name or a connection away from this process is told by it.
GUARD = """
import socket, sys
asked = []
def refuse(*arguments, **options):
    asked.append(arguments)
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
exec(sys.stdin.read())
print("asked", asked)
"""


@pytest.fixture(scope="module")
def written(small: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suites of the small release."""
    to = tmp_path_factory.mktemp("suites") / "made"
    done = suites.write(small.release.folder, to, small.release.ref)
    assert {one.table for one in done} == {path.name.split(".")[0] for path in to.glob("*.suite.json")}
    return to


def code_of(folder: Path) -> str:
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return str(code)


def test_the_readme_runs_offline_and_all_holds(written: Path) -> None:
    assert len(code_of(written).splitlines()) <= 22
    command = [sys.executable, "-c", GUARD]
    enabled = {**environment(), "GX_ANALYTICS_ENABLED": "true"}
    done = subprocess.run(
        command, input=code_of(written), capture_output=True, text=True, env=enabled, check=True
    )
    assert done.stdout == "asked []\n"
    assert "Calculating Metrics" not in done.stderr


def test_judging_asks_no_network() -> None:
    code = """
from sid_schemas import Check
from sid_schemas.suites import judge
import os
print([one.passed for one in judge([Check("t", "n", "", "why", 0, 0)], {"t": {"n": 1.0}})])
print(os.environ["GX_ANALYTICS_ENABLED"])
"""
    command = [sys.executable, "-c", GUARD]
    done = subprocess.run(command, input=code, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines() == ["[False]", "false", "asked []"]


def test_profiles_are_what_the_gates_measured(small: Run, written: Path) -> None:
    recorded = {(one["table"], one["check"]): one["measured"] for one in small.release.record["gates"]}
    there = {
        (path.name.split(".")[0], name): number
        for path in written.glob("*.profile.json")
        for name, number in files.read_json(path).items()
    }
    assert {key: recorded[key] for key in there} == there
    assert {key[1] for key in recorded.keys() - there.keys()} == {"trie_differs"}


def test_a_spoilt_copy_fails_and_says_why(
    small: Run, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(small.release.folder, tmp_path / "it's a copy")
    [part] = (copy / "sids").glob("*.parquet")
    table = pq.read_table(part)
    keys = pa.array(["0-0-0", *table["sid_key"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.column_names.index("sid_key"), "sid_key", keys), part)
    own = shutil.copytree(written, tmp_path / "own")
    for path in own.glob("*.suite.json"):
        if path.name != "sids.suite.json":
            path.unlink()
    code = code_of(written).replace(repr(str(written)), repr(str(own)))
    exec(code.replace(repr(str(small.release.folder)), repr(str(copy))), {})
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" {")[0] for line in told] == [
        "sids wrong_key sid_key spells out sid",
        "sids no_way_back sid_to_items leads back from the SID and slot to the item",
    ]
    assert "'partial_unexpected_list': [1.0]" in told[0]


def test_leaks_that_only_warn_fail_no_suite(small: Run, tmp_path: Path) -> None:
    """Under user-holdout, what leave-one-out made is a leak."""
    copy = shutil.copytree(small.release.folder, tmp_path / "copy")
    record = files.read_json(copy / "release.json")
    split, gates = record["stages"]["split"], record["stages"]["gates"]
    split["params"] |= {"protocol": "user-holdout", "params": {}}
    leaking: dict[str, list[str]] = {}
    for leakage in ("fail", "warn"):
        gates["params"]["leakage"] = leakage
        (copy / "release.json").unlink()
        files.write_json(copy / "release.json", record)
        suites.write(copy, tmp_path / leakage, "small@v1")
        numbers = files.read_json(tmp_path / leakage / "interactions.profile.json")
        leaking[leakage] = [name for name, number in numbers.items() if name.startswith("leak_") and number]
        assert ("no suite judges them" in (tmp_path / leakage / "README.md").read_text()) is (
            leakage == "warn"
        )
    assert leaking == {"fail": ["leak_train_of_held_out_users"], "warn": []}


def test_a_folder_that_somebody_fills_meanwhile_is_left_alone(
    small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "rename_folder", lambda made, to: False)
    with pytest.raises(RecipeError, match="somebody else wrote there meanwhile"):
        suites.write(small.release.folder, tmp_path / "to", "small@v1")


def test_a_suite_reads_back_with_its_notes_and_a_missing_number_fails(written: Path) -> None:
    told = json.loads((written / "items.suite.json").read_text())
    made = gx.ExpectationSuite(**told)
    assert made.to_json_dict() == told
    notes = {(one.expectation_type, one.column): one.meta["notes"] for one in made.expectations}
    of_gaps = "indexes count 0..N-1 without a gap"
    assert notes["expect_column_values_to_be_between", "item_index_gaps"] == of_gaps
    assert notes["expect_column_values_to_not_be_null", "item_index_gaps"] == of_gaps
    names = [column for _, column in notes]
    assert sorted(set(names)) == sorted(files.read_json(written / "items.profile.json"))


def test_the_sql_runs_alone_on_the_release(small: Run, written: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"set variable release = '{small.release.folder}'")
        relation = connection.sql((written / "train.profile.sql").read_text())
        row = dict(zip(relation.columns, relation.fetchall()[0], strict=True))
    assert row.pop("rows_of_table") == small.release.record["rows"]["train"]
    assert row == files.read_json(written / "train.profile.json")


def test_the_command_writes_whole_folders_and_nothing_over_others(small: Run, tmp_path: Path) -> None:
    place = str(small.plan.warehouse)
    to = tmp_path / "to"
    to.mkdir()
    told = json.loads(sidmill("suites", "small", "--to", str(to), "-w", place, "--json").stdout)
    assert (told["ref"], told["to"]) == ("small@v1", str(to))
    assert {"table": "pairs", "checks": 1} not in told["tables"]
    assert next(one["checks"] for one in told["tables"] if one["table"] == "sids") > 20
    assert [path.name for path in tmp_path.iterdir()] == ["to"]
    with pytest.raises(RecipeError, match="expected a new or an empty folder"):
        suites.write(small.release.folder, to, "small@v1")
    inside = sidmill("suites", "small", "--to", f"{place}/x", "-w", place, check=False)
    assert (inside.returncode, inside.stdout) == (2, "")
    assert "is inside the warehouse" in inside.stderr
