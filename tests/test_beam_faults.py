"""The Beam engine under faults: nothing is lost or doubled, and what is done is kept."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import psutil
import pytest
from clusters import IN_MEMORY
from toys import Toy, assert_same_results, expected, leftovers, run_toys, runs, toy_job

from sid_pipelines.beam import BeamEngine
from sid_pipelines.beam.waiting import until_done
from sid_pipelines.sharded import committed
from sid_pipelines.sharded.committed import DONE, noted_error, run_task
from sid_pipelines.sharded.job import Job, Ref, Step, Task
from sid_pipelines.stage import Resources
from sid_schemas import DataError, WarehouseError


class Counting(BeamEngine):
    """Counts how often a pipeline is begun."""

    begun = 0

    def _carry_out(self, pipeline: beam.Pipeline) -> None:
        self.begun += 1
        super()._carry_out(pipeline)


@pytest.fixture(params=["worker_processes", "worker_pool", "dask_cluster"])
def cluster(request: pytest.FixtureRequest) -> str:
    """Every runner whose workers are processes of their own."""
    options: str = request.getfixturevalue(request.param)
    return options


def test_a_killed_worker_costs_only_what_it_had_begun(
    cluster: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks", die="add-00003", slow=0.02))
    engine = Counting(cluster)
    found = run_toys(engine, job, tmp_path / "ours")
    assert_same_results(found, expected(tmp_path))
    assert engine.begun == (1 if "Dask" in cluster else 2)
    times = runs(tmp_path / "marks")
    assert times["add-00003"] == 2
    assert sum(times.values()) <= 4 + 5 + 1 + 5 + 2  # the killed one's, and one that another worker was at
    assert not leftovers(tmp_path)
    if "Dask" not in cluster:  # where the test's own cluster starts another worker
        assert capfd.readouterr() == ("", "")
    eventually(lambda: not workers_of(os.getpid()))


def test_a_runner_that_waits_for_dead_workers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sid_pipelines.beam.waiting.GONE", 0.3)
    ended = threading.Event()

    def waits() -> None:
        threading.Thread(target=time.sleep, args=(0.3,), name="run_worker_0").start()
        ended.wait(timeout=30)

    with pytest.raises(RuntimeError, match="1 of 1 worker processes died, and the runner waits on"):
        until_done(waits)
    ended.set()


def test_a_defect_that_stays_ends_in_one_line(tmp_path: Path) -> None:
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks"))
    broken = Job("toys", job.refs, (*job.steps[:2], Step("tell", broken_kernel), job.steps[3]))
    with pytest.raises(WarehouseError) as told:
        Counting(IN_MEMORY, attempts=2).run(broken, tmp_path / "ours", Resources())
    assert str(told.value) == (
        "toys: FnApiRunner failed 2 times, with 9 tasks done; at last: ZeroDivisionError: integer division "
        "or modulo by zero [while running 'toys: tell']. Mend the cluster and run again: what is done is kept"
    )


def test_a_task_that_needs_more_memory_says_so(tmp_path: Path) -> None:
    job = Job("toys", (Ref("a", "a"),), (Step("sort", hungry),))
    with pytest.raises(
        DataError, match=r"toys, sort: needs more than \[engine\] memory = '40MiB'; raise it \("
    ):
        BeamEngine(IN_MEMORY).run(job, tmp_path, Resources(memory="40MiB"))


def hungry(task: Task) -> dict[str, int]:
    with task.connect() as connection:
        connection.execute("set max_temp_directory_size = '1MB'")
        connection.execute("create table t as select random() r, range n from range(9_000_000) order by r")
    return {}


def broken_kernel(task: Task) -> dict[str, int]:
    return {"never": 1 // 0}


def test_a_defect_that_comes_once_is_survived(dask_cluster: str, tmp_path: Path) -> None:
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks", crash="share-00001"))
    engine = Counting(dask_cluster)
    assert_same_results(run_toys(engine, job, tmp_path / "ours"), expected(tmp_path))
    assert engine.begun == 2
    assert not leftovers(tmp_path)


def test_an_error_of_ours_is_the_users_at_once(
    beam_options: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = Counting(beam_options)
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks", fail="add-00002"))
    with pytest.raises(DataError) as told:
        run_toys(engine, job, tmp_path / "ours")
    assert str(told.value) == "toys, add-00002: is not as it should be; expected better"
    assert engine.begun == 1
    assert runs(tmp_path / "marks")["add-00002"] == 1
    assert not leftovers(tmp_path)
    assert not (tmp_path / "ours/toys/errors").exists()
    mended = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks"))
    assert_same_results(run_toys(BeamEngine(IN_MEMORY), mended, tmp_path / "ours"), expected(tmp_path))
    assert runs(tmp_path / "marks")["deal-00000"] == 1
    assert capfd.readouterr() == ("", "")


def test_an_error_that_an_earlier_run_left_is_forgotten(tmp_path: Path) -> None:
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks", crash="add-00002"))
    (tmp_path / "ours/toys/errors").mkdir(parents=True)
    (tmp_path / "ours/toys/errors/add-00001.json").write_text('{"type": "DataError", "message": "old"}')
    assert_same_results(run_toys(BeamEngine(IN_MEMORY), job, tmp_path / "ours"), expected(tmp_path))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
@pytest.mark.parametrize(
    ("damaged", "readers"),
    [("deal/00001/3.txt", "add"), ("add/00002/sum.txt", "share"), ("tell/all/all.txt", "share")],
)
def test_a_damaged_file_is_made_again(
    tmp_path: Path,
    harm: Callable[[Path], None],
    damaged: str,
    readers: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the last step is not done yet, its files are checked, those too that were handed on."""
    monkeypatch.setattr(committed, "PAUSES", (0.001,))  # no network file system shows its files late here
    plain, place = expected(tmp_path), tmp_path / "ours"
    job, engine = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks")), Counting(IN_MEMORY)
    run_toys(engine, job, place)
    for done in (place / "toys" / readers).glob(f"*/{DONE}"):
        done.unlink()
        for file in done.parent.iterdir():
            file.unlink()
        done.parent.rmdir()
    harm(place / "toys" / damaged)
    engine.begun = 0
    assert_same_results(run_toys(engine, job, place), plain)
    assert engine.begun == 2
    step, key, _ = damaged.split("/")
    assert runs(tmp_path / "marks")[f"{step}-{key}"] == 2
    assert not leftovers(tmp_path)


def test_two_attempts_of_one_task_leave_one_result(tmp_path: Path) -> None:
    refs = [Ref("a", "a")]
    together = threading.Barrier(4)
    step = Step("slow", wait_for_twins, together)
    found: list[list[Ref]] = []

    def attempt() -> None:
        found.append(run_task(tmp_path, "twins", step, "a", refs, Resources()))

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 4
    assert all(one == found[0] for one in found)
    assert Path(found[0][0].path).read_text() == "a"
    assert sorted(path.name for path in (tmp_path / "twins/slow").iterdir()) == ["a"]


def wait_for_twins(task: Task) -> dict[str, int]:
    (task.out / "a.txt").write_text(task.key)
    task.params.wait(timeout=30)
    task.emit("all", task.out / "a.txt")
    return {}


def test_a_task_whose_folder_was_half_removed_runs_again(tmp_path: Path) -> None:
    step, refs = Step("write", write_key), [Ref("a", "a")]
    found = run_task(tmp_path, "job", step, "a", refs, Resources())
    (tmp_path / "job/write/a/done.json").unlink()  # as when somebody is killed between two files
    assert run_task(tmp_path, "job", step, "a", refs, Resources()) == found
    assert sorted(path.name for path in (tmp_path / "job/write").iterdir()) == ["a"]


def write_key(task: Task) -> dict[str, int]:
    (task.out / "a.txt").write_text(task.key)
    task.emit("all", task.out / "a.txt")
    return {}


def test_errors_are_noted_and_read_at_once(tmp_path: Path) -> None:
    def note(key: str) -> None:
        for _ in range(30):
            with pytest.raises(DataError, match="is bad"):
                run_task(tmp_path, "job", Step("judge", judge), key, [Ref(key, "a")], Resources())

    threads = [threading.Thread(target=note, args=(key,)) for key in ("a", "b")]
    for thread in threads:
        thread.start()
    found = []
    while any(thread.is_alive() for thread in threads):
        found.append(noted_error(tmp_path, "job"))
    assert {str(error) for error in found if error} <= {"a is bad", "b is bad"}
    assert any(found)


def judge(task: Task) -> dict[str, int]:
    raise DataError(f"{task.key} is bad")


DRIVER = """
import sys
from pathlib import Path
from toys import Toy, run_toys, toy_job
from sid_pipelines.beam import BeamEngine

folder = Path(sys.argv[1])
toy = Toy(folder / "marks", slow=0.02, **{sys.argv[3]: "tell-all"})
run_toys(BeamEngine(sys.argv[2]), toy_job(folder / "numbers", toy), folder / "ours")
"""


@pytest.mark.parametrize("how", ["die", "die_driver"])
def test_a_killed_driver_goes_on_where_it_was(worker_processes: str, tmp_path: Path, how: str) -> None:
    """die: in memory, where the driver is the worker. die_driver: its workers end with it."""
    options = IN_MEMORY if how == "die" else worker_processes
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path, options, how], env=environment)
    assert driver.wait(timeout=60) == -signal.SIGKILL
    before = runs(tmp_path / "marks")
    pids = {int(path.read_text()) for path in (tmp_path / "marks").glob("*.*")} - {driver.pid}
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids - {tell_of(tmp_path)}))
    assert sum(before.values()) == 4 + 5 + 1
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks"))
    assert_same_results(run_toys(BeamEngine(IN_MEMORY), job, tmp_path / "ours"), expected(tmp_path))
    after = runs(tmp_path / "marks") - before
    assert after == {"tell-all": 1, **{f"share-{n:05d}": 1 for n in range(5)}}
    eventually(lambda: not psutil.pid_exists(tell_of(tmp_path)))
    assert not leftovers(tmp_path)


def tell_of(folder: Path) -> int:
    """Give the process that was at the task which killed the driver."""
    first = min((folder / "marks").glob("tell-all.*"), key=lambda path: path.stat().st_mtime_ns)
    return int(first.read_text())


def workers_of(pid: int) -> list[psutil.Process]:
    """Give the worker processes that a driver started and that still run."""
    children = psutil.Process(pid).children(recursive=True)
    living = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in living if any("sid_pipelines.beam.worker" in word for word in one.cmdline())]


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)
