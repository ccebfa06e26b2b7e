"""Recipes: every default, and one clear line for every mistake."""

import inspect
from pathlib import Path

import pytest
from helpers import EXAMPLE

from sid_flows.recipe import Recipe, load_recipe, warehouse_path
from sid_schemas import RecipeError
from sid_tokenizers import TOKENIZERS

MINIMAL = 'dataset = "d"\n[source]\nkind = "movietweetings"\npath = "x"\n'


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_only_dataset_and_source_are_needed(tmp_path: Path) -> None:
    loaded = load_recipe(recipe(tmp_path, MINIMAL))
    assert loaded.clean.dedupe == "first"
    assert (loaded.clean.k_core.user, loaded.clean.k_core.item) == (5, 5)
    assert (loaded.split.protocol, loaded.split.ties) == ("leave-one-out", "hash")
    assert loaded.collisions.policy == "next-nearest"
    filling = {"template": "{title}. {genres}", "clean_text": True, "enriched": None}
    assert loaded.filling(loaded.text) == filling


def test_the_example_spells_out_the_defaults_but_for_levels_and_precision(tmp_path: Path) -> None:
    small = recipe(
        tmp_path, MINIMAL.replace('"d"', '"movietweetings"').replace('"x"', '"data/movietweetings-50k"')
    )
    assert (
        load_recipe(small, ("tokenize.levels=[64, 64, 64]", "embed.precision=fp32")).as_written()
        == load_recipe(EXAMPLE).as_written()
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizer_defaults_are_the_constructors(tmp_path: Path, name: str) -> None:
    cf = (
        '[[embed]]\n[[embed]]\nmodality = "collaborative"\n' if "cf" in TOKENIZERS[name].traits.inputs else ""
    )
    loaded = load_recipe(recipe(tmp_path, MINIMAL + cf + f'[tokenize]\ntokenizer = "{name}"\n'))
    signature = inspect.signature(TOKENIZERS[name]).parameters
    defaults = {key: one.default for key, one in signature.items()}
    assert {
        k: tuple(v) if isinstance(v, list) else v for k, v in loaded.tokenize.parameters.items()
    } == defaults


def test_k_core_is_one_number_or_two(tmp_path: Path) -> None:
    one = load_recipe(recipe(tmp_path, MINIMAL + "[clean]\nk_core = 3\n"))
    two = load_recipe(recipe(tmp_path, MINIMAL + "[clean]\nk_core = {user = 2, item = 7}\n"))
    assert (one.clean.k_core.user, one.clean.k_core.item) == (3, 3)
    assert (two.clean.k_core.user, two.clean.k_core.item) == (2, 7)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("tokenize.seed=2", "tokenize.seed", 2),
        ("tokenize.levels=[8, 8]", "tokenize.levels", [8, 8]),
        ("clean.k_core=3", "clean.k_core", {"user": 3, "item": 3}),
        ("clean.k_core.user=3", "clean.k_core", {"user": 3, "item": 5}),
        ("split.ties=source", "split.ties", "source"),
        ("embed.template={title}", "embed.template", "{title}"),
        ("dataset=other", "dataset", "other"),
    ],
)
def test_set_overrides_a_key(tmp_path: Path, override: str, key: str, value: object) -> None:
    written = load_recipe(recipe(tmp_path, MINIMAL), (override,)).as_written()
    for name in key.split("."):
        written = written[name][0] if name == "embed" else written[name]
    assert written == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[clean]\nkcore = 5\n", "unknown key 'clean.kcore'; the nearest known one is 'clean.k_core'"),
        ("[cleen]\n", "unknown key 'cleen'; the nearest known one is 'clean'"),
        (
            "[tokenize]\nlevel = [4]\n",
            "unknown key 'tokenize.level'; the nearest known one is 'tokenize.levels'",
        ),
        ("[[embed]]\nmodell = 'x'\n", "unknown key 'embed.modell'; the nearest known one is 'embed.model'"),
        (
            "[clean.k_core]\nusers = 2\n",
            "unknown key 'clean.k_core.users'; the nearest known one is 'clean.k_core.user'",
        ),
        (
            "[clean]\nmax_reject_rate = 2\n",
            "clean.max_reject_rate: Input should be less than or equal to 1, got 2",
        ),
        ("[clean]\ndedupe = 'best'\n", "clean.dedupe: Input should be 'first', 'last' or 'all', got 'best'"),
        (
            "[tokenize]\ntokenizer = 'rqkmeans'\n",
            "no tokenizer is called 'rqkmeans'; the nearest is 'rq-kmeans'. `sidmill tokenizers` lists all",
        ),
        ("[tokenize]\nlevels = 'many'\n", "levels = 'many': 'str' instances are not allowed"),
        ("[tokenize]\nlevels = [4.0, 4]\n", "levels = [4.0, 4]: Input should be a valid integer"),
        ("[tokenize]\nseed = '2'\n", "seed = '2': Input should be a valid integer"),
        ("[tokenize]\nseed = -1\n", "seed: expected 0 or more, got -1"),
        ("[tokenize]\nn_init = 0\n", "n_init: expected 1 or more, got 0"),
        ("[tokenize]\nlevels = []\n", "levels: expected 1 to 26 sizes >= 1, got []"),
        ("[collisions]\npolicy = 'pray'\n", "collisions.policy: there are: none, suffix-on-collision, "),
        ("[[embed]]\ntemplate = '{titel}'\n", "no field 'titel'; there are: title"),
        ("[export]\nformats = ['gird']\n", "export: no trainer's format is called 'gird'; there are: "),
        ("[engine]\nmemory = 'lots'\n", "engine.memory: String should match pattern"),
        ("[split]\nties = \n", "is not TOML: Invalid value"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path, MINIMAL + text))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "recipe.toml"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('dataset = "d"\n', "source: is missing"),
        (MINIMAL.replace('"d"', '"../evil"'), "dataset '../evil': expected a lower-case letter"),
        (MINIMAL.replace('"d"', '"main"'), "dataset 'main'"),
        (MINIMAL.replace("movietweetings", "movietweet"), "no such source; there are: amazon-2014"),
        (MINIMAL + 'encoding = "klingon"\n', "no encoding is called 'klingon'"),
        (MINIMAL + 'encoding = "hex"\n', "no encoding is called 'hex'"),
    ],
)
def test_the_needed_parts_are_checked(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.toml") as caught:
        load_recipe(recipe(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize("override", ["tokenize.seed", "=3", "clean=3", "dataset.x=1", "tokenize..seed=1"])
def test_a_bad_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(recipe(tmp_path, MINIMAL + "[clean]\n"), (override,))


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_where_the_warehouse_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SIDMILL_WAREHOUSE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert warehouse_path(None) == tmp_path / "warehouse" / "data"
    monkeypatch.setenv("SIDMILL_WAREHOUSE", "/elsewhere")
    assert warehouse_path(None) == Path("/elsewhere")
    assert warehouse_path("here") == tmp_path / "here"
    assert warehouse_path("~/w") == Path.home() / "w"
    with pytest.raises(RecipeError, match="choose another"):
        warehouse_path("what?")


def test_every_key_of_the_recipe_has_a_default_but_two() -> None:
    needed = [name for name, field in Recipe.model_fields.items() if field.is_required()]
    assert needed == ["dataset", "source"]
