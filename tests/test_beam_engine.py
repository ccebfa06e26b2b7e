"""The Beam engine on every runner that is tested here: the results of a job are those of the plain twin."""

import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import IN_MEMORY, dask_workers
from toys import Toy, assert_same_results, expected, leftovers, processes, run_toys, runs, toy_job

from sid_pipelines.beam import BeamEngine
from sid_pipelines.beam.one_core import Process
from sid_pipelines.beam.quiet import quiet
from sid_pipelines.beam.spread import OnDask
from sid_pipelines.sharded.committed import reconciled
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import ALL, Job, Ref, Step
from sid_pipelines.stage import Resources
from sid_schemas import WarehouseError


def test_every_runner_gives_what_the_plain_twin_gives(
    beam_options: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks", slow=0.05))
    engine = BeamEngine(beam_options)
    found = run_toys(engine, job, tmp_path / "ours")
    assert_same_results(found, expected(tmp_path))
    assert set(runs(tmp_path / "marks").values()) == {1}
    workers = 1 if beam_options == IN_MEMORY else 2
    for step in ("deal", "add", "share") if "Dask" not in beam_options else ():  # the last after a broadcast
        pids = processes(tmp_path / "marks", step)
        counts = [pids.count(pid) for pid in set(pids)]
        assert len(counts) == workers, step
        assert max(counts) <= sum(counts) / workers + 1, step
    assert not leftovers(tmp_path)
    run_toys(BeamEngine(IN_MEMORY), job, tmp_path / "ours")  # all is done
    assert set(runs(tmp_path / "marks").values()) == {1}
    assert engine.about()["kind"] == "beam"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("files", [1, 0])
def test_jobs_of_one_file_and_of_none(dask_cluster: str, tmp_path: Path, files: int) -> None:
    for options in (IN_MEMORY, dask_cluster):
        toy = Toy(tmp_path / f"marks {options[-5:]}")
        job = toy_job(tmp_path / "numbers", toy, files=files)
        found = run_toys(BeamEngine(options), job, tmp_path / options[-5:])
        assert_same_results(found, expected(tmp_path, files=files))


def test_a_repeated_bundle_changes_nothing(tmp_path: Path) -> None:
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks"))
    engine = BeamEngine(f"{IN_MEMORY} --direct_runner_bundle_repeat=2")
    assert_same_results(run_toys(engine, job, tmp_path / "ours"), expected(tmp_path))
    assert set(runs(tmp_path / "marks").values()) == {1}


def test_a_task_of_one_file_fans_out_to_all_dask_workers(tmp_path: Path) -> None:
    """Neither is idle; which has how many is Dask's to decide, and differs on a busy machine."""
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks", buckets=8, slow=0.05), files=1)
    with dask_workers() as options:
        run_toys(BeamEngine(options), job, tmp_path / "ours")
    for step in ("add", "share"):
        pids = processes(tmp_path / "marks", step)
        assert len(pids) == 8, step
        assert len(set(pids)) == 2, step


def test_dask_places_keys_that_count_up_in_turns() -> None:
    from dask.base import tokenize

    for asked, places in ((4, 4), (7, 7), (32, 32), (33, 36), (90, 100)):
        spread = OnDask(asked)
        assert spread.places == places
        for start in ("", "users-"):
            words = [spread.word(f"{start}{n:05d}") for n in range(3 * places)]
            found = [int(tokenize(word), 16) % places for word in words]
            assert sorted(found) == sorted(list(range(places)) * 3)
        assert len({*spread.fillers(0)}) == places
        assert len(spread.fillers(1)) == places - 1
        assert spread.fillers(places) == []
    assert OnDask(4).word(ALL) == OnDask(4).word(ALL)
    assert OnDask(4).word("a1b") != ""


class Careless(Inline):
    """A runner that loses, doubles or mixes up what goes between steps, and says that it is done."""

    def __init__(self, fault: str, seed: int) -> None:
        super().__init__(seed)
        self.fault, self.draw = fault, random.Random(seed)

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        refs: list[Ref] = list(job.refs)
        for number, step in enumerate(job.steps):
            if number == 1:
                refs = self.spoilt(refs)
            super().run(Job(job.name, tuple(refs), (step,)), scratch, resources)
            if self.fault == "a step" and number == 1:
                return
            refs = list(reconciled(scratch, Job(job.name, tuple(refs), (step,))).refs)

    def spoilt(self, refs: list[Ref]) -> list[Ref]:
        one = self.draw.choice(refs)
        others = [ref for ref in refs if ref is not one]
        return {
            "a ref": others,
            "a task": [ref for ref in refs if ref.key != one.key],
            "a doubled ref": [*refs, one],
            "a ref of another task": [*others, replace(one, key=_another(one.key))],
            "a step": refs,
        }[self.fault]


def _another(key: str) -> str:
    return f"{(int(key) + 1) % 5:05d}"


@pytest.mark.parametrize("fault", ["a ref", "a task", "a doubled ref", "a ref of another task", "a step"])
def test_what_a_runner_loses_or_doubles_is_told(tmp_path: Path, fault: str) -> None:
    job = toy_job(tmp_path / "numbers", Toy(tmp_path / "marks"))
    with pytest.raises(WarehouseError, match=r"toys, step .* although the runner said it was done"):
        run_toys(Careless(fault, seed=0), job, tmp_path / "ours")
    found = run_toys(BeamEngine(IN_MEMORY), job, tmp_path / "ours")  # a better one goes on there
    assert_same_results(found, expected(tmp_path))


def test_a_job_may_ask_for_nothing(tmp_path: Path) -> None:
    job = Job("empty", (), (Step("deal", toy_job(tmp_path, Toy(tmp_path)).steps[0].kernel, Toy(tmp_path)),))
    assert run_toys(BeamEngine(IN_MEMORY), job, tmp_path / "ours").refs == ()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("apache_beam.of_a_test")
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(logging.NOTSET)


def test_logs_are_quiet_while_a_job_runs(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    before = list(logging.getLogger().handlers)
    with quiet():
        logger.error("lost")
        logging.warning("of no logger")
        logging.getLogger("ours").warning("kept")
    logger.info("told")
    assert [record.message for record in caplog.records] == ["kept", "told"]
    assert logging.getLogger().handlers == before


def test_only_a_worker_keeps_to_one_core() -> None:
    import pyarrow as pa

    from sid_pipelines.beam import one_core

    cores = pa.cpu_count()
    one_core.on_one_core(Process.this())
    assert not one_core._settled
    assert pa.cpu_count() == cores
