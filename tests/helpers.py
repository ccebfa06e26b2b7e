"""What several tests share: small dumps, and the chain without Prefect."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sid_flows.append import plan_append
from sid_flows.execute import execute, finish
from sid_flows.plan import Plan, make_plan
from sid_pipelines import gates, publish
from sid_pipelines.recheck import holds
from sid_schemas import Check
from sid_schemas.suites import Verdict
from sid_warehouse.reader import Release
from sid_warehouse.stages import StageOutput

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "movietweetings.toml"
QUERY = "select text, title from movietweetings.sids join movietweetings.items using (item_index) limit 5"


@dataclass(frozen=True)
class Run:
    """A chain that ran in this process."""

    plan: Plan
    outputs: dict[str, StageOutput]
    record: dict[str, Any] | None

    @property
    def release(self) -> Release:
        assert self.record is not None
        folder = self.plan.warehouse / "releases" / self.record["dataset"] / f"v{self.record['version']}"
        return Release(folder)


def run_chain(recipe: Path, warehouse: Path, *overrides: str, until: str | None = None) -> Run:
    """Run every stage in this process, as the flow's tasks do, and publish unless stopped before."""
    plan = make_plan(recipe, warehouse, overrides, until)
    outputs: dict[str, StageOutput] = {}
    for planned in plan.stages:
        outputs[planned.label] = execute(plan, planned, outputs)
    return Run(plan, outputs, None if until else finish(plan, outputs))


def sidmill(*arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, away from any warehouse of the user's."""
    command = [sys.executable, "-m", "sidmill", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), **options)
    if check and done.returncode:
        raise AssertionError(f"{arguments} gave {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def inside(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, as `sidmill` does in one of its own, whose imports take a second."""
    from sidmill import cli

    printed, complained, status = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(complained):
        for name in os.environ.keys() - environment().keys():
            patch.delenv(name)
        patch.setattr(sys, "argv", ["sidmill", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    if check and status:
        raise AssertionError(f"{arguments} gave {status}:\n{printed.getvalue()}\n{complained.getvalue()}")
    return subprocess.CompletedProcess(arguments, status, printed.getvalue(), complained.getvalue())


def hear_the_signal() -> None:
    """Let Ctrl-C reach a child, before its program starts: a job in the background inherits it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("SIDMILL_", "PREFECT_"))}


def write_dump(folder: Path, ratings: list[str], movies: list[str]) -> Path:
    """Write a MovieTweetings dump of these lines and a recipe beside it; give the recipe."""
    dump = folder / "dump"
    dump.mkdir(parents=True, exist_ok=True)
    (dump / "ratings.dat").write_text("".join(f"{line}\n" for line in ratings), encoding="utf-8")
    (dump / "movies.dat").write_text("".join(f"{line}\n" for line in movies), encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        'dataset = "small"\n[source]\nkind = "movietweetings"\npath = "dump"\n'
        "[clean]\nk_core = 2\n[tokenize]\nlevels = [4, 4]\n"
    )
    return recipe


def small_dump(folder: Path, *, users: int = 12, movies: int = 9, seed: int = 0) -> Path:
    """Write a small dump in which every user rates several movies; give its recipe."""
    draw = np.random.default_rng(seed)
    genres = ["Drama", "Comedy|Short", "Horror", "Documentary", ""]
    titles = [
        f"{m:07d}::Film {'ABCDEFGHIJKLMNOP'[m % 16]}{m} ({1950 + m})::{genres[m % 5]}" for m in range(movies)
    ]
    ratings = []
    for user in range(users):
        for movie in sorted(draw.choice(movies, size=5, replace=False)):
            second = 1_300_000_000 + int(draw.integers(0, 10**7))
            ratings.append(f"{user + 1}::{movie:07d}::{int(draw.integers(0, 11))}::{second}")
    return write_dump(folder, ratings, titles)


def searched_dump(folder: Path, *, users: int = 8) -> Path:
    """Write a trivago dump with queries, sessions and lists as shown; give its recipe.

    Users look at hotels and click in lists, all but one session after a search; one click is of no list. The
    last hotel has no text, the others a hostile one.
    """
    head = "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters,"
    steps = [f"{head}impressions,prices"]
    for user, session, step in product(range(users), range(2), range(3)):
        city = "" if (user, session) == (3, 1) else f'"Bonn{user % 3}, Old Town"'
        near = [1000 + (user + 3 * session + step + k) % 9 for k in range(3)]
        shown = near[1:] if (user, session, step) == (1, 0, 2) else near  # the first is clicked
        what, listed = (
            ("clickout item", "|".join(map(str, shown))) if step else ("interaction item image", "")
        )
        second = 1_541_100_000 + user + 9_000 * session + 60 * step
        steps.append(f"u{user},s{user}-{session},{second},{step + 1},{what},{near[0]},PT,{city},d,,{listed},")
    hotels = [f'{1000 + n},"3 Star, ""x""\u2028\ty {n}|Bar"' for n in range(8)] + ["1008,"]
    (folder / "dump").mkdir(parents=True)
    for name, lines in (("train", steps), ("item_metadata", ["item_id,properties", *hotels])):
        (folder / "dump" / f"{name}.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        'dataset = "searched"\n[source]\nkind = "trivago"\npath = "dump"\n'
        '[clean]\ndedupe = "all"\nk_core = 1\n[[embed]]\nmissing = "mean"\n[tokenize]\nlevels = [4, 4]\n'
        '[gates]\nmax_duplicate_vectors = 1.0\nleakage = "warn"\n'
    )
    return recipe


ODD_IDS = (
    "../x", "a b", "tab\there", 'q"uo\'te', "comma,", "0", "line\nend", "None", "x[PAD]", "愛", "é", "semi;|",
    "x" * 40, "x{brace}",
)  # fmt: skip
ODD_TITLES = ("", 'a\ttab, "quoted" it\'s [1] {x}\u2028 </s> | ;\n x', "NA", "[]", "Same", "Same")


def odd_dump(folder: Path, more: str = "", *, start: int = 1_400_000_000) -> Path:
    """Write events and items that would break files, of users with 1 to 9 events in several sessions each.

    Give the recipe, which ends in `more`. start: the time of the first event.
    """
    folder.mkdir(parents=True)
    draw = np.random.default_rng(3)
    with (folder / "events.jsonl").open("w", encoding="utf-8") as file:
        for user, place in ((u, n) for u in range(20) for n in range(1 + u % 9)):
            event = {"u": f"user {user}\t\u2028'", "i": ODD_IDS[int(draw.integers(len(ODD_IDS)))]}
            event |= {"t": start + 100_000 * user + 4_000 * place, "s": f"{user}-{place // 2}"}
            event |= {"v": None if user == 1 else (2.5, -1.5, 3e10)[place % 3]}
            event |= {"q": (None, "What? {x}", "l'été\n", "?!")[place % 4]}
            file.write(json.dumps(event) + "\n")
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        for number, one in enumerate((*ODD_IDS, "without events")):
            told: dict[str, Any] = {"id": one, "title": ODD_TITLES[number % 6] if number % 3 else None}
            if number % 2:
                told |= {"cat": ["A/B {c}", 'B,"c"|d\n'], "brand": "{brand}\t", "price": 1e300}
            file.write(json.dumps(told) + "\n")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        'dataset = "odd"\n[source]\nkind = "table"\npath = "events.jsonl"\nitems = "items.jsonl"\n'
        'time_unit = "s"\n'
        'columns = {user_id = "u", item_id = "i", ts = "t", value = "v", session_id = "s", query = "q"}\n'
        'item_columns = {item_id = "id", title = "title", category_path = "cat", brand = "brand", '
        'price = "price"}\n'
        f"{more}"
    )
    return recipe


def more_dump(folder: Path) -> Path:
    """Write a dump to append to a small one: users and movies it knows, and two of each that it does not."""
    ratings = [
        f"{user}::{movie:07d}::7::{1_400_000_000 + user + movie}"
        for user in (1, 2, 13, 14)
        for movie in range(7, 11)
    ]
    movies = ["0000009::Film J (1999)::Drama", "0000010::Film K (1999)::Horror"]
    recipe = write_dump(folder, ratings, movies)
    recipe.write_text('dataset = "small"\n[source]\nkind = "movietweetings"\npath = "dump"\n')
    return recipe


def swapped(recipe: Path) -> None:
    """Alter each user's last two events: what one user had then, another had, so that counts stay."""
    path = recipe.parent / "dump" / "ratings.dat"
    rows = [line.split("::") for line in path.read_text().splitlines()]
    had: dict[str, set[str]] = {}
    for user, movie, *_ in rows:
        had.setdefault(user, set()).add(movie)
    moved = 0
    for place in (-1, -2):
        held = [sorted((r for r in rows if r[0] == user), key=lambda r: int(r[3]))[place] for user in had]
        while held:
            one = held.pop()
            for other in held:
                if other[1] not in had[one[0]] and one[1] not in had[other[0]]:
                    had[one[0]].add(other[1])
                    had[other[0]].add(one[1])
                    one[1], other[1] = other[1], one[1]
                    held.remove(other)
                    moved += 2
                    break
    assert moved >= 6
    path.write_text("".join("::".join(row) + "\n" for row in rows))


def run_append(
    recipe: Path, warehouse: Path, *overrides: str, base: str | None = None, until: str | None = None
) -> Run:
    """Run every stage of an append in this process, as the flow's tasks do, and publish."""
    plan = plan_append(recipe, warehouse, base, overrides, until)
    if plan.published:
        return Run(plan, {}, plan.published)
    outputs: dict[str, StageOutput] = {}
    for planned in plan.stages:
        outputs[planned.label] = execute(plan, planned, outputs)
    return Run(plan, outputs, None if until else finish(plan, outputs))


def judge_plainly(
    checks: Sequence[Check], measured: Mapping[str, Mapping[str, float | None]]
) -> list[Verdict]:
    """Judge by the bounds alone: Great Expectations takes seconds, and test_gates.py has it."""
    numbers = [measured[check.table][check.name] for check in checks]
    return [Verdict(one, number, holds(one, number)) for one, number in zip(checks, numbers, strict=True)]


JUDGE, REFRESH = gates.judge, publish.catalog.refresh


def thoroughly(patch: pytest.MonkeyPatch) -> None:
    """Undo `quickly`, for what is made once and read by tests of all files."""
    patch.setattr(publish.catalog, "refresh", REFRESH)
    patch.setattr(gates, "judge", JUDGE)


def quickly(patch: pytest.MonkeyPatch) -> None:
    """Judge by the bounds alone and leave the catalog: other tests have Great Expectations and DuckDB."""
    patch.setattr(publish.catalog, "refresh", lambda warehouse, copies: None)
    patch.setattr(gates, "judge", judge_plainly)
