"""The contract of all trainers' formats: the same bytes, a README that explains every file, all or nothing.

What each trainer demands of its own files is in test_formats_*.py.
"""

import csv
import json
import os
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers import ROOT, Run, odd_dump, quickly, run_append, run_chain, small_dump
from typer.testing import CliRunner

from handbook.places import READMES
from sid_pipelines.exports.tables import MARK
from sid_pipelines.trainers import TRAINERS, Feed, Folder, Format
from sid_pipelines.trainers import feed as trainers_feed
from sid_pipelines.trainers.export import README, Written, export, settings_of
from sid_pipelines.trainers.feed import one_line
from sid_schemas import RecipeError, SidmillError, WarehouseError
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
    # The documentation quotes it: `make readmes` records it anew where a format says something else.
    told, quoted = readme.partition(". Settings: ")[2].partition("\n")[2], READMES / f"{form.name}.md"
    if "SIDMILL_WRITE_READMES" in os.environ:
        quoted.write_text(told.rpartition("\n\n`sidmill-export.json`")[0].strip() + "\n", encoding="utf-8")
    assert quoted.read_text(encoding="utf-8").strip() in told
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


ODD = """[clean]
k_core = {user = 3, item = 1}
max_reject_rate = 1.0
dedupe = "all"
[gates]
max_duplicate_vectors = 1.0
leakage = "warn"
[[embed]]
model = "hashing"
dim = 8
missing = "mean"
[[embed]]
modality = "collaborative"
model = "ppmi-svd"
dim = 4
missing = "mean"
[tokenize]
vectors = "text"
"""
NEXT = ("tokenize.levels=[3, 3, 3]", "collisions.policy=next-nearest")
SHARED = (
    "tokenize.levels=[3]",
    "collisions={policy='capacity', capacity=9}",
    "split={protocol='sessions', next=2}",
)
VARYING = ("tokenize.levels=[2, 3]", "collisions.policy=suffix-on-collision")
PATHS = (
    "tokenize.tokenizer=spectral",
    "tokenize.n_clusters=3",
    "tokenize.token_size=3",
    "items.universe=catalog",
    "clean.k_core=1",
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Release]:
    """Give releases whose texts, IDs and splits would break files: see `odd_dump`."""
    folder = tmp_path_factory.mktemp("odd")
    recipe = odd_dump(folder / "first", ODD)
    more = odd_dump(folder / "more", start=1_500_000_000)
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return {
            "codes": run_chain(recipe, folder / "codes", *NEXT).release,
            "appended": run_append(more, folder / "codes").release,
            "shared": run_chain(recipe, folder / "shared", *SHARED).release,
            "varying": run_chain(recipe, folder / "varying", *VARYING).release,
            "paths": run_chain(recipe, folder / "paths", *PATHS).release,
        }


@every_format
def test_odd_releases_are_written_whole_or_refused_in_one_line(
    form: Format, odd: Mapping[str, Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    file = Folder.file
    monkeypatch.setattr(Folder, "file", lambda self, *told: begun.append(told[0]) or file(self, *told))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing here has to outlive a power cut
    for name, release in odd.items():
        begun.clear()
        said, made = "", []
        try:
            made = export(release, form, tmp_path / name, GIVEN.get(form.name, {}))
        except SidmillError as refused:
            said = str(refused)
        assert "\n" not in said
        assert made or not begun, "refused after it had begun to write"
        for one in made:
            _read(tmp_path / name / one.file)
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        assert not list(tmp_path.iterdir())  # nothing half made is left


def _read(path: Path) -> None:
    """Read a file as strictly as its kind can be."""
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")[:-1] if path.suffix == ".jsonl" else [text]
        if "}\n{" in text:  # one object a line, whatever the file's name
            lines = text.split("\n")[:-1]
        for line in lines:
            json.loads(line, parse_constant=lambda found: pytest.fail(f"{path.name}: {found}"))
    elif path.suffix in (".csv", ".inter", ".item", ".user"):
        with path.open(encoding="utf-8", newline="") as file:
            delimiter = "," if path.suffix == ".csv" else "\t"
            assert len({len(row) for row in csv.reader(file, delimiter=delimiter)}) <= 1, path.name
    elif path.suffix == ".parquet":
        pq.read_table(path).validate(full=True)


@pytest.mark.parametrize("name", ["domains", "hf", "merlin", "dare"])
def test_samples_of_several_targets_lose_none_silently(
    name: str, odd: Mapping[str, Release], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"one target for each sample; got .* with several \(sessions\)"):
        export(odd["shared"], TRAINERS[name], tmp_path / "to", GIVEN.get(name, {}))


def test_titles_are_one_line_where_the_id_stands_in(odd: Mapping[str, Release]) -> None:
    feed = Feed(odd["codes"])
    titles = dict(zip(feed.item_ids, feed.titles, strict=True))
    assert titles["line\nend"] == "line end"
    assert all(one == one_line(one) for one in feed.titles)
    assert all(one == one_line(one) for path in feed.category_paths for one in path)


def test_a_batch_holds_so_many_events(small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> list[tuple[int, int, list[int], int]]:
        batches = Feed(small.release).samples("train")
        return [
            (*one[:2], one[2].tolist(), int(row))
            for batch in batches
            for row, one in zip(batch.row, batch, strict=True)
        ]

    whole = rows()
    monkeypatch.setattr(trainers_feed, "EVENTS", 3)
    assert rows() == whole
    sizes = [len(batch.history) for batch in Feed(small.release).samples("train")]
    assert len(sizes) > 5
    longest = max(len(history) for _, _, history, _ in whole)
    assert max(sizes) < 3 + longest


def test_a_path_within_a_path_is_no_leak(odd: Mapping[str, Release], tmp_path: Path) -> None:
    export(odd["paths"], TRAINERS["rl"], tmp_path / "to", {})
    found = json.loads((tmp_path / "to" / "audit.json").read_text())["findings"]
    assert not [one for one in found if one["rule"] == "target_sid_in_prompt" and one["count"]]


def test_values_keep_their_digits(odd: Mapping[str, Release], tmp_path: Path) -> None:
    export(odd["codes"], TRAINERS["recbole"], tmp_path / "to", {})
    with (tmp_path / "to" / "odd.inter").open(newline="") as file:
        assert "30000000000" in {row["rating:float"] for row in csv.DictReader(file, delimiter="\t")}


def test_other_templates_are_another_export(small: Run, tmp_path: Path) -> None:
    file, to = tmp_path / "mine.toml", tmp_path / "to"
    ours = (resources.files("sid_pipelines.instructions") / "templates" / "lc-rec.toml").read_text()
    file.write_text(ours)
    written(TRAINERS["sft"], small.release, to, templates=str(file))
    for name in (MARK, README):
        assert str(tmp_path) not in (to / name).read_text()
    assert not any(one.written for one in written(TRAINERS["sft"], small.release, to, templates=str(file)))
    file.write_text(ours + "\n")
    with pytest.raises(RecipeError, match="of other content or settings"):
        written(TRAINERS["sft"], small.release, to, templates=str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(RecipeError, match=r"byte 0 is no UTF-8"):
        written(TRAINERS["sft"], small.release, tmp_path / "other", templates=str(file))


@every_format
def test_no_setting_leads_out_of_the_folder(form: Format) -> None:
    for key in {"name", "generation", "model", "index_file"} & set(form.settings.model_fields):
        with pytest.raises(RecipeError, match=f"{key} = '../x'"):
            settings_of(form, {key: "../x"})


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
