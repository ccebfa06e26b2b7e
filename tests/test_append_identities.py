"""Appends to releases of every kind of identity: nothing that is published moves, what is new comes in."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import Run, more_dump, quickly, run_append, run_chain, small_dump, write_dump

from sid_flows.execute import execute, finish
from sid_flows.retokenize import plan_retokenize
from sid_pipelines import gates
from sid_pipelines.recheck import recheck
from sid_schemas import DataError
from sid_schemas.tables import table_named
from sid_tokenizers.indexers.paths import beginning
from sid_warehouse import files, parquet
from sid_warehouse.arrays import padded_matrix
from sid_warehouse.db import connect
from sid_warehouse.reader import Release
from sid_warehouse.stages import StageOutput

NEW = ("0000009", "0000010")  # items of more_dump that no earlier dump has
EMBEDDINGS = (
    '[[embed]]\nmodel = "hashing"\ndim = 8\n'
    '[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'
)
EVERYTHING = (
    "tokenize.vectors=collaborative",
    'tokenize.each=["text"]',
    "tokenize.levels=[4, 4]",
    "tokenize.soft=3",
    'pieces.schemes=["ngram", "unigram", "actionpiece"]',
    "users.levels=[3, 2]",
    "users.mixtures=true",
)
QUICK = ("epochs=2", "hidden=[8]", "batch_size=8")
CODES = (
    ("prism", "levels=[4, 4]", "gate_hidden=4", "latent=4", "warmup_epochs=1", "phase1_epochs=1", *QUICK),
    ("pq", "levels=[4, 4]", "vocab_size=100"),
)
IDENTITIES = (
    ("kmeans-tree", "branching=3", "leaf=6"),
    ("category-path",),
    ("spectral", "n_clusters=2", "token_size=3"),
    ("spectral", "n_clusters=2", "token_size=3", "last=random"),
    ("spectral+category", "n_clusters=2", "token_size=3", "last=item"),
    ("sequential",),
    ("independent",),
    ("random", "low=5", "high=15"),
    ("title",),
    ("text-docid", "words=1"),  # every title begins with the same word, so that all docids are counted
    ("text-docid", "column=texts", "words=1"),
    ("setrec", "n_sem=2", "width=4", *QUICK),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with vectors of text and of behaviour; its warehouse lies beside it."""
    recipe = small_dump(tmp_path_factory.mktemp("appended"))
    recipe.write_text(recipe.read_text().replace("[tokenize]\nlevels = [4, 4]\n", EMBEDDINGS))
    return recipe


@pytest.fixture(scope="module")
def base(recipe: Path) -> Run:
    """A release of codes with all that may lie beside them."""
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return run_chain(recipe, recipe.parent / "w", *EVERYTHING)


@pytest.fixture(scope="module")
def grown(base: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An append to it."""
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        delta = more_dump(tmp_path_factory.mktemp("delta"))
        return run_append(delta, base.plan.warehouse, base=base.release.ref)


def assert_went_on(before: Release, after: Release, new: tuple[str, ...] = NEW) -> None:
    """Compare row by row what items are called, and see that every item is called something."""
    tables = {name for name in before.tables if name.startswith(("sids", "vectors_", "soft_", "sid_pieces"))}
    tables |= {"docids", "item_paths", "users"} & set(before.tables)
    assert tables | {"delta_sids", "delta_sid_to_items"} <= set(after.tables)
    for name in tables:
        keys = [one for one in ("scheme", "level", "path_number") if one in before.table(name).column_names]
        keys += ["user_id" if name == "users" else "item_index"]
        now = {tuple(row[key] for key in keys): row for row in after.table(name).to_pylist()}
        for row in before.table(name).to_pylist():
            assert now[tuple(row[key] for key in keys)] == row, name
    ids = before.table("sids")["item_id"].to_pylist()
    items = after.table("items")["item_id"].to_pylist()
    assert items == ids + list(new)
    for name in tables - {"users", "item_paths"}:
        assert set(after.table(name)["item_index"].to_pylist()) == set(range(len(items))), name
    assert after.table("delta_sids")["item_id"].to_pylist() == list(new)


def assert_can_be_decoded(release: Release, name: str = "") -> None:
    """See that every SID leads to its item, and none begins another."""
    sids, trie = release.table(f"sids_{name}" if name else "sids"), release.trie(name)
    for row in sids.to_pylist():
        assert trie.item(row["sid"]) == row["item_index"]
        assert not len(trie.allowed(row["sid"]))
    assert beginning(padded_matrix(sids["sid"], max(map(len, sids["sid"].to_pylist())), -1)) is None


def assert_holds(release: Release) -> None:
    """See that gates find on disk what they found before."""
    done = recheck(release.folder)
    assert (done.findings, done.left_out) == ([], 0)


@pytest.mark.parametrize("scheme", [*CODES, *IDENTITIES], ids=" ".join)
def test_an_append_goes_on_with_every_scheme(recipe: Path, tmp_path: Path, scheme: tuple[str, ...]) -> None:
    warehouse, (name, *given) = recipe.parent / "w", scheme
    chosen = (f"tokenize.tokenizer={name}", "tokenize.vectors=text", *(f"tokenize.{one}" for one in given))
    before = run_chain(recipe, warehouse, *chosen).release
    after = run_append(more_dump(tmp_path), warehouse, base=before.ref).release
    assert_went_on(before, after)
    assert_can_be_decoded(after)
    assert_holds(after)
    old, now = before.vocabulary, after.vocabulary
    assert now.strings()[: len(old)] == old.strings()
    if scheme in IDENTITIES:
        drift = after.metrics["collisions"]["drift"]
        assert (drift["levels"], drift["pressure"], drift["retrain"]) == ([], None, [])
        assert after.metrics["collisions"]["length"] == "varies"


def test_an_append_goes_on_with_everything_beside_codes(base: Run, grown: Run) -> None:
    before, after = base.release, grown.release
    assert_went_on(before, after)
    for name in ("", "text"):
        assert_can_be_decoded(after, name)
    assert_holds(after)
    assert after.metrics["tokenizer"]["soft"] == before.metrics["tokenizer"]["soft"]
    vectors = {name: stored(after, f"embeddings_{name}") for name in ("text", "collaborative")}
    coded = after.tokenizer("text").encode(vectors["text"])  # type: ignore[attr-defined]
    assert after.table("sids_text")["codes"].to_pylist() == coded.tolist()
    soft, _ = after.tokenizer().encode_soft(vectors["collaborative"], 3)  # type: ignore[attr-defined]
    assert after.table("soft_sids")["codes"].to_pylist() == soft.reshape(-1, 3).tolist()
    assert after.metrics["sids"]["text"]["collisions"]["added"] == len(NEW)
    for name in ("sids", "sids_text", "soft_sids"):  # stored once
        part = f"{name}/part-00000.parquet"
        assert (before.folder / part).stat().st_ino == (after.folder / part).stat().st_ino


def stored(release: Release, table: str) -> np.ndarray[Any, Any]:
    return np.stack(release.table(table)["vector"].to_numpy())


def test_an_append_without_items_changes_no_identity(grown: Run, tmp_path: Path) -> None:
    ratings = [f"{user}::0000009::5::{1_500_000_000 + user}" for user in (1, 2, 3)]
    delta = write_dump(tmp_path, ratings, [])
    delta.write_text('dataset = "small"\n[source]\nkind = "movietweetings"\npath = "dump"\nempty = "keep"\n')
    done = run_append(delta, grown.plan.warehouse, base=grown.release.ref)
    assert_went_on(grown.release, done.release, new=())
    assert_can_be_decoded(done.release, "text")
    assert_holds(done.release)
    assert len(done.release.table("interactions")) > len(grown.release.table("interactions"))


def test_titles_that_come_later_are_counted_after_published_ones(tmp_path: Path) -> None:
    given = ("tokenize.tokenizer=title",)
    recipe = small_dump(tmp_path)
    recipe.write_text(recipe.read_text().replace("[tokenize]\nlevels = [4, 4]\n", ""))
    before = run_chain(recipe, tmp_path / "w", *given, 'embed=[{model="hashing"}]').release
    ratings = [f"{user}::000000{item}::5::{1_500_000_000 + user}" for user in (1, 2) for item in "0X"]
    movies = ["000000X::Film A0 (1950)::Drama"]  # the title of a published one
    delta = more_dump(tmp_path / "delta")
    write_dump(tmp_path / "delta", ratings, movies)
    delta.write_text('dataset = "small"\n[source]\nkind = "movietweetings"\npath = "dump"\n')
    after = run_append(delta, tmp_path / "w").release
    assert_went_on(before, after, new=("000000X",))
    named = dict(
        zip(*(after.table("docids")[name].to_pylist() for name in ("item_id", "docid")), strict=True)
    )
    assert (named["0000000"], named["000000X"]) == ("Film A0 (1950)", "Film A0 (1950) (2)")


def test_what_was_appended_to_can_be_retokenized(grown: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "again.toml"
    recipe.write_text('dataset = "small"\n[tokenize]\nseed = 7\n')
    plan = plan_retokenize(grown.release.ref, recipe, grown.plan.warehouse)
    outputs: dict[str, StageOutput] = {}
    for planned in plan.stages:
        outputs[planned.label] = execute(plan, planned, {**plan.given, **outputs})
    done = Run(plan, outputs, finish(plan, outputs)).release
    assert {"soft_sids", "sids_text", "sid_pieces", "user_sids"} <= set(done.tables)
    assert_can_be_decoded(done, "text")
    assert_holds(done)


LOST = [
    ("pieces", "sid_pieces", "piece_ids", [0]),
    ("tokenize", "soft_sids", "probabilities", [0.5, 0.1, 0.1]),
    ("collisions text", "sids_text", "slot", 7),
    ("collisions", "sids", "text", "<a_0>"),
]


@pytest.mark.parametrize(("role", "table", "column", "value"), LOST, ids=[table for _, table, *_ in LOST])
def test_gates_see_what_an_append_moved(
    grown: Run, tmp_path: Path, role: str, table: str, column: str, value: Any
) -> None:
    outputs = {**grown.plan.roles(grown.outputs), "base": grown.plan.given["base"]}
    assert lost(outputs, table) == 0
    held = outputs[role]
    folder = shutil.copytree(held.folder, tmp_path / "spoilt")
    rows = parquet.read(folder, table)
    values = rows[column].to_pylist()
    place, kind = rows.column_names.index(column), rows.schema.field(column)
    spoilt = rows.set_column(place, kind, pa.array([value, *values[1:]], kind.type))
    shutil.rmtree(folder / table)
    parquet.write(folder, table_named(table), spoilt)
    manifest = {**held.manifest, "files": files.inventory(folder)}
    same = [one for one in outputs if outputs[one].folder == held.folder]
    for one in same:
        outputs[one] = StageOutput(folder, {**outputs[one].manifest, "files": manifest["files"]})
    assert lost(outputs, table) == 1


def lost(outputs: Mapping[str, StageOutput], table: str) -> float | None:
    with connect() as connection:
        _, measured = gates.measured_checks(connection, outputs, gates.GatesParams(None))
    return measured[table]["base_lost"]


def test_pieces_that_do_not_know_a_digit_are_refused(recipe: Path, tmp_path: Path) -> None:
    given = (
        "tokenize.levels=[1]",
        "collisions.policy=suffix",
        "pieces.schemes=['ngram']",
    )
    before = run_chain(recipe, tmp_path / "w", "tokenize.vectors=text", *given).release
    with pytest.raises(DataError, match="pieces: ngram cuts SIDs of levels"):
        run_append(more_dump(tmp_path), tmp_path / "w", base=before.ref)
