"""Deployments as an engineer has them: a Prefect server, a worker, runs, artifacts, events, for real."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT
from operated import DEPLOYMENTS, Operated, of_small, training

from sid_flows import forms
from sid_pipelines.chain import STEPS
from sid_pipelines.exports import FORMATS
from sid_pipelines.trainers import TRAINERS
from sid_warehouse import locks
from sid_warehouse.reader import Warehouse
from sid_warehouse.verify import verify

pytestmark = pytest.mark.e2e


def test_every_parameter_has_a_title_and_a_description_in_the_form(operated: Operated) -> None:
    for name in DEPLOYMENTS:
        schema = operated.deployment(name)["parameter_openapi_schema"]
        for parameter, said in schema["properties"].items():
            assert said["title"] == parameter
            assert said["description"].endswith("."), (name, parameter)
    build = operated.deployment("build")["parameter_openapi_schema"]["properties"]
    assert build["until"]["anyOf"][0]["enum"] == list(STEPS) == list(forms.STAGES)
    retokenize = operated.deployment("retokenize")["parameter_openapi_schema"]["properties"]
    assert (retokenize["match"]["type"], retokenize["match"]["default"]) == ("boolean", True)
    export = operated.deployment("export")["parameter_openapi_schema"]
    assert export["properties"]["format_name"]["enum"] == [*FORMATS, *sorted(TRAINERS)]
    assert export["required"] == ["ref", "format_name", "to"]


def test_an_append_is_scheduled_daily_at_an_hour_that_every_day_has_once(operated: Operated) -> None:
    schedules = operated.deployment("append")["schedules"]
    assert [(one["schedule"]["cron"], one["schedule"]["timezone"]) for one in schedules] == [
        ("17 3 * * *", "UTC")
    ]
    for name in ("build", "append", "retokenize"):
        assert operated.deployment(name)["global_concurrency_limit"]["limit"] == 4


def test_a_form_refuses_what_it_does_not_offer(operated: Operated) -> None:
    build = f"/deployments/{operated.deployment('build')['id']}/create_flow_run"
    answer = operated.api.post(build, json={"parameters": {"until": "brew"}})
    assert answer.status_code == 409
    assert "brew" in answer.text


def test_a_deployment_publishes_a_release_and_tells_so(operated: Operated, place: Path, built: str) -> None:
    release = Warehouse(place / "w").release("small@v1")
    assert verify(release.folder) == []
    assert operated.flow_run(built)["state_type"] == "COMPLETED"
    tasks = operated.tasks(built)
    ran = [name for name in STEPS if name not in ("embed", "fuse", "pieces", "users")]
    assert set(tasks) == {"plan", "embed text", *ran}
    assert {one["state_type"] for one in tasks.values()} == {"COMPLETED"}
    operated.until(lambda: any("publish" in line for line in operated.logs(built)), "logs are there")
    lines = {line.split()[0]: line for line in operated.logs(built)}
    rows = sum(release.record["rows"][name] for name in ("interactions", "users", "items"))
    assert f" s, {rows:,} rows, " in lines["clean"]
    assert lines["clean"].endswith(" rows/s)")


def test_its_log_is_json_where_that_is_asked_for(operated: Operated, built: str) -> None:
    printed = [path.read_text() for path in sorted(operated.home.glob("process*.log"))]
    lines = [json.loads(line) for text in printed for line in text.splitlines() if line.startswith('{"time"')]
    ended = {line["stage"]: line for line in lines if line["event"] == "finished"}
    assert ended["publish"]["message"].startswith("small@v1, ")
    assert ended["publish"]["dataset"] == "small"
    for line in ended.values():
        assert line["level"] == "INFO"
        assert len(line["key"]) == 16
        assert line["rate"] == pytest.approx(line["rows"] / max(line["seconds"], 1e-3), rel=0.01, abs=0.1)


def test_its_artifacts_are_there_to_look_at(operated: Operated, place: Path, built: str) -> None:
    release = Warehouse(place / "w").release("small@v1")
    found = operated.artifacts(built)
    assert set(found) >= {"sidmill-ledger", "sidmill-metrics", "sidmill-report"}
    assert json.loads(found["sidmill-ledger"]["data"]) == release.metrics["ledger"]
    metrics = {row["metric"]: row["value"] for row in json.loads(found["sidmill-metrics"]["data"])}
    assert metrics["uniquely_identified"] == 1.0
    assert metrics["rows.sids"] == release.record["rows"]["sids"]
    assert (release.folder / "report.html").as_uri() in found["sidmill-report"]["data"]


def test_a_published_release_is_an_event(operated: Operated, built: str) -> None:
    def told() -> list[dict[str, Any]]:
        return operated.events("sidmill.release.published")

    operated.until(told, "the event is there")
    event = told()[0]
    assert event["resource"]["prefect.resource.id"] == "sidmill.dataset.small"
    assert event["payload"]["ref"] == "small@v1"
    assert event["payload"]["metrics"]["collision_rate"] == 0
    assert f"prefect.flow-run.{built}" in [one["prefect.resource.id"] for one in event["related"]]


def test_a_release_is_exported_and_verified(operated: Operated, place: Path, built: str) -> None:
    where = {"ref": "small", "warehouse": str(place / "w")}
    runs = [
        operated.run("export", format_name="grid", to=str(place / "out"), **where),
        operated.run("verify", quick=True, **where),
    ]
    assert [operated.ended(run) for run in runs] == ["COMPLETED", "COMPLETED"]
    assert (place / "out" / "README.md").is_file()
    operated.until(
        lambda: "small@v1 is intact: " in "".join(operated.logs(runs[1])), "it says so", 20, runs[1]
    )


def test_where_a_gate_refuses_the_daily_append_is_paused(
    operated: Operated, place: Path, built: str, warned: None
) -> None:
    assert operated.deployment("append")["paused"] is False
    refused = operated.run(
        "append",
        recipe_path=str(place / "more" / "recipe.toml"),
        warehouse=str(place / "w"),
        overrides=["append.max_error_ratio=0.001", "append.drift=fail"],
    )
    assert operated.ended(refused) == "FAILED"
    assert "GateRefusedError" in operated.flow_run(refused)["state"]["message"]
    operated.until(lambda: operated.deployment("append")["paused"], "the automation pauses it")
    operated.until(lambda: operated.events("sidmill.gate.refused"), "the event is kept")
    event = operated.events("sidmill.gate.refused")[0]
    assert event["resource"]["prefect.resource.id"] == "sidmill.dataset.small"
    assert "retokenize" in event["payload"]["message"]
    assert len(Warehouse(place / "w").releases()) == 1


HELD = """
import sys, time
from pathlib import Path
from sid_warehouse import locks
with locks.in_turn(Path(sys.argv[1]), print):
    print("has it", flush=True)
    time.sleep(600)
"""


def test_runs_wait_for_the_one_that_has_their_data_set(operated: Operated, place: Path, built: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HELD, str(place / "w" / ".lock-small")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "has it\n"
        # The dump is in the release, so the append too has nothing to do.
        runs = [operated.run(name, **of_small(place)) for name in ("build", "append")]

        def waits(run: str) -> list[str]:
            return [line for line in operated.logs(run) if line.startswith("waits")]

        for run in runs:
            operated.until(lambda run=run: waits(run), "it waits", 60, run)  # type: ignore[misc]
            assert f"another run has this data set: process {holder.pid} on " in waits(run)[0]
            assert operated.flow_run(run)["state_type"] == "RUNNING"
    finally:
        holder.kill()  # by SIGKILL: nothing is let go but by the kernel
        holder.wait()
    assert [operated.ended(run) for run in runs] == ["COMPLETED", "COMPLETED"]
    assert len(Warehouse(place / "w").releases()) == 1


def test_a_cancelled_run_ends_its_process_and_leaves_nothing(
    operated: Operated, worker: "subprocess.Popen[bytes]", place: Path, built: str
) -> None:
    run = training(operated, place)
    progress = operated.artifacts(run)["sidmill-progress-embed-cf"]
    assert progress["type"] == "progress"
    assert 0 <= float(progress["data"]) < 100
    at_work = operated.children(worker.pid)
    assert at_work
    operated.prefect("flow-run", "cancel", run)
    assert operated.ended(run) == "CANCELLED"
    operated.until(lambda: not set(at_work) & set(operated.children(worker.pid)), "its process is gone", 60)
    assert not list((place / "w").rglob(".tmp-*"))
    with locks.in_turn(place / "w" / ".lock-small", pytest.fail):  # the next run waits for nobody
        pass


RETRIED = """
import errno, sys
from sid_flows import build, execute, json_lines, reporting, tasks
from sid_schemas import RecipeError
from sid_schemas.errors import UnreachableError

recipe, warehouse = sys.argv[1:]
faults = [ConnectionResetError(errno.ECONNRESET, "reset"), UnreachableError("s3://b cannot be reached")]
tasks.plan.retry_delay_seconds = tasks.publish.retry_delay_seconds = [0, 0, 0, 0]
reporting.reporter.set(json_lines.JsonReporter())
plan, tried, anew = build.plan.make_plan, [], []

def make_plan(*arguments):
    tried.append(1)
    if faults:
        raise faults.pop(0)
    return plan(*arguments).with_published(None) if anew else plan(*arguments)

def finish(*given):
    raise ConnectionResetError(errno.ECONNRESET, "reset")

build.plan.make_plan = make_plan
print(build.build(recipe, warehouse)["version"], "after", len(tried))
tried.clear()
try:
    build.build(recipe, warehouse, overrides=["tokenize.levles=[8]"])
except RecipeError as error:
    print("refused after", len(tried), str(error).partition(": ")[2])
try:
    build.build(recipe, warehouse, overrides=["tokenize.seed=9"], stage_timeout=0.005)
except TimeoutError as error:
    print("too long:", error)
anew, execute.finish = True, finish
try:
    build.build(recipe, warehouse)
except ConnectionResetError:
    print("gave up")
"""


def test_the_network_is_tried_again_a_bad_recipe_is_not_and_a_stage_has_its_time(
    operated: Operated, place: Path, built: str
) -> None:
    command = [sys.executable, "-c", RETRIED, str(place / "first" / "recipe.toml"), str(place / "w")]
    done = subprocess.run(command, env=operated.env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0] == "1 after 3"
    assert told[1].startswith("refused after 1 unknown key 'tokenize.levles'")
    assert told[2].startswith("too long: ")
    assert told[3] == "gave up"
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"time"')]
    again = [(one["stage"], one["attempt"]) for one in lines if one["event"] == "retrying"]
    assert again == [("plan", 2), ("plan", 3), *(("publish", number) for number in (2, 3, 4, 5))]
    why = "attempt 2 in about 0 s: ConnectionResetError: [Errno 104] reset"
    assert next(one["message"] for one in lines if one["event"] == "retrying") == why
    assert [one["stage"] for one in lines if one["event"] == "failed"].count("publish") == 1
    assert not list((place / "w" / "stages").rglob(".tmp-*"))
