"""What a run does under Prefect: each stage, publishing and exporting as tasks; see build.py for the flows.

Our stage store does the caching, so tasks cache nothing and return only what a reader of the run needs.
Retried is what reaches for an object store, and only where another attempt may help: see faults.py. A stage
runs once: its data is local, and what it refuses it would refuse again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

# Modules, not their functions: Prefect keeps flow functions alive at exit, and DuckDB, reached through
# what they import, would then print pages of leak warnings.
from sid_flows import artifacts, events, execute, exporting, faults, json_lines, prefect_settings, reporting
from sid_pipelines.chain import PUBLISH
from sid_warehouse import files, locks


def _worth_another(task_: Any, task_run: Any, state: Any) -> bool:
    """Say for Prefect whether a failed task is worth another attempt, and for who looks that there is one.

    Prefect asks only where an attempt is left.
    """
    error = state.result(raise_on_failure=False)
    if not (isinstance(error, BaseException) and faults.may_pass(error)):
        return False
    done = task_run.run_count
    waits = task_.retry_delay_seconds[min(done, faults.RETRIES) - 1]
    reporting.reporter.get().retrying(task_.name, done + 1, waits, f"{type(error).__name__}: {error}")
    return True


RETRIED: dict[str, Any] = {
    "retries": faults.RETRIES,
    "retry_delay_seconds": faults.delays(),
    "retry_jitter_factor": faults.JITTER,
    "retry_condition_fn": _worth_another,
}


# The types of tasks' parameters are Any: Prefect keeps at exit what they name, and so what that reaches.
@task(name="plan", cache_policy=NO_CACHE, persist_result=False, **RETRIED)
def plan(make: Any, arguments: Any) -> Any:
    """Find out what is done; make: what makes the plan. A release that it goes on from may be downloaded."""
    return make(*arguments)


@task(cache_policy=NO_CACHE, persist_result=False)
def stage(of: Any, planned: Any, inputs: Any) -> Any:
    """Run one stage of a plan, or reuse its output; inputs: outputs by label."""
    return execute.execute(of, planned, inputs)


@task(name=PUBLISH, cache_policy=NO_CACHE, persist_result=False, **RETRIED)
def publish(of: Any, outputs: Any) -> dict[str, Any]:
    """Publish the release that the outputs of a plan's stages, by label, make."""
    return execute.finish(of, outputs)


@task(name="export", cache_policy=NO_CACHE, persist_result=False, **RETRIED)
def export(of: Any, release: Any) -> list[str]:
    """Write the trainers' formats that a plan's recipe names; release: the record of what was published."""
    return exporting.exports(of, release)


@contextmanager
def run_on(dataset: str, place: Path) -> Iterator[None]:
    """Hold what a run holds: the warehouse against gc, the data set against other runs. Tell who looks.

    Another run of the data set, in this process or any other, is waited for.
    """
    prefect_settings.bind_server_to_us()
    prefect_settings.log_to_prefect()
    in_log = isinstance(reporting.reporter.get(), reporting.LogReporter)  # else a command has chosen
    further = [json_lines.JsonReporter()] if in_log and json_lines.wanted() else []
    with (
        reporting.also(artifacts.ProgressReporter(), *further),
        files.explained(place),
        locks.building(place),
        events.of_run(dataset),
    ):
        report = reporting.reporter.get()
        report.begun(dataset)
        with locks.in_turn(place / f".lock-{dataset}", report.waiting):
            yield


def carry_out(made: Any, until: str | None, stage_timeout: float | None = None) -> dict[str, Any]:
    """Run a plan's stages as tasks, then publish unless it stops before.

    Gives the release's name and fingerprint, and the folders of its exports, or the last stage where it
    stopped early. stage_timeout: seconds that a stage may take, None for any.
    """
    made.store.sweep()
    if until is None and made.published:
        return _told(made, made.published)
    outputs: dict[str, Any] = {}
    for planned in made.stages:
        inputs = {label: outputs[label] for label in planned.step.inputs.values() if label in outputs}
        timed: dict[str, Any] = {} if stage_timeout is None else {"timeout_seconds": stage_timeout}
        named = stage.with_options(name=planned.label, **timed)
        outputs[planned.label] = named(made, planned, inputs)
    if until is not None:
        return execute.stopped_at(made, outputs)
    with execute.told_of(PUBLISH):
        release = publish(made, outputs)
    artifacts.of_release(made.warehouse, release)
    events.published(made.warehouse, release)
    return _told(made, release)


def _told(made: Any, release: Any) -> dict[str, Any]:
    """Export what the recipe asks for, and tell what there is now."""
    told = {name: release[name] for name in ("dataset", "version", "fingerprint")}
    if made.recipe.export.formats:
        with execute.told_of("export"):
            told["exports"] = export(made, release)
    return told
