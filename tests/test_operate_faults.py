"""Deployments in trouble: runs that are killed, what automations make of it, and no worker at all."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from operated import Operated, of_small, reused, training

pytestmark = [pytest.mark.e2e, pytest.mark.proof]


def test_a_killed_worker_leaves_a_run_that_a_re_run_goes_on_with(
    operated: Operated, worker: "subprocess.Popen[bytes]", place: Path, built: str, warned: None
) -> None:
    run = training(operated, place, "tokenize.seed=2")
    for pid in (worker.pid, *operated.children(worker.pid)):
        os.kill(pid, signal.SIGKILL)
    worker.wait()
    assert operated.api.get("/health").status_code == 200
    assert operated.flow_run(run)["state_type"] == "RUNNING"  # as far as the server knows
    operated.start("prefect", "worker", "start", "--pool", "local")
    # An automation of flows/automations.yaml misses the heartbeat; then the deployment's slot is free.
    again = operated.run("build", **of_small(place, "tokenize.seed=2"))
    assert operated.ended(run, timeout=180) == "CRASHED"
    assert operated.ended(again) == "COMPLETED"
    assert reused(operated, again) >= {"ingest", "clean", "split", "text", "sequences", "pairs", "embed text"}
    assert not list((place / "w" / "stages").rglob(".tmp-*"))


def test_an_append_whose_items_do_not_fit_is_an_event(
    operated: Operated, place: Path, built: str, warned: None
) -> None:
    recipe, warehouse = str(place / "more" / "recipe.toml"), str(place / "w")
    limits = ["append.max_error_ratio=0.001"]
    run = operated.run("append", recipe_path=recipe, warehouse=warehouse, base="small@v1", overrides=limits)
    assert operated.ended(run) == "COMPLETED"
    operated.until(lambda: operated.events("sidmill.drift.high"), "the event is there")
    payload = operated.events("sidmill.drift.high")[0]["payload"]
    assert payload["reasons"][0].startswith("the codebooks fit new items worse")

    def fired() -> list[str]:
        triggered = operated.events("prefect.automation.triggered")
        return [one["resource"]["prefect.resource.name"] for one in triggered]

    operated.until(lambda: "sidmill-drift-high" in fired(), "the automation fires")


def test_one_process_serves_all_deployments(operated: Operated, place: Path) -> None:
    recipe = place / "first" / "recipe.toml"
    served = operated.start("sid_flows.serving", str(recipe), "--warehouse", str(place / "served"))
    build = {"recipe_path": str(recipe), "warehouse": str(place / "served")}
    last = {"ref": "small", "warehouse": str(place / "served")}
    operated.until(lambda: operated.deployment("verify")["parameters"] == last, "all are served", 120)
    assert operated.deployment("build")["parameters"] == build
    run = operated.run("build", until="clean")
    assert operated.ended(run) == "COMPLETED"
    operated.until(lambda: "\nclean " in "\n".join(operated.logs(run)), "its log is there", 20, run)
    operated.end(served)
    assert not set(operated.children(served.pid))
