"""Texts that a language model wrote: one for every item, each with its model and prompt, or none at all."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import EXAMPLE, Run, more_dump, quickly, run_append, run_chain, small_dump

from sid_flows.plan import make_plan
from sid_flows.recipe import load_recipe
from sid_pipelines.enriched import COLUMNS
from sid_schemas import RecipeError, SidmillError, SourceError

TEMPLATE = "{title}. {enriched}"
MODEL, PROMPT = "rules-1", "describe-v2"
Row = dict[str, Any]


def described(item_id: str, title: str, genres: str) -> Row:
    """Give a description by rule, which stands for what a language model writes."""
    text = f"Viewers who like {genres or 'films'} will find in {title} what they came for."
    return {"item_id": item_id, "text": text, "model": MODEL, "prompt": PROMPT}


def descriptions(movies: Path) -> list[Row]:
    """Give a description of every movie of a dump."""
    return [described(*line.split("::")) for line in movies.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[Row]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def with_enriched(recipe: Path, name: str, template: str = TEMPLATE) -> Path:
    """Add the keys to a recipe."""
    recipe.write_text(
        f'{recipe.read_text()}[[embed]]\nmodel = "hashing"\ndim = 32\nenriched = "{name}"\n'
        f'template = "{template}"\n'
    )
    return recipe


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A small dump whose recipe takes descriptions.jsonl, which is there."""
    recipe = with_enriched(small_dump(tmp_path), "descriptions.jsonl")
    write(tmp_path / "descriptions.jsonl", descriptions(tmp_path / "dump" / "movies.dat"))
    return recipe


def texts(run: Run) -> dict[str, str]:
    return {
        row["item_id"]: row["text"] for row in run.release.table("items", ["item_id", "text"]).to_pylist()
    }


# --- every item has one


def test_every_item_is_embedded_with_what_was_written_about_it(plain_dump: Path) -> None:
    movies = plain_dump / "data" / "movietweetings-50k" / "movies.dat"
    rows = descriptions(movies)
    path = write(plain_dump / "descriptions.parquet", rows)
    recipe = plain_dump / "recipe.toml"
    kept = EXAMPLE.read_text().replace('"{title}. {genres}"', f'"{TEMPLATE}"\nenriched = "{path.name}"')
    recipe.write_text(kept.replace('"sentence-transformers/all-MiniLM-L6-v2"', '"hashing"'))
    recipe.write_text(recipe.read_text().replace('precision = "fp32"', "dim = 64"))
    done = run_chain(recipe, plain_dump / "w", until="embed")
    facts = done.outputs["embed text"].facts["enriched"]
    by_id = {row["item_id"]: row["text"] for row in rows}
    table = done.outputs["text"].read("texts").to_pylist()
    assert all(row["text"].endswith(by_id[row["item_id"]]) for row in table)
    assert facts["items"] == len(table) > 1000
    assert facts["coverage"] == 1.0
    assert facts["of_other_items"] == len(rows) - len(table) > 0
    assert facts["made_by"] == [{"model": MODEL, "prompt": PROMPT, "items": len(table)}]
    assert (facts["models"], facts["prompts"]) == ([MODEL], 1)
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_lacks_an_item_is_refused(recipe: Path) -> None:
    path = recipe.parent / "descriptions.jsonl"
    rows = descriptions(recipe.parent / "dump" / "movies.dat")
    assert (
        run_chain(recipe, recipe.parent / "w", until="text").outputs["text"].facts["enriched"]["items"] == 9
    )
    write(path, rows[:4] + rows[5:])
    with pytest.raises(SourceError) as caught:
        run_chain(recipe, recipe.parent / "w", until="text")
    assert str(caught.value) == (
        f"{path}: 1 item without an enriched text, the first '0000004'; expected one for every item that "
        "gets an ID. Add their rows, or take {enriched} out of the template"
    )


def test_models_and_prompts_are_counted(recipe: Path) -> None:
    rows = descriptions(recipe.parent / "dump" / "movies.dat")
    rows[0] |= {"model": "other"}
    rows[1] |= {"prompt": "describe-v1"}
    path = write(recipe.parent / "descriptions.jsonl", [*rows, described("unknown", "?", "")])
    run = run_chain(recipe, recipe.parent / "w")
    facts = run.release.metrics["embeddings"]["embeddings_text"]["enriched"]
    assert facts["made_by"] == [
        {"model": MODEL, "prompt": PROMPT, "items": 7},
        {"model": "other", "prompt": PROMPT, "items": 1},
        {"model": MODEL, "prompt": "describe-v1", "items": 1},
    ]
    assert (facts["models"], facts["prompts"], facts["of_other_items"]) == (["other", MODEL], 2, 1)
    assert facts["file"] == path.name
    written = run.record["recipe"]["embed"][0] if run.record else {}
    assert written["enriched"] == path.name
    assert run.outputs["text"].manifest["summary"].endswith("written by other, rules-1")


def test_the_file_is_part_of_the_key_and_where_it_lies_is_not(recipe: Path) -> None:
    def key() -> str:
        plan = make_plan(recipe, recipe.parent / "w")
        return next(one.key for one in plan.stages if one.label == "text")

    first, path = key(), recipe.parent / "descriptions.jsonl"
    path.rename(path.with_name("moved.jsonl"))
    recipe.write_text(recipe.read_text().replace("descriptions", "moved"))
    assert key() == first
    rows = descriptions(recipe.parent / "dump" / "movies.dat")
    write(path.with_name("moved.jsonl"), [rows[0] | {"prompt": "v3"}, *rows[1:]])
    assert key() != first


def test_enriched_texts_are_cleaned_and_filled_like_other_fields(recipe: Path) -> None:
    rows = descriptions(recipe.parent / "dump" / "movies.dat")
    rows[0]["text"] = "<p>Old &amp; <b>slow</b>\n\n</p>"
    write(recipe.parent / "descriptions.jsonl", rows)
    table = run_chain(recipe, recipe.parent / "w", until="text").outputs["text"].read("texts")
    assert table["text"][0].as_py() == "Film A0 (1950). Old & slow"


# --- what is no such file


def lines(*rows: Row | str) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


GOOD = described("0000000", "A", "Drama")
BAD: dict[str, tuple[str, str]] = {
    "no model": (lines(GOOD, {**GOOD, "item_id": "1", "model": ""}), "row 2: 'model' is missing or empty"),
    "no prompt": (lines({k: GOOD[k] for k in COLUMNS[:3]}), "row 1: 'prompt' is missing or empty"),
    "no text": (lines({**GOOD, "text": " "}), "row 1: 'text' is missing or empty"),
    "no item": (lines({**GOOD, "item_id": None}), "row 1: 'item_id' is missing or empty"),
    "twice": (lines(GOOD, {**GOOD, "item_id": "1"}, GOOD), "row 3: item '0000000' has a second text"),
    "cut off": (lines(GOOD, '{"item_id": "1", "te'), "cannot be read .*Malformed JSON"),
    "no JSON": ("item_id,text\n1,2\n", "cannot be read .*; expected JSON lines or Parquet"),
    "a list": (lines("[1, 2]"), "cannot be read .*; expected JSON lines or Parquet"),
    "nothing": ("", "9 items without an enriched text, the first '0000000'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_in_a_line(recipe: Path, case: str) -> None:
    content, said = BAD[case]
    (recipe.parent / "descriptions.jsonl").write_text(content)
    with pytest.raises(SourceError, match=said) as caught:
        run_chain(recipe, recipe.parent / "w", until="text")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(recipe.parent / "descriptions.jsonl"))


def test_a_parquet_file_without_a_column_is_refused(recipe: Path) -> None:
    write(recipe.parent / "d.parquet", [{"item_id": "1", "text": "x", "model": "m"}])
    recipe.write_text(recipe.read_text().replace("descriptions.jsonl", "d.parquet"))
    with pytest.raises(SourceError, match=r"no column 'prompt'; expected .*, got item_id, text, model"):
        run_chain(recipe, recipe.parent / "w", until="text")
    (recipe.parent / "d.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match=r"d\.parquet: cannot be read"):
        run_chain(recipe, recipe.parent / "w", until="text")


def test_numbers_as_item_ids_and_odd_folders(tmp_path: Path) -> None:
    folder = tmp_path / "it's [odd]*"
    recipe = with_enriched(small_dump(folder), "descriptions.jsonl")
    rows = descriptions(folder / "dump" / "movies.dat")
    write(folder / "descriptions.jsonl", rows)
    first = run_chain(recipe, tmp_path / "w", until="text").outputs["text"].facts["enriched"]
    assert first["items"] == 9


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"enriched": "d.jsonl"}, "go together"),
        ({"enriched": "d.jsonl", "template": "{title}"}, "go together"),
        ({"template": "{title} {enriched}"}, "go together"),
        (
            {"enriched": "d.jsonl", "modality": "image", "model": "x.onnx"},
            "enriched is for modality = 'text'",
        ),
    ],
)
def test_the_key_and_the_field_go_together(tmp_path: Path, keys: Mapping[str, str], said: str) -> None:
    recipe = small_dump(tmp_path)
    written = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    recipe.write_text(f"{recipe.read_text()}[[embed]]\n{written}")
    with pytest.raises(RecipeError, match=said):
        load_recipe(recipe)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    recipe = with_enriched(small_dump(tmp_path), "none.jsonl")
    with pytest.raises(SourceError, match=r"enriched = 'none.jsonl': no file there. Paths are relative to"):
        make_plan(recipe, tmp_path / "w")


def test_a_plain_text_beside_an_enriched_one(recipe: Path) -> None:
    recipe.write_text(
        f'{recipe.read_text()}[[embed]]\nname = "plain"\nmodel = "hashing"\ndim = 32\n'
        'template = "{title}"\n[fuse]\n'
    )
    run = run_chain(recipe, recipe.parent / "w")
    assert "enriched" in run.outputs["embed text"].facts
    assert "enriched" not in run.outputs["embed plain"].facts
    assert run.outputs["text plain"].read("texts")["text"][0].as_py() == "Film A0 (1950)"


# --- appends


def grown(path: Path, old: Path, new: Path) -> None:
    write(path, [*descriptions(old), *descriptions(new)])


def another(path: Path, old: Path, new: Path) -> None:
    write(path, descriptions(new))


def too_few(path: Path, old: Path, new: Path) -> None:
    write(path, descriptions(new)[:1])


Make = Callable[[Path, Path, Path], None]


@pytest.mark.parametrize(("make", "named"), [(grown, False), (another, True)])
def test_an_append_brings_texts_of_its_new_items(recipe: Path, make: Make, named: bool) -> None:
    first = run_chain(recipe, recipe.parent / "w")
    more = more_dump(recipe.parent / "more")
    if named:
        with_enriched(more, "new.jsonl")
    new = more.parent / ("new.jsonl" if named else "descriptions.jsonl")
    make(new, recipe.parent / "dump" / "movies.dat", more.parent / "dump" / "movies.dat")
    appended = run_append(more, recipe.parent / "w")
    found = texts(appended)
    assert {item: found[item] for item in texts(first)} == texts(first)
    assert set(found) - set(texts(first)) == {"0000009", "0000010"}
    assert found["0000010"] == f"Film K (1999). {described('', 'Film K (1999)', 'Horror')['text']}"
    assert appended.outputs["embed text"].facts["enriched"]["items"] == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [(None, "enriched = 'descriptions.jsonl': no file there"), (too_few, "1 item without an enriched text")],
)
def test_an_append_without_them_is_refused(recipe: Path, make: Make | None, said: str) -> None:
    run_chain(recipe, recipe.parent / "w")
    more = more_dump(recipe.parent / "more")
    if make:
        make(more.parent / "descriptions.jsonl", more, more.parent / "dump" / "movies.dat")
    with pytest.raises(SidmillError, match=said) as caught:
        run_append(more, recipe.parent / "w")
    assert "\n" not in str(caught.value)
