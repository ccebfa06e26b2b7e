"""verify: whatever was changed in a release is found and named, by its bytes or by its promises."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Run, environment, inside, more_dump, run_append

from sid_pipelines.recheck import Rechecked, deviations, holds, recheck
from sid_schemas import Check, WarehouseError
from sid_schemas.suites import judge
from sid_warehouse import files, releases
from sid_warehouse.verify import Finding, verify

MIB = 1 << 20


@pytest.fixture
def copy(small: Run, tmp_path: Path) -> Path:
    """A copy of a small release, to be spoilt at will."""
    shutil.copytree(small.release.folder, tmp_path / "v1")
    return tmp_path / "v1"


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        [byte] = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def forge(folder: Path, *names: str) -> None:
    """Make release.json say that these files are as they are now, as one would who hides a change."""
    record = json.loads((folder / "release.json").read_text())
    for name in names:
        record["files"][name] = files.hashes(folder / name)
    (folder / "release.json").write_text(json.dumps(record))


def rewrite(folder: Path, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    name = f"{table}/part-00000.parquet"
    made = pq.read_table(folder / name)
    pq.write_table(change(made), folder / name)
    forge(folder, name)


def swap(one: str, other: str) -> Callable[[pa.Table], pa.Table]:
    """Give what swaps the data of two columns, under the schema they have."""

    def swapped(table: pa.Table) -> pa.Table:
        columns = {name: table[name] for name in table.column_names}
        columns[one], columns[other] = columns[other], columns[one]
        return pa.table(columns, schema=table.schema)

    return swapped


# Hashes


def large(tmp_path: Path, size: int = 5 * MIB + 5) -> Path:
    """Publish one large file of noise; give the release's folder."""
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(size))
    record = {"fingerprint": "f", "rows": {}, "stages": {}}
    releases.publish(tmp_path / "w", "d", {"noise": tmp_path / "noise"}, record)
    return tmp_path / "w" / "releases" / "d" / "v1"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (0, "bytes 0 to 1048575"),
        (MIB + 7, "bytes 1048576 to 2097151"),
        (5 * MIB - 1, "bytes 4194304 to 5242879"),
        (5 * MIB + 4, "bytes 5242880 to 5242884"),
    ],
)
def test_one_flipped_bit_is_told_to_the_mebibyte(tmp_path: Path, place: int, said: str) -> None:
    folder = large(tmp_path)
    assert verify(folder) == []
    flip(folder / "noise", place)
    [finding] = verify(folder)
    assert finding.file == "noise"
    assert finding.problem.startswith("expected SHA-256 ")
    assert finding.problem.endswith(f"first bad in {said}")


def test_the_first_of_several_bad_blocks_is_told(tmp_path: Path) -> None:
    folder = large(tmp_path)
    for place in (4 * MIB, 2 * MIB, 2 * MIB + 1):
        flip(folder / "noise", place)
    [finding] = verify(folder)
    assert finding.problem.endswith("first bad in bytes 2097152 to 3145727, and 1 more blocks of 1 MiB")


@pytest.mark.parametrize("size", [0, MIB, 5 * MIB + 4, 5 * MIB + 6])
def test_a_file_of_another_size_is_told(tmp_path: Path, size: int) -> None:
    folder = large(tmp_path)
    os.truncate(folder / "noise", size)
    assert verify(folder) == [Finding("noise", f"expected {5 * MIB + 5} bytes, got {size}")]


def test_a_release_older_than_checksums_is_verified_too(tmp_path: Path) -> None:
    folder = large(tmp_path)
    record = json.loads((folder / "release.json").read_text())
    del record["files"]["noise"]["blocks"]
    (folder / "release.json").write_text(json.dumps(record))
    assert verify(folder) == []
    flip(folder / "noise", MIB)
    [finding] = verify(folder)
    assert "..., got " in finding.problem
    assert "bad" not in finding.problem


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_copying_linking_and_hashing_tell_the_same(tmp_path: Path, size: int) -> None:
    import zlib

    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "a").write_bytes(data)
    expected = {
        "bytes": size,
        "sha256": files.sha256(tmp_path / "a"),
        "blocks": "".join(f"{zlib.crc32(data[n : n + MIB]):08x}" for n in range(0, size, MIB)),
    }
    assert files.hashes(tmp_path / "a") == expected
    assert files.copy_hashed(tmp_path / "a", tmp_path / "b/copy") == expected
    assert files.link_hashed(tmp_path / "a", tmp_path / "c/link") == expected
    assert (tmp_path / "c/link").samefile(tmp_path / "a")
    assert (tmp_path / "b/copy").read_bytes() == data


@pytest.mark.parametrize("number", sorted(files.UNLINKABLE))
def test_what_cannot_be_linked_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(source))

    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setattr(os, "link", refuse)
    assert files.link_hashed(tmp_path / "a", tmp_path / "b") == files.hashes(tmp_path / "a")
    assert not (tmp_path / "b").samefile(tmp_path / "a")


def test_a_link_is_to_the_file_and_never_over_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "symbolic").symlink_to("a")
    files.link_hashed(tmp_path / "symbolic", tmp_path / "b")
    assert not (tmp_path / "b").is_symlink()
    with pytest.raises(FileExistsError):
        files.link_hashed(tmp_path / "a", tmp_path / "b")


# The folder


def test_everything_that_is_wrong_is_found(copy: Path) -> None:
    assert verify(copy) == []
    flip(copy / "sids/part-00000.parquet", 100)
    (copy / "trie.safetensors").unlink()
    (copy / "stranger").write_text("?")
    (copy / "users/part-00001.parquet").write_text("?")
    found = {finding.file: finding.problem for finding in verify(copy)}
    assert sorted(found) == [
        "sids/part-00000.parquet",
        "stranger",
        "trie.safetensors",
        "users/part-00001.parquet",
    ]
    assert "first bad in bytes 0 to " in found["sids/part-00000.parquet"]
    assert found["trie.safetensors"] == "is missing"
    assert found["stranger"] == "is not part of the release"


def test_what_a_symbolic_link_stands_for_is_no_part_of_a_release(copy: Path, tmp_path: Path) -> None:
    (copy / "trie.safetensors").rename(tmp_path / "elsewhere")
    (copy / "trie.safetensors").symlink_to(tmp_path / "elsewhere")
    (copy / "users").rename(tmp_path / "users")
    (copy / "users").symlink_to(tmp_path / "users")
    (copy / "dangling").symlink_to("nowhere")
    found = {finding.file: finding.problem for finding in verify(copy)}
    assert sorted(found) == ["dangling", "trie.safetensors", "users"]
    assert all("is a symbolic link to" in problem for problem in found.values())


def test_a_record_that_says_nonsense_is_told(copy: Path) -> None:
    record = json.loads((copy / "release.json").read_text())
    record["files"]["../x"] = record["files"]["trie.safetensors"]
    (copy / "release.json").write_text(json.dumps(record))
    with pytest.raises(WarehouseError, match=r"release\.json: 'files'"):
        verify(copy)


def test_a_record_that_is_cut_short_is_told(copy: Path) -> None:
    os.truncate(copy / "release.json", 100)
    with pytest.raises(WarehouseError, match=r"release\.json: cannot be read as JSON"):
        verify(copy)


# Schemas


def test_parquet_that_cannot_be_parsed_is_a_finding(copy: Path) -> None:
    name = "sids/part-00000.parquet"
    (copy / name).write_bytes(b"PAR1 but not really")
    forge(copy, name)
    found = verify(copy)
    assert found[0].file == name
    assert "cannot be read as Parquet" in found[0].problem
    assert found[1] == Finding("sids", "expected 9 rows, got 0")


SHAPES: list[tuple[str, Callable[[pa.Table], pa.Table], str]] = [
    ("sids", lambda table: table.drop_columns(["slot"]), "expected columns ["),
    ("users", lambda table: table.set_column(0, "user_index", pa.array(range(12))), "as user_index int64"),
    (
        "embeddings_text",
        lambda table: table.drop_columns(["vector"]),
        "expected columns of a table of sidmill",
    ),
    (
        "embeddings_text",
        lambda table: table.set_column(2, "vector", pa.array(range(9))),
        "expected columns of a table of sidmill",
    ),
    ("test", lambda table: table.slice(1), "expected 12 rows, got 11"),
]


@pytest.mark.parametrize(("table", "change", "said"), SHAPES)
def test_another_schema_is_found_though_the_hashes_hold(
    copy: Path, table: str, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    rewrite(copy, table, change)
    [finding] = verify(copy)
    assert finding.file.startswith(table)
    assert said in finding.problem
    assert "\n" not in finding.problem


# Gates


def test_a_release_measures_as_it_did(small: Run, example: Run) -> None:
    for release in (small.release, example.release):
        n = len(release.record["gates"])
        assert recheck(release.folder) == Rechecked(checks=n, left_out=0, findings=[])


def foreign_ids(table: pa.Table) -> pa.Table:
    return table.set_column(1, table.schema.field(1), table["item_id"][::-1])


HIDDEN: list[tuple[str, Callable[[pa.Table], pa.Table], str]] = [
    ("test", swap("start", "end"), "history_after_target"),
    ("valid", swap("user_index", "target"), "wrong_target"),
    ("sids", swap("text", "sid_key"), "wrong_key"),
    ("sids", lambda table: table[::-1], "trie_differs"),
    ("embeddings_text", foreign_ids, "not_the_items"),
]


@pytest.mark.parametrize(("table", "change", "said"), HIDDEN, ids=[case[2] for case in HIDDEN])
def test_what_forged_hashes_hide_the_gates_find(
    copy: Path, table: str, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    rewrite(copy, table, change)
    assert verify(copy) == []
    problems = [finding.problem for finding in recheck(copy).findings if finding.file == table]
    [problem] = [problem for problem in problems if problem.startswith(f"{said} (")]
    assert "measured " in problem
    assert problem.endswith(", expected 0 as in gates.json")


def test_data_that_no_gate_can_measure_is_a_finding(copy: Path) -> None:
    (copy / "trie.safetensors").write_bytes(b"nonsense")
    forge(copy, "trie.safetensors")
    assert verify(copy) == []
    [finding] = recheck(copy).findings
    assert finding.file == "gates.json"
    assert finding.problem.startswith("its checks cannot be measured again (")
    assert "trie.safetensors: cannot be read" in finding.problem


def test_another_number_than_recorded_is_found_though_it_is_allowed(copy: Path) -> None:
    told = json.loads((copy / "gates.json").read_text())
    [rows] = [one for one in told if (one["table"], one["check"]) == ("sids", "rows")]
    rows["measured"] = 10.0
    (copy / "gates.json").write_text(json.dumps(told))
    forge(copy, "gates.json")
    assert verify(copy) == []
    first, second = recheck(copy).findings
    assert first == Finding("gates.json", "tells of the gates otherwise than release.json does")
    assert second.file == "sids"
    assert second.problem.endswith("measured 9, expected 10 as in gates.json")


def test_a_check_that_fails_is_a_finding_unless_it_was_warned_of() -> None:
    check = Check("t", "leak", "", "why", 0, 0)
    for verdict, expected in [("warning", []), ("ok", [Finding("t", "leak (why): expected 0, got 3")])]:
        recorded = {("t", "leak"): {"measured": 3.0, "verdict": verdict}}
        assert list(deviations([check], {"t": {"leak": 3.0}}, recorded)) == expected
    new = list(deviations([check], {"t": {"leak": None}}, {}))  # of a later sidmill
    assert new == [Finding("t", "leak (why): expected 0, got nothing")]


def test_plain_comparing_judges_as_great_expectations_does() -> None:
    bounds = [(0, 0), (0, 1), (1, None), (None, 1), (0.5, 0.5)]
    numbers = [-1.0, 0.0, 0.5, 1.0, 2.0, None]
    checks = [Check("t", f"{b} {n}", "", "", *b) for b in bounds for n in numbers]
    measured = {"t": {f"{b} {n}": n for b in bounds for n in numbers}}
    for verdict in judge(checks, measured):
        assert holds(verdict.check, verdict.measured) is verdict.passed


# Appends


@pytest.fixture(scope="module")
def appended(small: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release that was appended to a copy of the small one."""
    folder = tmp_path_factory.mktemp("append")
    shutil.copytree(small.plan.warehouse, folder / "w")
    return run_append(more_dump(folder), folder / "w").release.folder


def test_an_append_measures_as_it_did_and_lists_what_it_links(appended: Path) -> None:
    assert verify(appended) == []
    found = recheck(appended)
    assert (found.findings, found.left_out) == ([], 0)
    assert found.checks == len(json.loads((appended / "gates.json").read_text()))


def test_a_promise_to_the_base_is_measured_where_the_base_is(appended: Path, tmp_path: Path) -> None:
    shutil.copytree(appended.parent, tmp_path / "small")
    folder = tmp_path / "small" / appended.name
    rewrite(folder, "users", lambda table: table.set_column(1, table.schema.field(1), table["user_id"][::-1]))
    assert verify(folder) == []
    with_base = recheck(folder)
    assert [finding.problem.split(" (")[0] for finding in with_base.findings] == ["base_lost"]
    shutil.rmtree(tmp_path / "small" / "v1")
    alone = recheck(folder)
    assert alone.findings == []
    assert alone.left_out > 0
    assert alone.checks + alone.left_out == with_base.checks


# The command


def test_the_command_names_file_and_bytes_and_fails(small: Run, tmp_path: Path) -> None:
    folder = tmp_path / "w/releases/small/v1"
    shutil.copytree(small.release.folder, folder)
    said = inside("verify", "small", "-w", str(tmp_path / "w")).stdout
    n = len(small.release.record["gates"])
    assert said.endswith(
        f"files match their SHA-256, their schemas hold, {n} gate checks measure as before\n"
    )
    rewrite(folder, "test", swap("start", "end"))
    quick = json.loads(inside("verify", "small", "--quick", "--json", "-w", str(tmp_path / "w")).stdout)
    assert (quick["intact"], quick["checks"], quick["findings"]) == (True, 0, [])
    done = inside("verify", "small", "-w", str(tmp_path / "w"), check=False)
    assert done.returncode == 1
    assert "v1/test: " in done.stderr
    flip(folder / "sids/part-00000.parquet", 50)
    done = inside("verify", "small@v1", "--json", "-w", str(tmp_path / "w"), check=False)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert [finding["file"] for finding in told["findings"]] == ["sids/part-00000.parquet"]
    [line] = done.stderr.splitlines()
    assert "v1/sids/part-00000.parquet: expected SHA-256" in line
    assert "first bad in bytes 0 to " in line


BARE = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"great_expectations", "torch", "prefect", "pandas"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Without())
sys.argv = ["sidmill", "verify", "small", "--warehouse", sys.argv[1]]
from sidmill.cli import main
main()
"""


def test_verifying_needs_no_optional_package(small: Run) -> None:
    command = [sys.executable, "-c", BARE, str(small.plan.warehouse)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gate checks measure as before" in done.stdout
