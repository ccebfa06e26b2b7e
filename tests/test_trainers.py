"""The contract of all trainers' formats: the same bytes, a README that explains every file, all or nothing.

What each trainer demands of its own files is in test_formats_*.py.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers import ROOT, Run, quickly, run_chain, small_dump
from typer.testing import CliRunner

from sid_pipelines.exports.tables import MARK
from sid_pipelines.trainers import TRAINERS, Folder, Format
from sid_pipelines.trainers.export import README, Written, export, settings_of
from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import files
from sid_warehouse.reader import Release
from sidmill.cli import app

# What a format needs beyond the small release, as keys of its recipe.
THREE = ("tokenize.levels=[4, 4, 4]", "collisions.policy=next-nearest")
BEHAVIOUR = (
    'embed=[{}, {modality="collaborative", model="ppmi-svd", dim=4}]',
    "tokenize.vectors=text",
    "tokenize.levels=[4, 4, 4, 4]",
    "collisions.policy=next-nearest",
)
WIDE = ('embed=[{}, {modality="collaborative", model="als", dim=64}]', "tokenize.vectors=text")
BY_GENRE = ("tokenize.tokenizer=category-path", "tokenize.flat=true")
RECIPES: Mapping[str, tuple[str, ...]] = {
    "recgpt": BEHAVIOUR,
    "colarec": THREE,
    "setrec": WIDE,
    "prism": WIDE,
    "mult-vae": ("split={protocol='user-holdout', ratios=[0.5, 0.25, 0.25]}",),
    "hype": BY_GENRE,
    "identities": ("users.levels=[3, 2]",),
    "minionerec": THREE,
    "openonerec": THREE,
    "letter": BEHAVIOUR,
    "discrec": BEHAVIOUR,
}
SEARCHED = ("timeline", "slates", "uditsr", "suggestions", "baskets")  # of a release with queries and lists
GIVEN: Mapping[str, Mapping[str, str]] = {"domains": {"by": "category"}, "recgpt": {"fill": "true"}}
every_format = pytest.mark.parametrize("form", TRAINERS.values(), ids=TRAINERS)


@pytest.fixture(scope="module")
def fitting(small: Run, searched: Run, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Release]:
    """Give each format a small release that it can hold."""
    made: dict[tuple[str, ...], Release] = {(): small.release}
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        for overrides in RECIPES.values():
            if overrides not in made:
                folder = tmp_path_factory.mktemp("fitting")
                recipe = small_dump(folder)
                if overrides == BY_GENRE:
                    recipe.write_text(recipe.read_text().replace("levels = [4, 4]\n", ""))
                made[overrides] = run_chain(recipe, folder / "w", *overrides).release
    of_small = {name: made[RECIPES.get(name, ())] for name in TRAINERS}
    return {**of_small, **dict.fromkeys(SEARCHED, searched.release)}


@every_format
def test_the_same_release_gives_the_same_bytes(
    form: Format, fitting: Mapping[str, Release], tmp_path: Path
) -> None:
    first, second = (export(fitting[form.name], form, tmp_path / to, GIVEN.get(form.name, {})) for to in "ab")
    assert first == second
    assert files.inventory(tmp_path / "a") == files.inventory(tmp_path / "b")


@every_format
def test_the_readme_explains_every_file(form: Format, fitting: Mapping[str, Release], tmp_path: Path) -> None:
    made = export(fitting[form.name], form, tmp_path / "to", GIVEN.get(form.name, {}))
    readme = (tmp_path / "to" / README).read_text()
    for one in made:
        assert one.file == README or f"`{one.file}`" in readme, one.file
    assert form.trainer in readme
    assert fitting[form.name].ref in readme
    assert not [path for path in tmp_path.iterdir() if path.name != "to"]  # nothing half made is left


@every_format
def test_the_mark_has_the_hash_of_every_file(
    form: Format, fitting: Mapping[str, Release], tmp_path: Path
) -> None:
    export(fitting[form.name], form, tmp_path / "to", GIVEN.get(form.name, {}))
    mark = json.loads((tmp_path / "to" / MARK).read_text())
    assert mark["format"] == form.name
    assert mark["files"] == {
        name: entry for name, entry in files.inventory(tmp_path / "to").items() if name != MARK
    }


@every_format
def test_what_is_said_of_a_format(form: Format) -> None:
    assert TRAINERS[form.name] is form
    assert form.says
    assert "." not in form.says[-1:]
    assert form.settings.__doc__
    for key, field in form.settings.model_fields.items():
        assert key in form.settings.__doc__, f"{form.name}: {key} is not explained"
        assert not field.is_required(), f"{form.name}: {key} has no default"
    papers = (ROOT / "docs" / "papers.md").read_text()
    assert all(f"| {row} | " in papers for row in form.papers)


def written(form: Format, release: Release, to: Path, **given: str) -> list[Written]:
    return export(release, form, to, given)


def test_again_changes_nothing(small: Run, tmp_path: Path) -> None:
    form, to = TRAINERS["lc-rec"], tmp_path / "to"
    assert all(one.written for one in written(form, small.release, to))
    before = {path: path.stat().st_mtime_ns for path in to.rglob("*")}
    again = written(form, small.release, to)
    assert again
    assert not any(one.written for one in again)
    assert {path: path.stat().st_mtime_ns for path in to.rglob("*")} == before


def test_a_folder_stays_what_it_is(small: Run, tmp_path: Path) -> None:
    form, to = TRAINERS["lc-rec"], tmp_path / "to"
    written(form, small.release, to)
    with pytest.raises(RecipeError, match="of other content or settings"):
        written(form, small.release, to, name="other")
    (to / "small.inter.json").write_text("{}")
    with pytest.raises(WarehouseError, match=r"small\.inter\.json: is not what was exported"):
        written(form, small.release, to)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "model.bin").touch()
    with pytest.raises(RecipeError, match=r"holds 'model\.bin'"):
        written(form, small.release, tmp_path / "theirs")
    with pytest.raises(RecipeError, match="is no folder"):
        written(form, small.release, tmp_path / "theirs" / "model.bin")


def test_what_fails_leaves_nothing(small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Folder, *_: object) -> None:
        raise OSError(28, "No space left on device", str(self.path))

    monkeypatch.setattr(Folder, "npy", full)
    with pytest.raises(WarehouseError, match="No space left"):
        written(TRAINERS["lc-rec"], small.release, tmp_path / "to")
    assert not list(tmp_path.iterdir())


def test_a_damaged_release_is_not_exported(small: Run, tmp_path: Path) -> None:
    folder = tmp_path / "v1"
    shutil.copytree(small.release.folder, folder)
    part = next((folder / "sids").glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(WarehouseError, match="is not what was published"):
        written(TRAINERS["lc-rec"], Release(folder), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_settings_are_checked() -> None:
    with pytest.raises(RecipeError, match="unknown key 'nam'; the nearest known one is 'name'"):
        settings_of(TRAINERS["lc-rec"], {"nam": "x"})


def test_the_command(small: Run, tmp_path: Path) -> None:
    place = ["-w", str(small.plan.warehouse)]
    to = ["--to", str(tmp_path / "to")]
    done = CliRunner().invoke(app, ["export", "small", "--format", "lc-rec", *to, *place, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["ref"] == "small@v1"
    assert {one["file"] for one in said["files"]} >= {"small.inter.json", README}
    for wrong, says in (
        (["--tables", "sids"], "has files of its own"),
        (["--set", "name"], "expected key=value"),
    ):
        refused = CliRunner().invoke(app, ["export", "small", "--format", "lc-rec", *to, *place, *wrong])
        assert says in str(refused.exception)
