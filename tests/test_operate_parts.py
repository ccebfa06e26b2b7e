"""What deployments are made of, without a server: which errors are tried again, locks, log lines, signals."""

import errno
import io
import json
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from helpers import ROOT, small_dump
from rich.console import Console
from typer.testing import CliRunner

from sid_flows import artifacts, engines, faults, json_lines, reporting, verifying
from sid_flows.recipe import dataset_of
from sid_pipelines.sharded import committed
from sid_schemas import DataError, GateRefusedError, RecipeError, WarehouseError
from sid_schemas.errors import UnreachableError
from sid_warehouse import locks, objects, origin
from sidmill import console, running
from sidmill.cli import app


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (OSError(errno.EHOSTUNREACH, "no route"), True),
        (OSError(errno.ESTALE, "stale NFS handle"), True),
        (EndpointConnectionError(endpoint_url="http://store"), True),
        (ReadTimeoutError(endpoint_url="http://store"), True),
        (UnreachableError("s3://b: the store cannot be reached"), True),
        (raised_from(RuntimeError("upload"), ConnectionError()), True),
        (OSError(errno.ENOSPC, "disk full"), False),
        (FileNotFoundError(errno.ENOENT, "no file"), False),
        (TimeoutError("a stage's own"), False),
        (NoCredentialsError(), False),
        (ValueError("a defect"), False),
        (BrokenPipeError(errno.EPIPE, "a reader that left"), False),
        (OSError(errno.EPIPE, "the same"), False),
        (ssl.SSLCertVerificationError("a certificate"), False),
        (SSLError(endpoint_url="http://store", error="a certificate"), False),
        (ProxyConnectionError(proxy_url="http://proxy"), False),
        (RecipeError("recipe"), False),
        (DataError("data"), False),
        (GateRefusedError("gate"), False),
        (WarehouseError("damaged"), False),
        # What a SidmillError says counts, whatever it was raised from.
        (raised_from(WarehouseError("damaged"), ConnectionError()), False),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else str(one),
)
def test_only_network_and_store_are_tried_again(error: Exception, passes: bool) -> None:
    assert faults.may_pass(error) is passes


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", UnreachableError),
        (500, "InternalError", UnreachableError),
        (429, "TooManyRequests", UnreachableError),
        (400, "RequestTimeout", UnreachableError),
        (403, "AccessDenied", WarehouseError),
        (404, "NoSuchBucket", WarehouseError),
        (501, "NotImplemented", WarehouseError),
    ],
)
def test_a_store_says_what_may_pass(status: int, code: str, kind: type[Exception]) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(WarehouseError) as caught, objects.Objects("b", "")._explained("key"):
        raise ClientError(answer, "PutObject")
    assert type(caught.value) is kind


HOLDS = """
import sys
from pathlib import Path
from sid_warehouse import locks
with locks.in_turn(Path(sys.argv[1]), lambda holder: print("waits for", holder, flush=True)):
    print("has it", flush=True)
    sys.stdin.read()
"""


def holder(lock: Path) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", HOLDS, str(lock)], stdin=pipe, stdout=pipe, text=True)


def test_of_two_runs_of_a_data_set_one_waits_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    lock = tmp_path / ".lock-small"
    first = holder(lock)
    assert first.stdout
    assert first.stdout.readline() == "has it\n"
    second = holder(lock)
    assert second.stdout
    assert second.stdout.readline().startswith(f"waits for process {first.pid} on ")
    with locks.in_turn(tmp_path / ".lock-other", pytest.fail):  # another data set waits for nobody
        pass
    first.kill()
    first.wait()
    assert second.stdout.readline() == "has it\n"
    second.communicate("", timeout=30)
    with locks.in_turn(lock, pytest.fail):
        assert lock.read_text().startswith("process ")


def test_a_log_line_has_rows_and_their_rate(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="sidmill"):
        told = reporting.LogReporter()
        told.finished("clean", "147 interactions", 2.0, rows=214, key="c28d")
        told.reused("text", "37 texts", rows=37)
        told.retrying("publish", 3, 20.0, "ConnectionResetError: reset")
    assert caplog.messages == [
        "clean       147 interactions  (2.0 s, 214 rows, 107 rows/s)",
        "text        37 texts  (reused)",
        "publish     attempt 3 in about 20 s: ConnectionResetError: reset",
    ]


def test_json_lines_have_the_same_fields_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "EVERY", 0.0)
    told = json_lines.JsonReporter()
    told.begun("small")
    told.started("embed text")
    told.progress("embed text", 64, 1342)
    told.progress("embed text", 7, 0)
    told.finished("embed text", "1,342 vectors\n\x1b[31m", 2.0, rows=1342, key="ab")
    told.reused("clean", "147 interactions", rows=214, key="cd")
    told.retrying("publish", 2, 10.0, "UnreachableError: s3://b")
    told.failed("gates", "refused")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\x1b" not in printed.err
    lines = [json.loads(line) for line in printed.err.splitlines()]
    events = ["begun", "started", "progress", "progress", "finished", "reused", "retrying", "failed"]
    assert [line["event"] for line in lines] == events
    assert {frozenset(line) for line in lines} == {
        frozenset(("time", "level", "event", "message", *json_lines.FIELDS))
    }
    assert {line["dataset"] for line in lines} == {"small"}
    assert (lines[2]["done"], lines[2]["total"], lines[3]["total"]) == (64, 1342, None)
    ended = {"rows": 1342, "seconds": 2.0, "rate": 671.0, "key": "ab", "reused": False}
    assert {name: lines[4][name] for name in ended} == ended
    assert (lines[5]["reused"], lines[6]["level"], lines[7]["level"]) == (True, "WARNING", "ERROR")
    assert (lines[6]["attempt"], lines[6]["seconds"]) == (2, 10.0)
    assert lines[6]["message"] == "attempt 2 in about 10 s: UnreachableError: s3://b"


def test_an_error_is_a_json_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDMILL_LOG", "json")
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    console.complain("one\n  two")
    line = json.loads(screen.getvalue())
    assert (line["event"], line["level"], line["message"]) == ("error", "ERROR", "one two")


def test_a_bar_shows_the_time_left_however_far_apart_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, clock = io.StringIO(), [1000.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(console, "OUT", Console(file=screen, force_terminal=True, width=110))
    bars = console.BarReporter()
    bars.started("embed")
    for done in (100, 200, 300):
        clock[0] += 60.0
        bars.progress("embed", done, 600)
    bars._bars.refresh()
    bars.close()
    assert "300/600" in screen.getvalue()
    assert "2/s, 3 min left" in screen.getvalue()


def test_how_long_the_rest_of_a_stage_takes_is_told_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = [0.0], []
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])

    class Kept(reporting.LineReporter):
        def line(self, text: str) -> None:
            lines.append(text)

    told = Kept()
    told.started("embed")
    clock[0] = 60.0
    told.progress("embed", 100, 400)
    clock[0] = 75.0
    told.progress("clean", 12, 0)  # how many there are nobody knows
    assert lines == ["embed       100 of 400, 2/s, 3 min left", "clean       12 tasks done"]


def test_tasks_done_on_a_cluster_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "COUNTED", 0.01)
    told: list[tuple[int, int, reporting.Reporter]] = []
    ours = reporting.LogReporter()
    token = reporting.reporter.set(ours)
    for number in range(3):
        task = tmp_path / "clean-first" / "dedupe" / f"{number:05d}"
        task.mkdir(parents=True)
        (task / committed.DONE).touch()

    def tell(done: int, total: int) -> None:
        told.append((done, total, reporting.reporter.get()))

    with engines._counted(tmp_path, tell):
        while not told:
            time.sleep(0.01)
    reporting.reporter.reset(token)
    assert told[0] == (3, 0, ours)  # the thread knows the run's reporter, and so its Prefect run


def test_a_run_counts_as_lost_after_three_heartbeats_and_no_sooner() -> None:
    from prefect.settings.models.flows import FlowsSettings

    made = yaml.safe_load((ROOT / "flows/automations.yaml").read_text())["automations"]
    (lost,) = [one["trigger"] for one in made if one["name"] == "sidmill-lost"]
    assert lost["after"] == ["prefect.flow-run.heartbeat"]
    assert lost["within"] >= 3 * FlowsSettings.model_fields["heartbeat_frequency"].default == 540


def test_deployments_leave_the_warehouse_to_the_environment() -> None:
    made = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [one["name"] for one in made] == ["build", "append", "retokenize", "export", "verify"]
    assert not [one["name"] for one in made if "warehouse" in one["parameters"]]


def test_the_report_of_a_release_in_a_store_is_linked_there(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import artifacts as theirs

    links: list[str] = []
    for name in ("create_table_artifact", "create_link_artifact"):
        monkeypatch.setattr(theirs, name, lambda **given: links.append(given.get("link", "")))
    monkeypatch.setenv("SIDMILL_WORK", str(tmp_path))
    artifacts.of_release(origin.work_folder("s3://demo/shop"), small.record)
    assert links == ["", "", "s3://demo/shop/releases/small/v1/report.html"]


def test_what_prefect_refuses_fails_no_run(
    small: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect import artifacts as theirs

    def refuse(**given: Any) -> None:
        raise RuntimeError("the server is gone")

    for name in ("create_table_artifact", "create_link_artifact", "create_progress_artifact"):
        monkeypatch.setattr(theirs, name, refuse)
    artifacts.of_release(small.plan.warehouse, small.record)
    monkeypatch.setattr(artifacts, "PATIENCE", 0.0)
    monkeypatch.setattr(artifacts, "has_server", lambda: True)
    told = artifacts.ProgressReporter()
    told.started("embed text")
    told.progress("embed text", 1, 2)
    told.finished("embed text", "all", 1.0)
    assert [message.partition(" could")[0] for message in caplog.messages] == [
        "sidmill-ledger", "sidmill-metrics", "sidmill-report", "progress of embed text",
    ]  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_the_one_to_go_on_with(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_dump(tmp_path)
    command = ["append", str(recipe), "--warehouse", str(tmp_path / "a b")]
    monkeypatch.setattr(sys, "argv", ["sidmill", *command])
    before = signal.getsignal(signal.SIGTERM)
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it

    def plan_append(*given: Any) -> None:
        signal.raise_signal(number)
        time.sleep(5)

    monkeypatch.setattr("sidmill.commands.append.plan_append", plan_append)
    try:
        done = CliRunner().invoke(app, command)
    finally:
        signal.signal(signal.SIGINT, heard)
    assert isinstance(done.exception, running.StoppedError)
    assert done.exception.exit_code == code
    again = str(done.exception).removeprefix("stopped; finished stages are kept, go on with: ")
    assert again.endswith(f"append {recipe} --warehouse '{tmp_path / 'a b'}'")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_verified_release_is_told_alike_by_command_and_flow(small: Any) -> None:
    place, ref = small.plan.warehouse, small.release.ref
    found = verifying.verified(place, ref, quick=True)
    done = CliRunner().invoke(app, ["verify", ref, "--quick", "--json", "-w", str(place)])
    assert json.loads(done.output) == found.told
    assert found.told["intact"] is True


def test_the_data_set_is_known_before_anything_else_of_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('dataset = "small"\n[nonsense]\n')
    assert dataset_of(recipe) == "small"
    assert dataset_of(recipe, ["dataset=other"]) == "other"
    recipe.write_text("")
    with pytest.raises(RecipeError):
        dataset_of(recipe)
