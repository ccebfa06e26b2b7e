"""[export] of a recipe: files after publishing, again where a run was cut short, refused early."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import Run, more_dump, quickly, run_append, run_chain, small_dump
from typer.testing import CliRunner

from sid_flows.export_section import ExportSection
from sid_flows.exporting import exports, folder_of, missing
from sid_flows.plan import make_plan
from sid_flows.recipe import load_recipe
from sid_flows.retokenize import plan_retokenize
from sid_pipelines.exports.tables import MARK
from sid_pipelines.trainers import TRAINERS
from sid_pipelines.trainers.export import export
from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import catalog, garbage
from sid_warehouse.reader import open_warehouse
from sid_warehouse.retention import Rules
from sid_warehouse.verify import verify
from sidmill.cli import app

ASKED = ("export.formats=['lc-rec']", "export.settings.lc-rec.name=Beauty")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dump, its recipe, and a warehouse with its release."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        run_chain(small_dump(folder), folder / "w")
    return folder


@pytest.fixture(scope="module")
def appended(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A release that more events were appended to, after those that test."""
    folder = tmp_path_factory.mktemp("appended")
    shutil.copytree(built / "w", folder / "w")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return run_append(more_dump(folder), folder / "w", "export.formats=['events']")


def published(built: Path, folder: Path, *overrides: str) -> Run:
    """Give the release in a warehouse of the test's own, by a recipe that asks for exports too."""
    shutil.copytree(built, folder, dirs_exist_ok=True)
    plan = make_plan(folder / "recipe.toml", folder / "w", overrides)
    assert plan.published
    return Run(plan, {}, plan.published)


def exported(run: Run) -> Path:
    assert run.record is not None
    [folder] = exports(run.plan, run.record)
    return Path(folder)


def test_a_named_format_is_written_beside_releases(built: Path, tmp_path: Path) -> None:
    run = published(built, tmp_path, *ASKED)
    assert run.record is not None
    assert missing(run.plan, run.record) == ["lc-rec"]
    folder = exported(run)
    assert folder == tmp_path / "w" / "exports" / "small" / "v1" / "lc-rec"
    export(run.release, TRAINERS["lc-rec"], tmp_path / "by-hand", {"name": "Beauty"})
    names = {path.name for path in (tmp_path / "by-hand").iterdir()}
    assert "Beauty.inter.json" in names
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "by-hand" / name).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert exported(run) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert missing(run.plan, run.record) == []


def test_it_shapes_no_release(built: Path, tmp_path: Path) -> None:
    plain, asked = (published(built, tmp_path, *extra).plan for extra in ((), ASKED))
    assert [one.key for one in plain.stages] == [one.key for one in asked.stages]
    assert plain.fingerprint == asked.fingerprint


def test_what_a_killed_run_left_is_written_anew(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "is_current", lambda _: True)
    run = published(built, tmp_path, *ASKED)
    recipe = tmp_path / "recipe.toml"
    assert run.record is not None
    parent = folder_of(run.plan.warehouse, run.record, "lc-rec").parent
    half = parent / ".tmp-elsewhere-1-0"
    half.mkdir(parents=True)
    (half / "Beauty.inter.json").touch()
    arguments = ["run", str(recipe), "-w", str(tmp_path / "w"), *(f"--set={one}" for one in ASKED), "--json"]
    planned = CliRunner().invoke(app, ["plan", *arguments[1:]])
    assert json.loads(planned.stdout)[-1]["status"] == "run"
    done = CliRunner().invoke(app, arguments)  # all stages are done, the release is there
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["status"] == "unchanged"
    assert told["exports"] == [str(parent / "lc-rec")]
    assert (parent / "lc-rec" / MARK).exists()
    assert json.loads(CliRunner().invoke(app, ["plan", *arguments[1:]]).stdout)[-1]["status"] == "done"


def test_gc_and_verify_leave_exports_alone(built: Path, tmp_path: Path) -> None:
    run = published(built, tmp_path, *ASKED)
    folder = exported(run)
    (folder / "checkpoint.bin").touch()  # a trainer's own
    found = garbage.find(run.plan.warehouse, Rules(), stage_days=0)
    assert not [one for one in found.remove if one.path and "exports" in one.path.parts]
    assert not verify(run.release.folder)
    assert [one.ref for one in open_warehouse(run.plan.warehouse).releases()] == ["small@v1"]


def test_other_settings_say_what_to_remove(built: Path, tmp_path: Path) -> None:
    folder = exported(published(built, tmp_path, *ASKED))
    again = published(built, tmp_path, ASKED[0])
    says = rf"small@v1 is published, but not exported as lc-rec: .*remove {folder}"
    with pytest.raises(RecipeError, match=says):
        exported(again)
    shutil.rmtree(folder)
    assert (exported(again) / "small.inter.json").exists()


def test_an_append_exports_too(appended: Run) -> None:
    folder = exported(appended)
    assert folder.parts[-3:] == ("small", "v2", "events")
    assert (folder / "histories.parquet").exists()


def test_so_does_a_retokenize(built: Path, tmp_path: Path) -> None:
    published(built, tmp_path)
    plan = plan_retokenize("small@v1", tmp_path / "recipe.toml", tmp_path / "w", ASKED)
    assert plan.published  # with the very codebooks that it has
    assert exported(Run(plan, {}, plan.published)).name == "lc-rec"


def test_what_a_format_cannot_hold_comes_after_publishing(appended: Run) -> None:
    """Appended events follow the test ones, which the recipe alone does not tell."""
    both = ExportSection(formats=["lc-rec", "ngcf"])
    recipe = appended.plan.recipe.model_copy(update={"export": both})
    run = replace(appended, plan=replace(appended.plan, recipe=recipe))
    with pytest.raises(RecipeError, match=r"small@v2 is published, but not exported as lc-rec: small@v2: LC"):
        exported(run)
    assert not list((run.plan.warehouse / "exports").rglob("*.inter.json"))
    assert list((run.plan.warehouse / "exports").rglob("ngcf/train.txt"))  # one refusal keeps no other away


def test_a_full_disk_is_an_error_of_the_warehouse(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = published(built, tmp_path, *ASKED)

    def full(*_: object) -> None:
        raise WarehouseError("disk full")

    monkeypatch.setattr("sid_pipelines.trainers.export.export", full)
    with pytest.raises(WarehouseError, match="is published, but not exported as lc-rec: disk full"):
        exported(run)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("formats = ['lcrec']", "export: no trainer's format is called 'lcrec'; there are: "),
        ("formats = ['lc-rec', 'lc-rec']", "expected each name once"),
        ("[export.settings.lcrec]", "no trainer's format is called 'lcrec'"),
        ("settings.lc-rec.nam = 'x'", "format lc-rec: unknown key 'nam'; the nearest known one is 'name'"),
        ("settings.lc-rec.name = [1]", "export.settings"),
        ("formats = ['lc-rec']\n[split]\nprotocol = 'global-time'", "expected 'leave-one-out'"),
    ],
)
def test_a_mistake_is_refused_before_anything_runs(tmp_path: Path, section: str, says: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "d"\n[source]\nkind = "movietweetings"\npath = "x"\n[export]\n{section}\n')
    with pytest.raises(RecipeError, match=r"recipe\.toml") as caught:
        load_recipe(recipe)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_formats_that_split_themselves_say_so(tmp_path: Path) -> None:
    """A format that refuses any release of another protocol names its own, so that recipes fail early."""
    release = run_chain(small_dump(tmp_path), tmp_path / "w", "split.protocol=user-holdout").release
    by_setting = {"recbole"}  # has files for each split too
    for name, form in TRAINERS.items():
        try:
            export(release, form, tmp_path / name, {})
        except RecipeError as error:
            if "expects leave-one-out" in str(error) and name not in by_setting:
                assert form.protocols == ("leave-one-out",), f"{name}: set protocols=('leave-one-out',)"


def test_the_menu_lists_every_format() -> None:
    rows = json.loads(CliRunner().invoke(app, ["formats", "--json"]).stdout)
    assert [row["format"] for row in rows] == sorted(TRAINERS)
    assert all(row["trainer"] and row["writes"] for row in rows)
    [row] = [row for row in rows if row["format"] == "lc-rec"]
    assert row["settings"] == TRAINERS["lc-rec"].settings().model_dump()
    assert row["protocols"] == ["leave-one-out"]
    shown = CliRunner().invoke(app, ["formats"]).stdout
    assert "name, embedding" in shown
