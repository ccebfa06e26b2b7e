"""Stages by shards beside the local ones: the same tables, facts and files, however they are divided."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from helpers import Run

from sid_flows.engines import carry_out
from sid_flows.plan import PlannedStage
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import Engine
from sid_pipelines.stage import Resources, Work
from sid_warehouse.stages import StageOutput, StageStore


def by_shards(
    run: Run, label: str, folder: Path, count: int, *, engine: Engine | None = None, seed: int = 0
) -> StageOutput:
    """Run one stage of a finished chain again, by shards, on the chain's own inputs; give its output."""
    [planned] = [one for one in run.plan.stages if one.label == label]
    return stage_by_shards(planned, planned.inputs(run.outputs), folder, count, engine or Inline(seed))


def stage_by_shards(
    planned: PlannedStage, inputs: Mapping[str, StageOutput], folder: Path, count: int, engine: Engine
) -> StageOutput:
    """Run one stage by shards into a warehouse of its own."""
    stage, store = planned.stage, StageStore(folder, "sharded")
    identity = stage.identity(planned.params, planned.parents)
    with store.write(stage.name, planned.key, identity) as draft:
        resources = Resources(memory="1GiB", cache=folder / "cache")
        work = Work(planned.params, inputs, draft, resources, lambda done, total: None)
        outcome, told = carry_out(stage, planned.key, work, engine, warehouse=folder, shards=count)
        assert told is not None, f"{stage.name} did not run by shards"
        return draft.commit(outcome.facts, outcome.summary, told)


def locally(run: Run, label: str, folder: Path) -> StageOutput:
    """Run one stage of a finished chain again in this process, with whatever a test has patched since."""
    [planned] = [one for one in run.plan.stages if one.label == label]
    stage, inputs = planned.stage, planned.inputs(run.outputs)
    identity = stage.identity(planned.params, planned.parents)
    with StageStore(folder, "local").write(stage.name, planned.key, identity) as draft:
        resources = Resources(memory="1GiB", cache=folder / "local-cache")
        outcome = stage.run(Work(planned.params, inputs, draft, resources, lambda done, total: None))
        return draft.commit(outcome.facts, outcome.summary)


def assert_same(local: StageOutput, sharded: StageOutput) -> None:
    """Compare two outputs: rows of each table in order, facts, summary, and every file that is no table."""
    assert sharded.manifest["rows"] == local.manifest["rows"]
    for table in local.manifest["rows"]:
        ours, theirs = whole(sharded, table), whole(local, table)
        assert ours.schema.equals(theirs.schema, check_metadata=True), table
        if not ours.equals(theirs):
            for name in theirs.column_names:
                assert ours[name].to_pylist() == theirs[name].to_pylist(), f"{table}.{name}"
    assert sharded.facts == local.facts
    assert sharded.manifest["summary"] == local.manifest["summary"]
    others = {
        name: {key: one for key, one in entry.items() if key in ("bytes", "sha256")}
        for name, entry in local.manifest["files"].items()
        if not name.endswith(".parquet")
    }
    for name, entry in others.items():
        assert {key: sharded.manifest["files"][name][key] for key in entry} == entry, name
    assert {name for name in sharded.manifest["files"] if not name.endswith(".parquet")} == set(others)


def whole(output: StageOutput, table: str) -> pa.Table:
    return output.read(table).combine_chunks()
