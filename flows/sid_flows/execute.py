"""Run one planned stage, or reuse its output; publish. Plain functions, which `tasks` wraps for Prefect."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb

from sid_flows.engines import carry_out, engine_of, in_turn
from sid_flows.plan import Plan, PlannedStage
from sid_flows.report import render
from sid_flows.reporting import reporter
from sid_pipelines import publish, published
from sid_pipelines.ingest import check_rejects
from sid_pipelines.stage import Resources, Work, too_little_memory
from sid_schemas import WarehouseError
from sid_warehouse import files
from sid_warehouse.stages import StageOutput


def execute(plan: Plan, planned: PlannedStage, inputs: Mapping[str, StageOutput]) -> StageOutput:
    """Give the output of a stage, run now unless it is there already. inputs: outputs by label.

    Raises the stage's own SidmillError, and WarehouseError where the disk refuses.
    """
    label, report = planned.label, reporter.get()
    output = planned.done or plan.store.find(planned.stage.name, planned.key)
    if output:
        report.reused(label, output.manifest["summary"], rows=_rows(output.manifest), key=planned.key)
    else:
        report.started(label)
        with told_of(label):
            output = _run(plan, planned, inputs)
        made = output.manifest
        report.finished(label, made["summary"], made["seconds"], rows=_rows(made), key=planned.key)
    if label == "ingest":  # see Plan.check_limits
        check_rejects(output.facts, plan.recipe.clean.max_reject_rate)
    return output


def _run(plan: Plan, planned: PlannedStage, inputs: Mapping[str, StageOutput]) -> StageOutput:
    stage, report, section = planned.stage, reporter.get(), plan.recipe.engine
    identity = stage.identity(planned.params, planned.parents)
    with (
        files.explained(plan.warehouse),
        in_turn(section, plan.store, stage.name, planned.key),
        plan.store.write(stage.name, planned.key, identity) as draft,
    ):
        if done := plan.store.find(stage.name, planned.key):  # by another run, whose turn it was
            return done
        work = Work(
            params=planned.params,
            inputs=planned.inputs({**plan.given, **inputs}),
            out=draft,
            resources=Resources(memory=section.memory, cache=plan.warehouse / "cache"),
            progress=lambda done, total: report.progress(planned.label, done, total),
        )
        with _refusals(plan, planned.label):
            outcome, engine = carry_out(
                stage,
                planned.key,
                work,
                engine_of(section),
                warehouse=plan.warehouse,
                shards=section.shards,
            )
        return draft.commit(outcome.facts, outcome.summary, engine)


def finish(plan: Plan, outputs: Mapping[str, StageOutput]) -> dict[str, Any]:
    """Publish the outputs of all stages and give the release's record.

    Whether a failure is the end only the caller knows, who may try again: `told_of` is for it to use.
    """
    report, started = reporter.get(), time.monotonic()
    report.started("publish")
    with files.explained(plan.warehouse), _refusals(plan, "publish"):
        release = publish.publish(
            plan.warehouse,
            plan.recipe.dataset,
            {**plan.given, **outputs},
            plan.roles(outputs),
            plan.recipe.as_written(),
            plan.raw_files,
            render,
            kind=plan.kind,
            base=plan.base,
            copies={"copies": True, "views": False}.get(plan.recipe.publish.catalog or ""),
        )
    summary = f"{release['dataset']}@v{release['version']}, {len(release['files'])} files"
    seconds = time.monotonic() - started
    report.finished("publish", summary, seconds, rows=_rows(release), key=release["fingerprint"])
    return release


def stopped_at(plan: Plan, outputs: Mapping[str, StageOutput]) -> dict[str, Any]:
    """Tell of a run that was to stop early: its last stage, what cleaning took, what the split leaks."""
    roles, last = plan.roles(outputs), list(outputs)[-1]
    return {
        "stage": last,
        "key": outputs[last].manifest["key"],
        "folder": str(outputs[last].folder),
        "ledger": roles["clean"].facts["ledger"] if "clean" in roles else [],
        "findings": roles["split"].facts["audit"]["findings"] if "split" in roles else [],
        "published_statistics": published.compare(roles),
    }


def _rows(made: Mapping[str, Any]) -> int:
    """Give the rows of all tables of a stage's output, or of a release."""
    return sum(made["rows"].values())


@contextmanager
def told_of(label: str) -> Iterator[None]:
    """Tell the reporter what a stage ended in, where that is an error."""
    try:
        yield
    except Exception as error:
        reporter.get().failed(label, str(error) or type(error).__name__)
        raise


@contextmanager
def _refusals(plan: Plan, step: str) -> Iterator[None]:
    """Turn what DuckDB cannot do for lack of memory or disk into one line that says what to do."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise too_little_memory(step, plan.recipe.engine.memory, error) from error
    except duckdb.IOException as error:
        raise WarehouseError(f"{plan.warehouse}: {step}: {str(error).splitlines()[0]}") from error
