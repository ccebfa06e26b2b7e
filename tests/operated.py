"""A Prefect server and workers on loopback for tests, and what is asked of them over the API."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import ROOT, environment, more_dump, small_dump

QUICK = 'levels = [8, 8]\n[[embed]]\nmodel = "hashing"\n'
# Goes on until somebody ends it, and tells how far it is.
ENDLESS = """[[embed]]
name = "cf"
modality = "collaborative"
model = "bpr"
iterations = 2000000000
"""
TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
DEPLOYMENTS = {
    "build": "sidmill-build",
    "append": "sidmill-append",
    "retokenize": "sidmill-retokenize",
    "export": "sidmill-export",
    "verify": "sidmill-verify",
}


class Operated:
    """A server of its own: home, port, processes. Everything that it started ends with `close`."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.home = f"http://127.0.0.1:{port}/api", home
        self.env = environment() | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_UI_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_SERVER_SERVICES_TRIGGERS_PROACTIVE_GRANULARITY": "PT1S",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # the least that Prefect allows; see `warned`
        }
        self.running: list[subprocess.Popen[bytes]] = []
        self.server = self.start("prefect", "server", "start")
        self.api = httpx.Client(base_url=self.url, timeout=30)
        self.until(self._healthy, "the server answers", 120)

    def _healthy(self) -> bool:
        try:
            return self.api.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def start(self, module: str, *arguments: str, **env: str) -> "subprocess.Popen[bytes]":
        """Start a module's command in a session of its own, its output in the home."""
        with (self.home / f"process{len(self.running)}.log").open("wb") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=self.env | env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(started)
        return started

    def prefect(self, *arguments: str) -> str:
        """Run a command of Prefect's to its end, which asks nobody anything, and give what it printed."""
        command = [sys.executable, "-m", "prefect", *arguments]
        env = self.env | {"PREFECT_CLI_PROMPT": "false"}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Ask the server, and again while its database is busy, as Prefect's own clients do."""
        for _ in range(10):
            answer = self.api.request(method, path, **given)
            if answer.status_code != 503:
                break
            time.sleep(0.5)
        return answer

    def post(self, path: str, **body: Any) -> Any:
        answer = self.ask("POST", path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def without_schedules(self) -> None:
        """Let no deployment start by the clock."""
        for one in self.post("/deployments/filter"):
            for schedule in one["schedules"]:
                path = f"/deployments/{one['id']}/schedules/{schedule['id']}"
                assert self.api.patch(path, json={"active": False}).status_code == 204

    def deployment(self, name: str) -> dict[str, Any]:
        answer = self.ask("GET", f"/deployments/name/{DEPLOYMENTS[name]}/{name}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def run(self, name: str, **parameters: Any) -> str:
        """Ask for a run of a deployment, and give its id."""
        made = self.post(f"/deployments/{self.deployment(name)['id']}/create_flow_run", parameters=parameters)
        return str(made["id"])

    def flow_run(self, run: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/flow_runs/{run}").json())

    def ended(self, run: str, timeout: float = 240) -> str:
        """Wait for the end of a run, and give the type of its state."""
        self.until(lambda: self.flow_run(run)["state_type"] in TERMINAL, f"{run} ends", timeout, run)
        return str(self.flow_run(run)["state_type"])

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        """Give the tasks of a run by the stage's label; Prefect adds three digits to each name."""
        found = self.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
        return {one["name"].rpartition("-")[0]: one for one in found}

    def logs(self, run: str) -> list[str]:
        found = self.post("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC")
        return [one["message"] for one in found]

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        found = self.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
        return {one["key"]: one for one in found}

    def events(self, *names: str) -> list[dict[str, Any]]:
        found = self.post("/events/filter", filter={"event": {"name": list(names)}})
        return list(found["events"])

    def until(self, ready: Callable[[], Any], what: str, timeout: float = 60, run: str = "") -> None:
        end = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout} s: {what}\n{self._last_words(run)}")
            time.sleep(0.3)

    def _last_words(self, run: str) -> str:
        told = [self.logs(run)[-15:], self.flow_run(run)["state"]] if run else []
        told += [path.read_text(errors="replace")[-1500:] for path in sorted(self.home.glob("process*.log"))]
        return "\n".join(one if isinstance(one, str) else json.dumps(one, indent=1) for one in told)

    def children(self, of: int) -> list[int]:
        """Give the processes below one, however deep."""
        parents: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found, pending = [], [of]
        while pending:
            new = parents.get(pending.pop(), [])
            found += new
            pending += new
        return found

    def left(self) -> list[int]:
        """Give the processes that still have this server's home in their environment."""
        mark, found = f"PREFECT_HOME={self.home}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found

    def close(self) -> None:
        """End all, the server last."""
        for one in reversed(self.running):
            self.end(one)
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self, one: "subprocess.Popen[bytes]") -> None:
        """Ask a process to end; what does not is killed with all that it started."""
        below = self.children(one.pid)
        if one.poll() is None:
            one.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(10)
        for pid in (one.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.wait()


def documented() -> list[list[str]]:
    """Give the commands of docs/operate.md's first block that end by themselves."""
    block = re.search(r"## Deploy\n.*?```sh\n(.*?)```", (ROOT / "docs/operate.md").read_text(), re.DOTALL)
    assert block
    lines = block[1].splitlines()
    return [shlex.split(line) for line in lines if line.startswith("prefect ") and not line.endswith("&")]


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """A server with a pool and all deployments, none of them scheduled."""
    server = Operated(tmp_path_factory.mktemp("prefect"))
    try:
        for words in documented()[:2]:  # the pool, the deployments
            server.prefect(*words[1:])
        server.without_schedules()  # or 03:17 runs the example in here
        yield server
    finally:
        server.close()
    assert server.left() == []


@pytest.fixture(scope="module")
def worker(operated: Operated) -> "subprocess.Popen[bytes]":
    return operated.start("prefect", "worker", "start", "--pool", "local", SIDMILL_LOG="json")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dump, another to append, and a warehouse to be."""
    folder = tmp_path_factory.mktemp("small")
    recipe = small_dump(folder / "first", users=30, movies=40)
    recipe.write_text(recipe.read_text().replace("levels = [4, 4]\n", QUICK))
    more_dump(folder / "more")
    return folder


@pytest.fixture(scope="module")
def built(operated: Operated, worker: Any, place: Path) -> str:
    """The run that published small@v1, asked for on the command line."""
    told = operated.prefect(
        "deployment", "run", "sidmill-build/build",
        "-p", f"recipe_path={place / 'first' / 'recipe.toml'}", "-p", f"warehouse={place / 'w'}", "--watch",
    )  # fmt: skip
    assert "Completed" in told
    runs = operated.post("/flow_runs/filter", flows={"name": {"any_": ["sidmill-build"]}})
    assert len(runs) == 1
    return str(runs[0]["id"])


@pytest.fixture(scope="module")
def warned(operated: Operated) -> None:
    """The automations of flows/automations.yaml, as patient with a sixth of the heartbeats' time."""
    hurried = operated.home / "automations.yaml"
    text = (ROOT / "flows/automations.yaml").read_text()
    assert text.count("within: 600\n") == 1
    hurried.write_text(text.replace("within: 600\n", "within: 100\n"))
    operated.prefect("automation", "create", "--from-file", str(hurried))


def of_small(place: Path, *overrides: str) -> dict[str, Any]:
    recipe = place / "first" / "recipe.toml"
    return {"recipe_path": str(recipe), "warehouse": str(place / "w"), "overrides": list(overrides)}


def training(operated: Operated, place: Path, *overrides: str) -> str:
    """Start a run that trains for ever, and wait until it does; gives the run."""
    given = of_small(place, *overrides)
    recipe = Path(given["recipe_path"])
    endless = recipe.with_name("endless.toml")
    endless.write_text(recipe.read_text().replace("levels", 'vectors = "text"\nlevels') + ENDLESS)
    run = operated.run("build", **given | {"recipe_path": str(endless)})
    operated.until(
        lambda: "sidmill-progress-embed-cf" in operated.artifacts(run), "it shows how far", 300, run
    )
    return run


def reused(operated: Operated, run: str) -> set[str]:
    return {line.split("  ")[0].strip() for line in operated.logs(run) if line.endswith("(reused)")}
