"""A warehouse with one release of a real chain, and the finished stages of a second one, to publish it again
and again; and what readers see of it. kill_harness.py is what disturbs the publisher.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas  # noqa: F401  DuckDB imports it for parameters: once here, not in every fork
from helpers import more_dump, run_chain, small_dump

from sid_flows.append import plan_append
from sid_flows.execute import execute, finish
from sid_flows.plan import Plan, make_plan
from sid_pipelines import publish
from sid_warehouse import catalog, db, files, releases
from sid_warehouse.stages import StageOutput

DATASET = "small"
SECOND = "tokenize.seed=1"
EXPECTED = "expected.json"
KEPT = ("stages", "cache")  # what a publish reads and never writes


@dataclass(frozen=True)
class World:
    """The warehouse, and what it showed to readers before and after v2. Opening it starts no thread."""

    folder: Path
    plan: Plan
    outputs: Mapping[str, StageOutput]
    expected: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "World":
        told, more = folder / EXPECTED, folder / "more" / "recipe.toml"
        plan = (
            plan_append(more, folder / "warehouse", f"{DATASET}@v1")
            if more.exists()
            else make_plan(folder / "recipe.toml", folder / "warehouse", [SECOND])
        )
        if told.exists() and not plan.complete:
            raise AssertionError(f"{folder}: its stages are of other code; make it anew")
        outputs: dict[str, StageOutput] = {}
        for planned in plan.stages:
            outputs[planned.label] = execute(plan, planned, outputs)
        return cls(folder, plan, outputs, json.loads(told.read_text()) if told.exists() else {})

    @property
    def warehouse(self) -> Path:
        return self.folder / "warehouse"

    @property
    def parent(self) -> Path:
        return self.warehouse / "releases" / DATASET

    def publish(self, fingerprint: str | None = None) -> dict[str, Any]:
        """Publish v2; fingerprint: under another one, as if it were another release."""
        if fingerprint:
            publish.fingerprint = lambda keys: fingerprint  # type: ignore[assignment]
        return finish(self.plan, self.outputs)

    def restore(self) -> None:
        """Put the warehouse back to v1 alone, times of files included, by which catalogs know releases."""
        for path in self.warehouse.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.folder / "before", self.warehouse, dirs_exist_ok=True)


def prepare(folder: Path, made: Path | None = None, *, append: bool = False) -> None:
    """Make a world. made: a folder with recipe, dump and warehouse of a small chain, to save its time.

    append: v2 is an append to v1, whose files it links, instead of another build.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if made:
        shutil.copy(made / "recipe.toml", folder)
        shutil.copytree(made / "dump", folder / "dump")
        for name in KEPT:
            if (made / "warehouse" / name).exists():
                shutil.copytree(made / "warehouse" / name, folder / "warehouse" / name)
    else:
        small_dump(folder)
    first = run_chain(folder / "recipe.toml", folder / "warehouse")
    if append:
        more_dump(folder / "more")
    world = World.open(folder)
    shutil.copytree(world.warehouse, folder / "before", ignore=shutil.ignore_patterns(*KEPT))
    expected = {"old": shown(world.warehouse), "v1": hashed(first.release.folder)}
    world.publish()
    expected["new"] = shown(world.warehouse)
    assert expected["old"] != expected["new"]
    (folder / EXPECTED).write_text(json.dumps(expected))
    world.restore()


def look(world: World, *, unreadable: bool = False) -> tuple[str, list[str]]:
    """Give "old" or "new", whichever release is the latest to readers, and everything that is wrong.

    unreadable: whether the catalog may say of a release that it could not be read.
    """
    seen, problems = releases.versions(world.warehouse, DATASET), []
    if seen not in ([1], [1, 2]):
        problems.append(f"readers see versions {seen}")
    problems += broken(world, seen)
    try:
        state = "old" if untouched(world) else state_of(world)
    except duckdb.Error as error:
        problems.append(f"the catalog does not answer: {error}")
    else:
        if state not in ("old", "new") and not (unreadable and catalog.problems(world.warehouse)):
            problems.append(f"the catalog shows neither the old nor the new state but {state}")
        elif state == "new" and 2 not in seen:
            problems.append("the catalog shows a release that is not there")
    return "new" if 2 in seen else "old", problems


def broken(world: World, versions: list[int]) -> list[str]:
    """Give what is wrong with the folders of these releases, which should be all there are."""
    problems = []
    folders = sorted(path.name for path in world.parent.glob("v*"))
    if folders != sorted(f"v{version}" for version in versions):
        problems.append(f"there are folders {folders} for versions {versions}")
    for version in versions:
        problems += torn(world.parent / f"v{version}")
    if hashed(world.parent / "v1") != world.expected["v1"]:
        problems.append("v1 is not what it was")
    return problems


def torn(folder: Path) -> list[str]:
    """Give what of a release is not as its own `release.json` says; without verify.py, which is ours too."""
    try:
        record = json.loads((folder / "release.json").read_text())
        expected = {name: entry["sha256"] for name, entry in record["files"].items()}
    except (ValueError, KeyError) as error:
        return [f"{folder.name}/release.json cannot be read: {error!r}"]
    there = hashed(folder)
    there.pop("release.json")
    wrong = sorted(name for name in there | expected if there.get(name) != expected.get(name))
    return [f"{folder.name} lacks, has too much or has otherwise: {', '.join(wrong)}"] if wrong else []


def hashed(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def untouched(world: World) -> bool:
    """Say whether the catalog is, byte for byte, the old one: then it need not be asked."""
    now, before = world.warehouse / catalog.NAME, world.folder / "before" / catalog.NAME
    return not now.with_name(f"{now.name}.wal").exists() and now.read_bytes() == before.read_bytes()


def state_of(world: World) -> str:
    """Give "old" or "new" where the catalog answers as it did then, else which releases it shows."""
    answers = shown(world.warehouse)
    known = [when for when in ("old", "new") if answers == world.expected[when]]
    return known[0] if known else str(answers["releases"])


def shown(warehouse: Path) -> dict[str, list[Any]]:
    """Give what the catalog answers: rows and hash of each table and view, and which releases there are."""
    with duckdb.connect(str(warehouse / catalog.NAME), read_only=True) as connection:
        return answers_of(connection)


def answers_of(connection: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    named = connection.execute(
        "select table_schema, table_name from information_schema.tables "
        "where table_schema = $1 or starts_with(table_schema, $1 || '@') order by all",
        [DATASET],
    ).fetchall()
    answers: dict[str, list[Any]] = {}
    for schema, name in named:
        source = f"{db.quote(schema)}.{db.quote(name)}"
        [row] = connection.execute(f"select count(*), bit_xor(hash(t)) from {source} as t").fetchall()
        answers[source] = list(row)
    known = "select ref, latest, fingerprint, items from releases order by ref"
    answers["releases"] = [list(row) for row in connection.execute(known).fetchall()]
    for table in ("lineage", "metrics"):
        counts = f"select dataset, version, count(*) from {table} group by all order by all"
        answers[table] = [list(row) for row in connection.execute(counts).fetchall()]
    return answers


def recover(world: World) -> list[str]:
    """Do what the next run does, and give what is wrong then."""
    world.plan.store.sweep()
    record = world.publish()
    seen, problems = look(world)
    if (record["version"], seen) != (2, "new"):
        problems.append(f"the next run gave v{record['version']}; readers see the {seen} release")
    if not catalog.is_current(world.warehouse):
        problems.append("the catalog is not current")
    elif untouched(world):
        problems.append("the catalog does not show the new state")
    return problems + [f"{path} is left" for path in leftovers(world.warehouse)]


def leftovers(warehouse: Path) -> list[str]:
    return sorted(str(path.relative_to(warehouse)) for path in warehouse.rglob(f"{files.TEMPORARY}*"))
