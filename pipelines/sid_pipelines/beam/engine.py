"""The engine of many workers: jobs as pipelines on a runner, begun anew where it fails.

A pipeline that is begun anew finds the tasks that are done. So a lost worker costs the tasks that it had
begun, whatever the runner makes of it: Dask runs them again by itself, others give up.
"""

import shutil
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.runners.runner import PipelineState

from sid_pipelines.beam.guard import check
from sid_pipelines.beam.pipeline import pipeline_of
from sid_pipelines.beam.quiet import quiet
from sid_pipelines.beam.runners import Runner, runner_of
from sid_pipelines.beam.spread import ByKey, OnDask
from sid_pipelines.beam.waiting import until_done
from sid_pipelines.sharded.committed import DONE, noted_error
from sid_pipelines.sharded.job import Job
from sid_pipelines.stage import Resources
from sid_schemas import WarehouseError
from sid_warehouse import files


class BeamEngine:
    """Runs jobs on Apache Beam. options: Beam's, as on a command line; see runners.py.

    attempts: how often in a row a pipeline may fail without that another task was done. An error of ours that
    a task raises is the user's, and ends the job at once.
    """

    def __init__(self, options: str = "", *, attempts: int = 3) -> None:
        """Check the options; raises RecipeError and MissingExtraError."""
        self.runner: Runner = runner_of(options)
        self.attempts = attempts
        self._spread: ByKey | OnDask | None = None

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        """Run all tasks of a job.

        Raises the SidmillError that a task raised, or WarehouseError where every attempt failed.
        """
        noted_error(scratch, job.name)  # forgotten: of a run that was killed
        failures: list[Exception] = []
        done = _done(scratch / job.name)
        while len(failures) < self.attempts:
            with quiet():
                pipeline = self._pipeline(job, scratch, resources)
                try:
                    self._carry_out(pipeline)
                    _sweep(scratch / job.name, all_=True)
                    return
                except Exception as failure:
                    _sweep(scratch / job.name, all_=False)
                    if error := noted_error(scratch, job.name):
                        raise error from None
                    before, done = done, _done(scratch / job.name)
                    if done > before:
                        failures.clear()  # it got further: workers come and go
                    failures.append(failure)
        raise WarehouseError(
            f"{job.name}: {self.runner.name} failed {len(failures)} times, with {done} tasks done; at last: "
            f"{_reason(failures[-1])}. Mend the cluster and run again: what is done is kept"
        ) from failures[-1]

    def about(self) -> dict[str, Any]:
        """Give the runner's name; its options may name hosts and secrets."""
        return {"kind": "beam", "runner": self.runner.name}

    def _pipeline(self, job: Job, scratch: Path, resources: Resources) -> beam.Pipeline:
        """Build the pipeline of a job; raises what the guard raises."""
        if self._spread is None:
            self._spread = self.runner.spread()
        spread = self._spread
        options, runner = self.runner.options(spread), self.runner.made()
        pipeline = pipeline_of(job, scratch, resources, options=options, spread=spread, runner=runner)
        if self.runner.on_dask:
            check(pipeline)
        return pipeline

    def _carry_out(self, pipeline: beam.Pipeline) -> None:
        """Run a pipeline to its end."""
        results: list[Any] = []

        def run() -> None:
            results.append(pipeline.run())
            state = results[0].wait_until_finish()
            if state != PipelineState.DONE:
                raise RuntimeError(f"the pipeline ended as {state}")

        try:
            until_done(run)
        except BaseException:
            for result in results:
                _cancel(result)
            raise
        finally:
            if self.runner.on_dask:
                for result in results:
                    result.client.close()  # DaskRunner leaves it open


def _cancel(result: Any) -> None:
    """Stop what may run on, as after Ctrl-C; one that failed cannot be stopped."""
    try:
        result.cancel()
    except Exception:
        return


def _done(place: Path) -> int:
    """Give how many tasks of a job are done."""
    return sum(1 for _ in place.glob(f"*/*/{DONE}"))


def _sweep(place: Path, *, all_: bool) -> None:
    """Remove what killed tasks of this machine left half written; all of it once every task is done."""
    for step in place.glob("*/"):
        files.sweep(step)
        for leftover in step.glob(f"{files.TEMPORARY}*") if all_ else ():
            shutil.rmtree(leftover, ignore_errors=True)


def _reason(failure: Exception) -> str:
    """Give the line of an error that says most: the last of a traceback that came as text."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return f"{type(failure).__name__}: {lines[-1] if lines else 'it gave no reason'}"
