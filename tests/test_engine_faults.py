"""Whole chains through faults: workers killed in every stage, stragglers, retries, bad disks, killed drivers.

What comes of them is the release of the local engine, nothing lost, nothing doubled. test_beam_faults.py has
the engine alone; benchmarks/kills.py kills in every step, at every moment, and writes the table.
"""

import gzip
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clusters import IN_MEMORY
from engines import BEAM, FREE_OF_DISK, assert_same_release, events_dump
from helpers import Run, environment, quickly, run_chain
from saboteur import KILLS, Doubled, Sabotaged

from sid_pipelines.sharded import committed
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import Engine
from sid_schemas import SidmillError
from sid_warehouse.reader import Release

Folder = Callable[[], Path]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        yield


@pytest.fixture(scope="module")
def folder() -> Iterator[Folder]:
    """Give a new folder with every call."""
    with tempfile.TemporaryDirectory(dir=FREE_OF_DISK) as name:
        yield lambda: Path(tempfile.mkdtemp(dir=name))


@pytest.fixture(scope="module")
def events(folder: Folder) -> tuple[Path, Run]:
    """A small dump with all that stages judge, and its release by the local engine."""
    recipe = events_dump(folder())
    return recipe, run_chain(recipe, folder())


def staged(run: Run) -> set[str]:
    """Give the names of the stages that ran by shards."""
    return {one.stage.name for one in run.plan.stages if "engine" in run.outputs[one.label].manifest}


def through(engine: Engine, recipe: Path, warehouse: Path, *overrides: str) -> Run:
    """Run a chain on an engine, with three shards of everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sid_flows.execute.engine_of", lambda section: engine)
        run = run_chain(recipe, warehouse, BEAM, "engine.shards=3", *overrides)
    assert staged(run)
    assert not list((warehouse / "scratch").rglob("*.*"))
    return run


# Without a cluster


def test_stragglers_twins_and_retried_bundles_change_nothing(
    events: tuple[Path, Run], folder: Folder
) -> None:
    recipe, local = events
    assert_same_release(local.release, through(Doubled(3), recipe, folder()).release)


def test_two_runs_of_one_recipe_at_once_make_one_release(events: tuple[Path, Run], folder: Folder) -> None:
    recipe, local = events
    warehouse = folder()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr("sid_flows.execute.engine_of", lambda section: Inline(5))
        runs = list(pool.map(lambda _: run_chain(recipe, warehouse, BEAM, "engine.shards=3"), range(2)))
    for run in runs:
        assert_same_release(local.release, run.release)
        assert run.release.ref == "events@v1"


@pytest.mark.parametrize("kind", ["refused", "spoilt"])
def test_what_a_bad_disk_spoils_is_made_again(
    events: tuple[Path, Run], folder: Folder, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committed, "PAUSES", (0.001,))  # no network file system shows its files late here
    recipe, local = events
    engine = Sabotaged(Doubled(4), folder(), [kind])
    run = through(engine, recipe, folder())
    assert {stage for stage, *_ in engine.done()} >= staged(run) - {"embed_text"}
    assert_same_release(local.release, run.release)


def cut_short(dump: Path) -> None:
    packed = gzip.compress((dump / "ratings.dat").read_bytes())
    (dump / "ratings.dat").unlink()
    (dump / "ratings.dat.gz").write_bytes(packed[: len(packed) // 2])


def flipped(dump: Path) -> None:
    packed = bytearray(gzip.compress((dump / "ratings.dat").read_bytes()))
    packed[len(packed) // 2] ^= 255
    (dump / "ratings.dat").unlink()
    (dump / "ratings.dat.gz").write_bytes(packed)


def not_text(dump: Path) -> None:
    content = bytearray((dump / "ratings.dat").read_bytes())
    content[len(content) // 2] = 0xFF
    (dump / "ratings.dat").write_bytes(content)


def all_rejected(dump: Path) -> None:
    (dump / "ratings.dat").write_text("no rating\n" * 50)


def with_too_little(dump: Path) -> None:
    (dump / "ratings.dat").write_text("1::0000001::7::1300000000\n")


@pytest.mark.parametrize(
    "spoil", [cut_short, flipped, not_text, all_rejected, with_too_little], ids=lambda one: one.__name__
)
def test_an_error_is_told_in_the_words_of_the_local_engine(
    folder: Folder, spoil: Callable[[Path], None]
) -> None:
    recipe = events_dump(folder())
    spoil(recipe.parent / "dump")
    with pytest.raises(SidmillError) as local:
        run_chain(recipe, folder())
    warehouse = folder()
    with pytest.raises(SidmillError) as sharded:
        run_chain(recipe, warehouse, BEAM, "engine.shards=3", f"engine.options={IN_MEMORY}")
    assert type(sharded.value) is type(local.value)
    assert str(sharded.value) == str(local.value)
    assert not list(warehouse.glob("releases/*/v*"))


# On clusters


def cluster(options: str) -> Engine:
    from sid_pipelines.beam import BeamEngine

    return BeamEngine(options, attempts=20)


@pytest.mark.parametrize(
    "workers", ["dask_cluster", pytest.param("worker_processes", marks=pytest.mark.proof)]
)
def test_a_worker_killed_in_every_stage_costs_nothing(
    events: tuple[Path, Run], folder: Folder, workers: str, request: pytest.FixtureRequest
) -> None:
    recipe, local = events
    engine = Sabotaged(cluster(request.getfixturevalue(workers)), folder(), KILLS, sparing=True)
    run = through(engine, recipe, folder())
    assert {stage for stage, *_ in engine.done()} >= staged(run) - {"embed_text"}
    assert_same_release(local.release, run.release)


@pytest.mark.proof
def test_a_straggler_in_every_stage_costs_nothing_but_time(
    events: tuple[Path, Run], folder: Folder, dask_cluster: str
) -> None:
    recipe, local = events
    engine = Sabotaged(cluster(dask_cluster), folder(), ["slow"], sparing=True)
    assert_same_release(local.release, through(engine, recipe, folder()).release)


# The driver


@pytest.mark.proof  # two runs of the command, a minute each; test_beam_faults.py kills drivers of toy jobs
@pytest.mark.parametrize("stage", ["clean", "sequences"])
def test_a_killed_driver_goes_on_where_it_was(events: tuple[Path, Run], folder: Folder, stage: str) -> None:
    recipe, local = events
    warehouse, mark = folder(), uuid.uuid4().hex
    command = [sys.executable, "-m", "sidmill", "run", str(recipe), "-w", str(warehouse)]
    command += ["--engine", "beam", "--beam-options", "--direct_num_workers=2", "--set", "engine.shards=3"]
    ours = environment() | {"SIDMILL_TEST_MARK": mark}
    first = subprocess.Popen(command, env=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (begun := list((warehouse / "scratch").glob(f"*/{stage}-*/*/*/*/done.json"))):
        assert first.poll() is None, "it was over before it could be killed"
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not list(warehouse.glob("releases/*/v*"))
    wait_until(lambda: not processes(mark))
    known = {path: path.stat().st_mtime_ns for path in begun}
    second = subprocess.Popen(command, env=ours, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while second.poll() is None:  # what was done is not done again
        for path, then in known.items():
            assert not path.exists() or path.stat().st_mtime_ns == then
        time.sleep(0.05)
    assert second.returncode == 0, second.stdout.read() if second.stdout else ""
    [published] = warehouse.glob("releases/*/v*")
    # The command judges by Great Expectations, the local release here by the bounds alone.
    assert_same_release(local.release, Release(published), but=["gates", "gates.json"])
    assert not list((warehouse / "scratch").rglob("*.*"))
    wait_until(lambda: not processes(mark))


def processes(mark: str) -> list[str]:
    """Give the processes that were started with a mark in their environment, by what they run."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append(f"{place.name} {(place / 'cmdline').read_bytes()!r}")
        except OSError:
            continue  # it has just ended, or is not ours
    return found


def wait_until(happened: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
