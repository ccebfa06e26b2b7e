"""Several embeddings in one recipe: how they are wired, published, gated and told apart."""

from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, Run, inside, judge_plainly, run_chain, small_dump

from sid_flows.plan import make_plan
from sid_flows.recipe import load_recipe
from sid_pipelines import gates
from sid_pipelines.chain import STEPS
from sid_pipelines.contents import published_tables
from sid_pipelines.vectors import StoredVectors, read_vectors
from sid_schemas import DataError, GateRefusedError, RecipeError
from sid_warehouse.verify import verify

SECTIONS = """
[pairs]
kinds = ["swing"]
[[embed]]
name = "words"
model = "hashing"
dim = 16
[[embed]]
name = "titles"
model = "hashing"
dim = 8
template = "{title}"
dtype = "float16"
[[embed]]
modality = "collaborative"
model = "ppmi-svd"
dim = 4
missing = "map"
map_from = "words"
[fuse]
weights = {collaborative = 2.0}
"""


def several(folder: Path, sections: str = SECTIONS) -> Path:
    recipe = small_dump(folder, users=20, movies=14)
    recipe.write_text(recipe.read_text() + sections)
    return recipe


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("fused")
    return run_chain(several(folder), folder / "warehouse")


def test_each_embedding_is_a_stage_and_a_table(fused: Run) -> None:
    labels = [one.label for one in fused.plan.stages]
    assert labels == [
        "ingest", "clean", "split", "text", "sequences", "pairs", "embed words", "text titles",
        "embed titles", "embed collaborative", "fuse", "tokenize", "collisions", "gates",
    ]  # fmt: skip
    release, n = fused.release, len(fused.release.table("items"))
    dims = {"words": 16, "titles": 8, "collaborative": 4, "fused": 28}
    for name, dim in dims.items():
        table = release.table(f"embeddings_{name}")
        number = "halffloat" if name == "titles" else "float"
        assert str(table.schema.field("vector").type) == f"fixed_size_list<element: {number}>[{dim}]"
        assert table["item_id"] == release.table("items")["item_id"]
        assert release.record["embeddings"][f"embeddings_{name}"]["dim"] == dim
        assert release.record["embeddings"][f"embeddings_{name}"]["items"] == n
    assert release.metrics["tokenizer"]["vectors"] == "embeddings_fused"
    assert release.table("item_pairs")["kind"].unique().to_pylist() == ["swing"]
    assert any(name.startswith("fusion/") for name in release.record["files"])
    assert not verify(release.folder)


def test_what_was_embedded_first_is_the_text_of_items(fused: Run) -> None:
    items = fused.release.table("items").to_pylist()
    assert fused.outputs["text"].read("texts")["text"].to_pylist() == [item["text"] for item in items]
    assert fused.outputs["text titles"].read("texts")["text"].to_pylist() == [item["title"] for item in items]


def test_sql_finds_every_embedding(fused: Run) -> None:
    query = "select len(vector) from small.embeddings_titles limit 1"
    asked = inside("sql", query, "--warehouse", str(fused.plan.warehouse))
    assert asked.stdout.split() == ["len(vector)", "8"]


def test_the_report_tells_of_every_embedding(fused: Run) -> None:
    page = (fused.release.folder / "report.html").read_text()
    assert "<h2>Embeddings</h2>" in page
    for told in ("words", "titles", "collaborative", "ppmi-svd", "8 float16", "Tokenized: fused."):
        assert told in page


def test_another_model_of_one_modality_runs_that_and_what_follows(fused: Run) -> None:
    recipe = fused.plan.warehouse.parent / "recipe.toml"
    plan = make_plan(recipe, fused.plan.warehouse, ["embed.collaborative.dim=5"])
    rerun = [one.label for one in plan.stages if not one.done]
    assert rerun == ["embed collaborative", "fuse", "tokenize", "collisions", "gates"]
    plan = make_plan(recipe, fused.plan.warehouse, ["tokenize.vectors=words"])
    assert [one.label for one in plan.stages if not one.done] == ["tokenize", "collisions", "gates"]
    assert plan.stages[-3].inputs(fused.outputs)["vectors"] is fused.outputs["embed words"]


def test_a_plan_says_why_one_of_several_would_run(fused: Run) -> None:
    recipe = fused.plan.warehouse.parent / "recipe.toml"
    plan = make_plan(recipe, fused.plan.warehouse, ["embed.titles.dim=9", "embed.words.words=1"])
    why = {one.label: one.why for one in plan.stages}
    assert why["embed titles"] == "changed: options.dim"
    assert why["embed words"] == "changed: options.words"


def test_until_embed_runs_all_of_them(fused: Run) -> None:
    recipe = fused.plan.warehouse.parent / "recipe.toml"
    plan = make_plan(recipe, fused.plan.warehouse, until="embed")
    assert plan.stages[-1].label == "embed collaborative"
    assert "fuse" in STEPS
    assert "embed" in STEPS


def test_one_fused_vector_is_the_two_weighed(fused: Run) -> None:
    vectors = read_vectors(fused.outputs["fuse"])
    assert vectors.shape[1] == 28
    assert np.isfinite(vectors).all()
    assert StoredVectors.of(fused.outputs["fuse"]).present.all()


def test_a_recipe_as_written_has_every_default(fused: Run) -> None:
    written = fused.plan.recipe.as_written()
    assert [one["name"] for one in written["embed"]] == ["words", "titles", "collaborative"]
    assert written["embed"][0]["letters"] == 4
    assert written["embed"][0]["template"] == "{title}. {genres}"
    assert written["fuse"]["inputs"] == ["words", "titles", "collaborative"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("[[embed]]\n[[embed]]\n", "every [[embed]] needs a name of its own"),
        ("[[embed]]\nname = 'fused'\n", "'fused' is taken"),
        ("[[embed]]\nname = 'Big Name'\n", "embed.name"),
        ("[[embed]]\n[[embed]]\nmodality = 'collaborative'\n", "which to tokenize; there are: text, coll"),
        ("[[embed]]\nmodality = 'image'\n", "model is missing; expected an .onnx file"),
        ("[[embed]]\nmodality = 'collaborative'\nmodel = 'alz'\n", "there are: als"),
        ("[[embed]]\nmodality = 'collaborative'\ntemplate = '{title}'\n", "template is for modality"),
        ("[[embed]]\nmissing = 'map'\nmap_from = 'text'\n", "missing = 'map' is for images and behaviour"),
        ("[[embed]]\nmap_from = 'text'\n", "go together"),
        (
            "[[embed]]\n[[embed]]\nmodality = 'collaborative'\nmissing = 'map'\nmap_from = 'words'\n[fuse]\n",
            "map_from = 'words': expected another [[embed]], itself not mapped; there are: text",
        ),
        ("[[embed]]\ndims = -1\n", "dims = -1"),
        ("[[embed]]\nprecision = 'fp8'\n", "precision = 'fp8'"),
        (
            "[[embed]]\nname = 'cf_out'\n"
            "[[embed]]\nmodality = 'collaborative'\nname = 'cf'\nmodel = 'item2vec'\n",
            "item2vec writes a table 'cf_out' too; rename that [[embed]]",
        ),
        ("[[embed]]\nname = 'fused_content'\n", "'fused' is taken"),
        ("[[embed]]\nmodality = 'collaborative'\nclean_text = false\n", "clean_text is for modality"),
        ("[[embed]]\nmodel = 'hashing'\ndim = 1000000\n", "dim = 1000000: expected 1 to 65536"),
        ("[fuse]\ninputs = ['text', 'text']\n", "expected each name once"),
        ("[fuse]\nmethod = 'mean'\n", "there are: "),
        ("[fuse]\ninputs = ['image']\n", "no [[embed]] is called 'image'; there are: text"),
        ("[fuse]\nmethod = 'adaln-infonce'\n", "fuse: "),
        ("[tokenize]\nvectors = 'image'\n", "tokenize.vectors = 'image': there are: text"),
        ("[pairs]\nkinds = ['swings']\n", "swings"),
        ("[fuse]\nmethod = 'pairs-contrastive'\n", "needs item pairs; set [pairs] kinds = ['swing']"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, sections: str, message: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "x"\n[source]\nkind = "movietweetings"\npath = "."\n{sections}')
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_names_its_embedding(tmp_path: Path) -> None:
    recipe = several(tmp_path)
    assert load_recipe(recipe, ["embed.titles.dim=12"]).embed[1].options["dim"] == 12
    with pytest.raises(RecipeError, match=r"which \[\[embed\]\]\? Write embed.NAME.key; there are: words"):
        load_recipe(recipe, ["embed.dim=12"])


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("gates.max_duplicate_vectors=0", "embeddings_titles.duplicate_vectors"),
        ("gates.min_coverage=1", "embeddings_collaborative.coverage"),
    ],
)
def test_vectors_are_gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str, message: str) -> None:
    monkeypatch.setattr(gates, "judge", judge_plainly)
    sections = SECTIONS.replace('template = "{title}"', 'template = "{domain}"').replace(
        'missing = "map"\nmap_from = "words"', 'missing = "mean"'
    )
    recipe = several(tmp_path, sections)
    catalog = ["items.universe=catalog"]  # so that there are cold items
    (tmp_path / "dump" / "movies.dat").open("a").write("9999999::Nobody Saw It (2020)::Drama\n")
    run_chain(recipe, tmp_path / "w", *catalog)
    with pytest.raises(GateRefusedError, match=message):
        run_chain(recipe, tmp_path / "w", *catalog, gate)


def test_a_vector_that_is_not_finite_is_refused_by_item(tmp_path: Path, fused: Run) -> None:
    # What an encoder gives is checked where every embedding is written.
    from types import SimpleNamespace

    from sid_pipelines.embedded import write_embeddings

    items = fused.outputs["clean"].read("items_clean", ["item_index", "item_id"])
    written: list[object] = []
    work = SimpleNamespace(
        inputs={}, out=SimpleNamespace(write=lambda table, batches: written.extend(batches))
    )
    vectors = np.ones((len(items), 3), dtype=np.float32)
    there = np.ones(len(items), dtype=bool)
    vectors[2, 1] = 70_000
    arguments = {"name": "x", "dim": 3, "items": items, "blocks": [(vectors, there)]}
    facts = write_embeddings(work, dtype="float32", **arguments)  # type: ignore[arg-type]
    assert facts["duplicate_vectors"] == len(items) - 2
    with pytest.raises(DataError, match=rf"item {items['item_id'][2].as_py()!r} does not fit into float16"):
        write_embeddings(work, dtype="float16", **arguments)  # type: ignore[arg-type]
    vectors[5, 0] = np.nan
    with pytest.raises(DataError, match=rf"item {items['item_id'][5].as_py()!r} holds NaN or infinity"):
        write_embeddings(work, dtype="float32", **arguments)  # type: ignore[arg-type]


def test_only_what_is_there_is_published(small: Run) -> None:
    assert [name for name in published_tables(small.outputs) if name.startswith("embeddings_")] == [
        "embeddings_text"
    ]
    assert "fuse" not in small.outputs


SHARED = ROOT.parent / "shared" / "data"
ML_100K = f"""
dataset = "ml100k"
[source]
kind = "movielens"
path = "{SHARED / "ml-100k"}"
posters = true
[pairs]
kinds = ["swing"]
[[embed]]
modality = "text"
[[embed]]
modality = "image"
model = "{SHARED / "encoders" / "efficientnet_lite0_features_1280.onnx"}"
mean = [127.0]
std = [128.0]
[[embed]]
name = "behaviour"
modality = "collaborative"
missing = "map"
map_from = "text"
[fuse]
weights = {{behaviour = 3.0}}
[tokenize]
levels = [64, 64, 64]
"""


@pytest.mark.realdata
@pytest.mark.proof
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_text_posters_and_behaviour_become_one_release(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(ML_100K)
    release = run_chain(recipe, tmp_path / "w").release
    told = release.record["embeddings"]
    n = release.record["rows"]["items"]
    assert told["embeddings_text"]["present"] == n == 1_349
    assert 0.98 * n < told["embeddings_image"]["present"] < n
    assert told["embeddings_behaviour"]["missing_rule"] == "map"
    assert told["embeddings_behaviour"]["fit_scope"] == "train interactions"
    assert told["embeddings_fused"]["dim"] == 384 + 1280 + 64
    assert told["embeddings_fused"]["items_with"]["text+image+behaviour"] > 0.97 * n
    assert all(release.table("embeddings_fused")["present"].to_pylist())
    assert release.metrics["collisions"]["after"]["collided_items"] == 0
    assert release.record["rows"]["item_pairs"] > 20_000
    page = (release.folder / "report.html").read_text()
    assert "<td>efficientnet_lite0_features_1280.onnx</td>" in page
    assert "7: mask (7 missing file)" in page
    # A second data set in the same warehouse: nothing is embedded again, and the vectors are the same.
    recipe.write_text(ML_100K.replace('"ml100k"', '"again"'))
    again = run_chain(recipe, tmp_path / "w", until="embed").outputs
    assert again["embed text"].facts["embedded"] == 0
    assert "0 embedded and" in again["embed image"].manifest["summary"]
    for name in ("text", "image"):
        table = f"embeddings_{name}"
        assert again[f"embed {name}"].read(table)["vector"] == release.table(table)["vector"]
