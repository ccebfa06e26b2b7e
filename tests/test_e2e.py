"""The command as a new user types it: Prefect, MiniLM and Great Expectations for real, on the real dump."""

import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import EXAMPLE, Run, environment, hear_the_signal, quickly, run_chain, sidmill

from sid_pipelines.chain import STEPS
from sid_warehouse.reader import Warehouse
from sid_warehouse.verify import verify

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A warehouse that the command filled, and what it printed."""
    warehouse = tmp_path_factory.mktemp("built")
    done = sidmill("run", str(EXAMPLE), "--warehouse", str(warehouse))
    assert done.stderr == ""  # DuckDB prints pages there where something keeps it alive at exit
    return warehouse, done.stdout


def stage_lines(printed: str) -> dict[str, str]:
    words = (line.replace("embed text", "embed").split(maxsplit=1) for line in printed.splitlines() if line)
    return {word[0]: word[-1] for word in words if word[0] in STEPS}


RUN = tuple(step for step in STEPS if step not in ("fuse", "pieces", "users"))  # those of the example


def test_a_run_ends_with_a_release(built: tuple[Path, str], example: Run) -> None:
    warehouse, printed = built
    lines = stage_lines(printed)
    assert tuple(lines) == RUN
    assert not [stage for stage, line in lines.items() if "reused" in line]
    assert "published movietweetings@v1: 1,342 items, 100% with a SID of their own" in printed
    suggested = shlex.split(printed.splitlines()[-1])
    rows = subprocess.run(suggested, capture_output=True, text=True, check=True, env=environment()).stdout
    assert rows.count("<a_") == 5
    release = Warehouse(warehouse).release("movietweetings")
    assert verify(release.folder) == []
    # The flow and the plain functions make the same release, byte for byte but for the report's timings.
    timed = {"report.html"}
    theirs = example.release.record["files"]
    assert {k: v for k, v in release.record["files"].items() if k not in timed} == {
        k: v for k, v in theirs.items() if k not in timed
    }


def test_prefect_kept_the_run_and_its_server_is_gone(built: tuple[Path, str]) -> None:
    warehouse, _ = built
    assert (warehouse / "_prefect" / "prefect.db").exists()
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "print(c.execute('select name, state_type from flow_run').fetchall()); "
        "print(c.execute('select count(*) from task_run where state_type = \"COMPLETED\"').fetchall())"
    )
    command = [sys.executable, "-c", code, str(warehouse / "_prefect" / "prefect.db")]
    flows, tasks = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert flows == f"[('{EXAMPLE}', 'COMPLETED')]"
    assert tasks == f"[({len(RUN) + 1},)]"  # and the plan
    wait_until_no_server_is_left(warehouse)


def servers_of(warehouse: Path) -> list[int]:
    """Give the processes that run with this warehouse's Prefect home."""
    mark = f"PREFECT_HOME={warehouse / '_prefect'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_until_no_server_is_left(warehouse: Path) -> None:
    """The ephemeral server ends with its run, however that ended."""
    end = time.monotonic() + 20
    while servers_of(warehouse):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.proof  # test_cli.py has it without Prefect
def test_another_seed_re_runs_from_tokenize_on(built: tuple[Path, str]) -> None:
    warehouse, _ = built
    arguments = ("run", str(EXAMPLE), "--warehouse", str(warehouse), "--set", "tokenize.seed=2")
    lines = stage_lines(sidmill(*arguments).stdout)
    ran = [stage for stage, line in lines.items() if "reused" not in line]
    assert ran == ["tokenize", "collisions", "gates", "publish"]
    told = json.loads(sidmill(*arguments, "--json").stdout)
    assert (told["status"], told["version"]) == ("unchanged", 2)
    one, two = (Warehouse(warehouse).release(f"movietweetings@v{v}") for v in (1, 2))
    assert one.table("sids")["sid"] != two.table("sids")["sid"]
    assert one.table("train").equals(two.table("train"))
    told = json.loads(sidmill("run", str(EXAMPLE), "--warehouse", str(warehouse), "--json").stdout)
    assert (told["status"], told["version"]) == ("unchanged", 1)


def start(warehouse: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sidmill", "run", str(EXAMPLE), "--warehouse", str(warehouse)]
    devnull = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=devnull, stderr=devnull, env=environment())


def kill_when(running: "subprocess.Popen[bytes]", ready: object, timeout: float = 120) -> None:
    end = time.monotonic() + timeout
    while not ready() and running.poll() is None:  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()


def test_a_run_killed_in_the_middle_goes_on_where_it_stopped(tmp_path: Path, built: tuple[Path, str]) -> None:
    embed = tmp_path / "stages" / "movietweetings" / "embed_text"
    kill_when(start(tmp_path), lambda: list(embed.glob(".tmp-*")))
    assert not list(embed.glob("[!.]*"))
    assert Warehouse(tmp_path).releases() == []
    assert not (tmp_path / "catalog.duckdb").exists()
    wait_until_no_server_is_left(tmp_path)
    done = sidmill("run", str(EXAMPLE), "--warehouse", str(tmp_path), "--log", "json", "--json")
    told = json.loads(done.stdout)
    assert (told["status"], told["version"]) == ("published", 1)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["dataset"] for line in lines} == {"movietweetings"}
    ended = [line["stage"] for line in lines if line["event"] == "finished"]
    assert ended == ["embed text", "tokenize", "collisions", "gates", "publish"]
    assert [line["stage"] for line in lines if line["event"] == "reused"] == [
        "ingest",
        "clean",
        "split",
        "text",
        "sequences",
        "pairs",
    ]
    assert not list(tmp_path.rglob(".tmp-*"))
    whole = Warehouse(built[0]).release("movietweetings@v1")
    resumed = Warehouse(tmp_path).release("movietweetings")
    assert resumed.table("sids").equals(whole.table("sids"))


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.proof),  # test_operate_parts.py, without Prefect
    ],
)
def test_ctrl_c_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "sidmill", "run", str(EXAMPLE), "--warehouse", str(tmp_path)]
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, env=environment(), text=True, preexec_fn=hear_the_signal
    )
    assert running.stdout
    # While torch is being imported, library code may swallow the signal; so wait for the first vectors.
    assert any(line.startswith("embed") and " of " in line for line in running.stdout)
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == code
    said, again = errors.rstrip("\n").split(", go on with: ")
    assert said == "sidmill: stopped; finished stages are kept"
    assert shlex.split(again)[-4:] == ["run", str(EXAMPLE), "--warehouse", str(tmp_path)]
    assert not list(tmp_path.rglob(".tmp-*"))
    wait_until_no_server_is_left(tmp_path)


def shuffled(source: Path, seed: int) -> None:
    lines = source.read_bytes().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    source.write_bytes(b"".join(lines))


def test_shuffled_rows_give_every_item_the_same_sid(
    plain_dump: Path, example: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)
    for name in ("ratings.dat", "movies.dat"):
        shuffled(plain_dump / "data/movietweetings-50k" / name, seed=7)
    one = example.release
    two = run_chain(plain_dump / "recipe.toml", plain_dump / "w").release
    for table in (
        "sids",
        "sid_to_items",
        "items",
        "users",
        "sequences",
        "train",
        "valid",
        "test",
        "embeddings_text",
    ):
        assert two.table(table).equals(one.table(table)), table
    assert two.record["raw_files"] != one.record["raw_files"]


def test_bad_data_ends_a_run_in_one_line_with_its_exit_code(plain_dump: Path) -> None:
    ratings = plain_dump / "data/movietweetings-50k/ratings.dat"
    ratings.write_bytes(ratings.read_bytes().replace(b"::", b","))
    arguments = ("run", str(plain_dump / "recipe.toml"), "--warehouse", str(plain_dump / "w"))
    done = sidmill(*arguments, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ratings.dat: 50,000 of 50,000 rows rejected" in done.stderr
    assert "row 1: expected 4 fields separated by '::', got 1, got '1,1074638,7,1365029107'" in done.stderr


def test_a_refused_gate_ends_a_run_with_code_3(built: tuple[Path, str]) -> None:
    arguments = ("run", str(EXAMPLE), "--warehouse", str(built[0]), "--set", "collisions.policy=none")
    before = len(Warehouse(built[0]).releases())
    done = sidmill(*arguments, check=False)
    assert done.returncode == 3
    assert "sids.collision_rate" in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(Warehouse(built[0]).releases()) == before


@pytest.mark.proof
@pytest.mark.parametrize("round_", range(8))
def test_killed_at_random_moments_no_half_release_is_ever_seen(
    tmp_path: Path, built: tuple[Path, str], round_: int
) -> None:
    draw = random.Random(round_)
    warehouse = tmp_path / "w"
    warehouse.mkdir()
    for _ in range(2):
        seconds = time.monotonic() + draw.uniform(4, 40)
        kill_when(start(warehouse), lambda moment=seconds: time.monotonic() > moment)
        for release in Warehouse(warehouse).releases():
            assert verify(release.folder) == []
    sidmill("run", str(EXAMPLE), "--warehouse", str(warehouse))
    whole = Warehouse(built[0]).release("movietweetings@v1")
    assert Warehouse(warehouse).release("movietweetings@v1").table("sids").equals(whole.table("sids"))
    shutil.rmtree(warehouse)
