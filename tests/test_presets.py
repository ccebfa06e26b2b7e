"""Every preset of examples/schemes, end to end on real data: the release that a reader of that paper gets.

Training is cut short here, and MovieLens 100K, which may not be redistributed, is left to `make proof`; there
every preset runs as it stands. What a scheme is to show of its paper is in the test of the scheme.
"""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, Run, quickly, run_chain

from sid_flows.recipe import load_recipe
from sid_schemas.tables import TABLES
from sid_tokenizers import Tokenizer

RECIPES = sorted((ROOT / "examples" / "schemes").glob("*.toml"))
ML_100K = ROOT.parent / "shared" / "data" / "ml-100k"
SHORT = {"epochs": 3, "polish_epochs": 1, "autoencoder_epochs": 1, "decoder_epochs": 1}  # of [tokenize]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def warehouse(example: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One warehouse for all, so that what presets have in common is made once; with the example's vectors."""
    folder = tmp_path_factory.mktemp("presets")
    shutil.copytree(example.plan.warehouse / "cache", folder / "cache")
    return folder


def is_movielens(recipe: Path) -> bool:
    return bool(tomllib.loads(recipe.read_text())["source"]["kind"] == "movielens")


def shortened(recipe: Path) -> list[str]:
    """Give overrides under which training takes seconds."""
    loaded = load_recipe(recipe)
    given = [
        f"tokenize.{name}={value}" for name, value in SHORT.items() if name in loaded.tokenize.parameters
    ]
    if loaded.fuse and "epochs" in loaded.fuse.options:
        given.append("fuse.epochs=2")
    if any(one.model == "sasrec" for one in loaded.embed):
        given.append("embed.collaborative.epochs=2")
    return given


def sound(run: Run) -> dict[str, Any]:
    """Check what any release owes its readers, by its own tables alone; give its metrics."""
    release = run.release
    for name in ["", *load_recipe_names(run)]:
        vocabulary = release.vocabulary_of(name) if name else release.vocabulary
        trie, strings = release.trie(name), vocabulary.strings()
        sids = release.table(f"sids_{name}" if name else "sids")
        back = release.table(f"sid_to_items_{name}" if name else "sid_to_items")
        leads_to = dict(zip(back["sid_key"].to_pylist(), back["item_indexes"].to_pylist(), strict=True))
        for row in sids.slice(0, 200).to_pylist():
            assert leads_to[row["sid_key"]][row["slot"]] == row["item_index"]
            assert trie.item(row["sid"]) == leads_to[row["sid_key"]][0]
            assert [strings[token] for token in row["token_ids"]] == row["tokens"]
            # The trie never masks the token that comes next.
            for place, code in enumerate(row["sid"]):
                assert code in trie.allowed(row["sid"][:place])
    for table in release.tables:
        if table in TABLES:
            assert release.table(table).schema.equals(TABLES[table].arrow())
    sample = release.samples("train")[0]
    assert len(sample["target"]) == release.vocabulary.length  # type: ignore[arg-type]
    return release.metrics


def load_recipe_names(run: Run) -> list[str]:
    return list(run.plan.recipe.tokenize.each)


@pytest.mark.parametrize(
    "recipe", [one for one in RECIPES if not is_movielens(one)], ids=lambda one: one.stem
)
def test_every_preset_makes_a_release(recipe: Path, warehouse: Path) -> None:
    done = run_chain(recipe, warehouse, *shortened(recipe))
    metrics = sound(done)
    resolved, scheme = metrics["collisions"], done.plan.recipe.tokenize.scheme
    if resolved["unique"]:
        assert resolved["after"]["collision_rate"] == 0
    lengths = {len(sid) for sid in done.release.table("sids")["sid"].to_pylist()}
    if issubclass(scheme, Tokenizer) and resolved["length"] != "L or L+1":
        assert len(lengths) == 1
    assert recipe.read_text().startswith("# "), "a preset says whose scheme it is"


@pytest.mark.realdata
@pytest.mark.proof
@pytest.mark.skipif(not ML_100K.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize("recipe", [one for one in RECIPES if is_movielens(one)], ids=lambda one: one.stem)
def test_every_preset_of_movielens_makes_a_release(recipe: Path, warehouse: Path) -> None:
    done = run_chain(recipe, warehouse, f"source.path={ML_100K}")
    sound(done)
    items = len(done.release.table("items"))
    for name in done.plan.recipe.tokenize.each:
        assert len(done.release.table(f"sids_{name}")) == items
        assert len(np.unique(done.release.table(f"sids_{name}")["sid_key"].to_numpy())) == items


@pytest.mark.proof
@pytest.mark.parametrize(
    "recipe", [one for one in RECIPES if not is_movielens(one)], ids=lambda one: one.stem
)
def test_every_preset_runs_as_it_stands(recipe: Path, warehouse: Path) -> None:
    sound(run_chain(recipe, warehouse))
