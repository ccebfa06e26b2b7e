"""Kill a publisher, or fail its calls, at every one of them; look at what readers see; publish again.

    python tests/kill_harness.py WORLD [TASK]...    JSON; a line with the result of each; none: prepare

Publishers are forked from a process that never uses DuckDB or Arrow's threads. So this is run as a program
of its own, also by `kills`, which needs no pytest.
"""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from at_work import race, readers
from atomic_world import World, leftovers, prepare
from helpers import ROOT, environment
from tapped import Call, tap
from trials import Fork, Result, summary, told, trial

from sid_flows.execute import execute
from sid_flows.plan import make_plan
from sid_warehouse import catalog, files
from sid_warehouse.stages import StageOutput

# Kills


def calls_of(world: World, sabotage: str | None = None) -> list[Call]:
    """Give all calls of a publish that nobody disturbs."""

    def work() -> list[tuple[int, str, str, str]]:
        heard: list[Call] = []
        SABOTAGES[sabotage]()
        tap(world.warehouse, heard.append)
        world.publish()
        return [(call.number, call.name, call.does, call.path) for call in heard]

    _, said = Fork(work).wait()
    world.restore()
    if isinstance(said, dict):
        raise AssertionError(said)
    return [Call(*one) for one in said]


def kill(
    world: World,
    *,
    every: int = 1,
    offset: int = 0,
    only: str = "",
    sabotage: str | None = None,
    recover_every: int = 1,
) -> Result:
    """Kill the publisher before each of its calls, or before every so many of those whose text holds `only`.

    recover_every: after how many kills in a row the next run is tried.
    """
    calls = calls_of(world, sabotage)

    def at(number: int, recovering: bool) -> Result:
        def work() -> None:
            def hear(call: Call) -> None:
                if call.number == number:
                    os.kill(os.getpid(), signal.SIGKILL)

            SABOTAGES[sabotage]()
            tap(world.warehouse, hear)
            world.publish()

        return trial(world, work, recovering=recovering)

    picked = [call for call in calls if only in str(call)][offset::every]
    tried = [
        {"at": str(call), **at(call.number, n % recover_every == 0)} for n, call in enumerate(picked, start=1)
    ]
    return summary(tried, calls=len(calls), expected="killed")


def kill_at_random(world: World, *, n: int, seed: int = 0, recover_every: int = 1) -> Result:
    """Kill the publisher at random moments, one in each n-th of the time it takes, and a little after."""
    draw, usual = random.Random(seed), []
    for _ in range(3):
        started = time.monotonic()
        Fork(world.publish).wait()
        usual.append(time.monotonic() - started)
        world.restore()
    slices = draw.sample(range(n), n)
    tried = []
    for number, place in enumerate(slices, start=1):
        delay = 1.1 * sorted(usual)[1] * (place + draw.random()) / n
        found = trial(world, world.publish, delay=delay, recovering=number % recover_every == 0)
        tried.append({"at": f"{delay:.4f} s", **found})
    return summary(tried, seconds=max(usual))


# Refusals of the disk


def fail(
    world: World, *, error: str, does: Sequence[str], stays: bool, every: int = 1, offset: int = 0
) -> Result:
    """Let each call of some kinds fail with an error; stays: and all such calls after it."""
    number = getattr(errno, error)
    calls = [call for call in calls_of(world) if call.does in does]

    def at(bad: Call) -> Result:
        def work() -> None:
            def hear(call: Call) -> None:
                now = call.number >= bad.number if stays else call.number == bad.number
                if now and call.does in does:
                    raise OSError(number, os.strerror(number), str(world.warehouse) + call.path)

            tap(world.warehouse, hear)
            world.publish()

        return trial(world, work, tidy=list(does) == ["make"], unreadable=bad.does == "read")

    tried = [{"at": str(call), **at(call)} for call in calls[offset::every]]
    return summary(tried, calls=len(calls))


def lock_out(world: World) -> Result:
    """Publish where nothing may be written, as nobody where we are root, who may write everywhere."""
    folders, root = (world.warehouse, world.parent), os.geteuid() == 0

    def work() -> None:
        modes = [folder.stat().st_mode for folder in folders]
        for folder in folders:
            folder.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            world.publish()
        finally:
            if root:
                os.seteuid(0)
            for folder, mode in zip(folders, modes, strict=True):
                folder.chmod(mode)

    return summary([{"at": "locked out", **trial(world, work, tidy=True)}], expected="refused")


def limited(size: int) -> None:
    """Let no file of this process grow beyond a size; the kernel refuses it to DuckDB and Arrow too."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limit(world: World, *, sizes: Sequence[int]) -> Result:
    """Publish where no file may grow beyond a size."""

    def at(size: int) -> Result:
        def work() -> None:
            limited(size)
            world.publish()

        return trial(world, work, tidy=True)

    return summary([{"at": f"{size} bytes", **at(size)} for size in sizes])


def limit_stages(world: World, *, sizes: Sequence[int], override: str, until: str | None = None) -> Result:
    """Run the stages that an override makes necessary where no file may grow beyond a size; then without.

    until: the last stage to run, None for all.
    """
    tried = []
    for size in sizes:
        plan = make_plan(world.folder / "recipe.toml", world.warehouse, [override], until)
        fresh = [planned for planned in plan.stages if planned.done is None]

        def stages() -> None:
            outputs: dict[str, StageOutput] = {}
            for planned in plan.stages:  # noqa: B023  it is forked, and over before the next
                outputs[planned.label] = execute(plan, planned, outputs)  # noqa: B023

        def within() -> None:
            limited(size)  # noqa: B023
            stages()

        ended, said = Fork(within).wait()
        problems = [f"{path} is not removed" for path in leftovers(world.warehouse)]
        problems += [told(said, "crashed") or ""] if told(said, "crashed") else []
        there = [one.label for one in fresh if (plan.store.root / one.stage.name / one.key).exists()]
        if there != [one.label for one in fresh][: len(there)]:
            problems.append(f"there are outputs of {there}")
        again = Fork(stages).wait()[1]
        if again is not None:
            problems.append(f"the next run: {again}")
        for one in fresh:
            shutil.rmtree(plan.store.root / one.stage.name / one.key, ignore_errors=True)
        refused = told(said, "refused")
        how = "refused" if refused else f"ended by {ended}" if ended else "finished"
        one = {"at": f"{size} bytes", "ended": how, "seen": "old", "refused": refused, "problems": problems}
        tried.append(one)
    return summary(tried, expected="refused")


def fill(world: World, *, free: Sequence[int]) -> Result:
    """Publish onto a disk with so many bytes free; the world must lie on a small one of its own."""
    ballast = world.folder / "ballast"

    def at(bytes_free: int) -> Result:
        def work() -> None:
            disk = os.statvfs(world.folder)
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - bytes_free)
            try:
                world.publish()
            finally:
                ballast.unlink()  # the next run finds room again

        return trial(world, work, tidy=True)

    return summary([{"at": f"{bytes_free} bytes free", **at(bytes_free)} for bytes_free in free])


# Sabotage: ways to publish that look right and are not atomic. The harness must find each of them out.


def _piecemeal(first: str | None) -> None:
    """Copy into v<N> file by file instead of renaming; first: the file that comes before all others."""

    def rename_folder(folder: Path, target: Path) -> bool:
        names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        target.mkdir()
        for name in sorted(names, key=lambda name: (str(name) != first, str(name) == "release.json", name)):
            files.copy_hashed(folder / name, target / name)
        return True

    files.rename_folder = rename_folder


def _catalog_in_place() -> None:
    """Write over the catalog instead of renaming a new one over it."""
    real = os.replace

    def replace(source: Any, target: Any, **options: Any) -> None:
        if Path(target).name != catalog.NAME:
            real(source, target, **options)
        else:
            Path(target).write_bytes(Path(source).read_bytes())

    os.replace = replace


SABOTAGES: dict[str | None, Callable[[], None]] = {
    None: lambda: None,
    "record last": lambda: _piecemeal(None),
    "record first": lambda: _piecemeal("release.json"),
    "catalog in place": _catalog_in_place,
}


# From outside

TASKS: dict[str, Callable[..., Result]] = {
    one.__name__: one
    for one in (kill, kill_at_random, fail, lock_out, limit, limit_stages, fill, race, readers)
}


def run(world: Path, *tasks: Mapping[str, Any], before: Sequence[str] = ()) -> list[Result]:
    """Do tasks, each {"task": a name of TASKS, its parameters}, in a process of their own.

    before: what the command is handed to, such as `unshare`.
    """
    command = [*before, sys.executable, __file__, str(world), *map(json.dumps, tasks)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    if done.returncode:
        raise AssertionError(f"the harness itself broke:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def kills(n_random: int) -> dict[str, Any]:
    """Kill a publisher at each of its calls and at random moments.

    Gives "calls" (how many a publish makes), "tried", "survived", "outcomes" by how it ended and what was
    seen, and "failures" with what was wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        found = run(Path(folder), {"task": "kill"}, {"task": "kill_at_random", "n": n_random})
    return {
        "calls": found[0]["calls"],
        "tried": sum(one["tried"] for one in found),
        "survived": sum(one["survived"] for one in found),
        "outcomes": dict(sum((Counter(one["outcomes"]) for one in found), Counter())),
        "failures": [failure for one in found for failure in one["failures"]],
    }


def main(folder: str, *tasks: str) -> None:
    if not tasks:
        prepare(Path(folder))
        return
    world = World.open(Path(folder))
    for text in tasks:
        world.restore()
        task = json.loads(text)
        print(json.dumps(TASKS[task.pop("task")](world, **task)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
