"""Exports as tasks of one job: the bytes that one process writes, and its refusals."""

import shutil
from pathlib import Path

import pytest
from helpers import Run, quickly, run_chain, small_dump

from sid_flows import exporting
from sid_flows.plan import make_plan
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.trainers import export as trainers_export
from sid_schemas import RecipeError

FORMATS = ("export.formats=['lc-rec', 'ngcf', 'grid']", "export.settings.lc-rec.name=Beauty")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dump, its recipe, and a warehouse with its release."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        run_chain(small_dump(folder), folder / "w")
    return folder


def exported(
    built: Path, folder: Path, patch: pytest.MonkeyPatch, *overrides: str, shards: bool, seed: int = 0
) -> Path:
    """Export the release in a warehouse of the test's own; give the folder of its formats."""
    shutil.copytree(built, folder, dirs_exist_ok=True)
    run = Run(make_plan(folder / "recipe.toml", folder / "w", (*FORMATS, *overrides)), {}, None)
    assert run.plan.published
    patch.setattr(exporting, "engine_of", lambda section: Inline(seed) if shards else None)
    written = exporting.exports(run.plan, run.plan.published)
    assert [Path(one).name for one in written] == run.plan.recipe.export.formats
    return Path(written[0]).parent


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_bytes(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    local = files_of(exported(built, tmp_path / "local", monkeypatch, shards=False))
    folder = exported(built, tmp_path / "shards", monkeypatch, shards=True, seed=seed)
    assert files_of(folder) == local
    assert {name.split("/")[0] for name in local} == {"lc-rec", "ngcf", "grid"}
    assert not list((tmp_path / "shards" / "w" / "scratch" / "small").iterdir())
    monkeypatch.setattr(Inline, "run", None)
    again = exported(built, tmp_path / "shards", monkeypatch, shards=True)  # nothing is left to do
    assert files_of(again) == local


def test_one_refusal_keeps_no_other_away(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for name in ("local", "shards"):
        folder = exported(built, tmp_path / name, monkeypatch, shards=False)
        shutil.rmtree(folder / "grid")
        other = "export.settings.lc-rec.name=Other"
        with pytest.raises(RecipeError) as refused:  # lc-rec is there with other settings
            exported(built, tmp_path / name, monkeypatch, other, shards=name == "shards")
        assert (folder / "grid").is_dir()
        said.append(str(refused.value).replace(str(tmp_path / name), ""))
    assert "not exported as lc-rec" in said[0]
    assert said[0] == said[1]


def test_what_a_killed_task_left_is_swept(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainers_export.export

    def dies(*given: object) -> object:
        monkeypatch.setattr(trainers_export, "export", real)
        raise MemoryError("a worker dies")

    monkeypatch.setattr(trainers_export, "export", dies)
    with pytest.raises(MemoryError):
        exported(built, tmp_path / "shards", monkeypatch, shards=True)
    folder = exported(built, tmp_path / "shards", monkeypatch, shards=True)
    assert files_of(folder) == files_of(exported(built, tmp_path / "local", monkeypatch, shards=False))
