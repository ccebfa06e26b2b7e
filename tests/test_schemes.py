"""Every scheme and policy through the chain: one line of the recipe is switched, a release comes out."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Run, quickly, run_chain, small_dump

from sid_flows.plan import make_plan
from sid_pipelines.tokenize import Coded, code_blocks
from sid_pipelines.vectors import StoredVectors
from sid_schemas import MissingExtraError, RecipeError
from sid_tokenizers import POLICIES, TOKENIZERS, RQKMeans, Tokenizer, Traits
from sid_tokenizers.base import Vectors
from sid_warehouse.arrays import codes_column, padded_matrix, vectors_column

LEARNED = ("letter", "rq-vae-uniform", "graph-rq-vae", "moe-pq", "prism")
SMALL: dict[str, tuple[str, ...]] = {
    "rq-kmeans+fsq": ("kmeans_levels=[3, 3]", "fsq_levels=[2, 2]"),
    "fsq": ("fsq_levels=[3, 3]", "slices=2", "epochs=1"),
    "rq-vae": ("levels=[4, 4]", "latent=4", "hidden=[8]", "max_steps=20"),
    "rq-kmeans-plus": ("levels=[4, 4]", "hidden=[8]", "epochs=2", "decoder_epochs=1"),
    **dict.fromkeys(LEARNED, ("levels=[4, 4]", "latent=4", "hidden=[8]", "epochs=2")),
    "gmc": ("levels=[4, 4]", "latent=4", "hidden=[8]", "epochs=2", "domain_from=category"),
    "setrec": ("hidden=[8]", "width=4", "epochs=2"),
    "kmeans-tree": ("branching=3", "leaf=3"),
    "spectral": ("n_clusters=2", "token_size=4"),
    "spectral+category": ("n_clusters=2", "token_size=4"),
    **dict.fromkeys(("category-path", "sequential", "independent", "random", "title", "text-docid"), ()),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe whose vectors are embedded already, and its warehouse."""
    folder = tmp_path_factory.mktemp("schemes")
    recipe = small_dump(folder, movies=14, users=20)
    behaviour = '[[embed]]\n[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'
    recipe.write_text(recipe.read_text().replace("levels = [4, 4]\n", 'vectors = "text"\n') + behaviour)
    run_chain(recipe, folder / "w", until="embed")
    return recipe, folder / "w"


def sound(run: Run) -> None:
    """Check what any release owes: vocabulary, trie and way back agree with the table of SIDs."""
    release = run.release
    sids = release.table("sids")
    trie, vocabulary = release.trie(), release.vocabulary
    back = {row["sid_key"]: row["item_indexes"] for row in release.table("sid_to_items").to_pylist()}
    strings = vocabulary.strings()
    for row in sids.to_pylist():
        assert "-".join(map(str, row["sid"])) == row["sid_key"]
        assert back[row["sid_key"]][row["slot"]] == row["item_index"]
        assert trie.item(row["sid"]) == back[row["sid_key"]][0]
        assert [strings[token] for token in row["token_ids"]] == row["tokens"]
        assert row["suffix"] == (row["sid"][-1] if len(row["sid"]) > len(row["codes"]) else None)
    scheme = release.tokenizer()
    if isinstance(scheme, Tokenizer):
        names = ("text", "collaborative") if scheme.traits.stacked else ("text",)
        vectors = [np.stack(release.table(f"embeddings_{name}")["vector"].to_numpy()) for name in names]
        assert scheme.encode(np.concatenate(vectors, axis=1)).tolist() == sids["codes"].to_pylist()
    samples = release.samples("train", max_history=1)
    tokens = {row["item_index"]: row["token_ids"] for row in sids.to_pylist()}
    width = vocabulary.length
    for sample in (samples[0], samples[len(samples) - 1]):
        own = tokens[sample["target_item"]]  # type: ignore[index]
        assert sample["target"].tolist() == own + [vocabulary.pad] * (width - len(own))  # type: ignore[union-attr]
        assert len(sample["history"]) == width  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_tokenizer_makes_a_release(dump: tuple[Path, Path], name: str) -> None:
    params = SMALL.get(name, ("levels=[4, 4]",))
    done = run_chain(*dump, f"tokenize.tokenizer={name}", *(f"tokenize.{one}" for one in params))
    sound(done)
    metrics = done.release.metrics
    assert metrics["collisions"]["after"]["collision_rate"] == 0
    assert metrics["tokenizer"]["ordered"] is TOKENIZERS[name].traits.ordered
    scheme = done.release.tokenizer()
    reconstructs = isinstance(scheme, Tokenizer) and scheme.reconstructs
    assert (metrics["tokenizer"]["reconstruction"] is None) is not reconstructs


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_makes_a_release(dump: tuple[Path, Path], name: str) -> None:
    crowded = ("tokenize.levels=[3, 2]", "gates.max_collision_rate=0.9")
    if name in ("next-nearest", "min-cost", "sinkhorn"):  # fixed length, so there must be room
        crowded = ("tokenize.levels=[4, 4]",)
    done = run_chain(*dump, *crowded, f"collisions.policy={name}")
    sound(done)
    resolved, policy = done.release.metrics["collisions"], POLICIES[name]
    assert resolved["before"]["collided_items"] > 0
    assert (resolved["after"]["collided_items"] == 0) is policy.unique
    lengths = {len(sid) for sid in done.release.table("sids")["sid"].to_pylist()}
    assert lengths == {"L": {2}, "L+1": {3}, "L or L+1": {2, 3}}[policy.length]


def test_normalized_residuals_report_no_reconstruction(dump: tuple[Path, Path]) -> None:
    done = run_chain(*dump, "tokenize.levels=[4, 4]", "tokenize.normalize_residuals=true")
    assert done.release.metrics["tokenizer"]["reconstruction"] is None
    assert done.release.metrics["collisions"]["reconstruction"] is None


def test_the_fit_scope_is_kept(dump: tuple[Path, Path]) -> None:
    levels = "tokenize.levels=[4, 4]"
    everything = run_chain(*dump, levels, "tokenize.fit_scope=all").release
    some = run_chain(*dump, levels, "tokenize.fit_items=6").release
    items = everything.record["rows"]["items"]
    assert everything.metrics["tokenizer"]["fit_items"] == items
    scopes = everything.record["fit_scopes"]
    assert (scopes["embeddings_text"], scopes["tokenizer"]) == ("none: the encoder is frozen", "all items")
    fit = some.metrics["tokenizer"]
    assert (fit["fit_items"], fit["collisions_fit"]["items"]) == (6, 6)
    assert fit["fit_items_in_scope"] > 6
    assert fit["reconstruction"]["held_out"] is not None
    assert some.tokenizer().fit_["rows"] == 6


def test_a_tokenizer_without_its_package_is_refused_by_the_plan(
    dump: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(*dump, ("tokenize.tokenizer=rq-vae",))
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(MissingExtraError, match=r"Tokenizer 'rq-vae' \(torch\)"):
        plan.check_needs()


class Toy(RQKMeans):
    """A scheme that declares something else than the others."""

    name = "toy"


DECLARED = [
    (Traits(unique=True), "next-nearest", "gives no two items one SID; choose none"),
    (Traits(fixed_length=False), "suffix", "and the tokenizer's vary; choose none"),
    (Traits(gives="text"), "capacity", "the tokenizer gives text"),
    (Traits(), "next-nearest", None),
    (Traits(unique=True), "none", None),
]


@pytest.mark.parametrize(("traits", "policy", "problem"), DECLARED)
def test_the_menu_follows_what_is_declared(
    dump: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, traits: Traits, policy: str, problem: str | None
) -> None:
    monkeypatch.setattr(Toy, "traits", traits)
    monkeypatch.setitem(TOKENIZERS, "toy", Toy)
    chosen = ("tokenize.tokenizer=toy", "tokenize.levels=[4, 4]", f"collisions.policy={policy}")
    if problem is None:
        make_plan(*dump, chosen)
    else:
        with pytest.raises(RecipeError, match=problem):
            make_plan(*dump, chosen)


def test_there_must_be_a_letter_for_every_level(dump: tuple[Path, Path]) -> None:
    levels = f"tokenize.levels={[2] * 26}"
    make_plan(*dump, (levels,))
    with pytest.raises(RecipeError, match="there are letters for 26 only"):
        make_plan(*dump, (levels, "collisions.policy=suffix"))


def test_every_parameter_of_a_policy_can_be_set(dump: tuple[Path, Path]) -> None:
    others = {"size": 50, "seed": 3, "order": "popularity", "rounds": 2, "eps": 0.01, "iterations": 9}
    others |= {"fsq_levels": [8, 8], "capacity": 2}
    for name, policy in POLICIES.items():
        fields = [field.name for field in dataclasses.fields(policy)]
        given = [f"collisions.{field}={others[field]}" for field in fields]
        plan = make_plan(*dump, (f"collisions.policy={name}", "tokenize.levels=[4, 4]", *given))
        assert plan.recipe.collisions.parameters == {field: others[field] for field in fields}


def test_metrics_hold_what_is_promised(example: Run) -> None:
    metrics = example.release.metrics
    resolved, fitted = metrics["collisions"], metrics["tokenizer"]
    for scope in ("before", "after", "before_fit", "after_fit"):
        assert {"collision_rate", "uniquely_identified", "max_group", "gini_of_groups"} <= set(
            resolved[scope]
        )
    for level in (*resolved["levels"], *resolved["levels_fit"]):
        assert {"used", "dead", "entropy_ratio", "perplexity_share", "gini", "prefixes"} <= set(level)
    assert resolved["after"]["items"] > resolved["after_fit"]["items"] == fitted["fit_items"]
    assert resolved["reconstruction"]["squared_error"] > fitted["reconstruction"]["fit"]["squared_error"]
    assert resolved["neighbour_overlap_at_10"] > 0.1  # by chance 0.007
    assert 0.007 < resolved["cf_neighbour_overlap_at_10"] < 1
    purity = resolved["category_purity"]
    assert [row["length"] for row in purity] == [1, 2, 3]
    assert all(row["purity"] > row["shuffled"] for row in purity[:2])
    assert [level["prefixes"] for level in resolved["levels"]][-1] == resolved["after"]["distinct_sids"]


@pytest.fixture
def stored(real: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredVectors:
    """Vectors in two files of several row groups, too many to be kept."""
    monkeypatch.setattr("sid_pipelines.vectors.IN_MEMORY", 1000)
    monkeypatch.setattr("sid_pipelines.vectors.ROWS", 100)
    parts = []
    for number, rows in enumerate((real[:700], real[700:])):
        parts.append(tmp_path / f"part-{number}.parquet")
        pq.write_table(pa.table({"vector": vectors_column(rows)}), parts[-1], row_group_size=130)
    return StoredVectors(parts)


def test_stored_vectors_are_read_in_pieces(stored: StoredVectors, real: Vectors) -> None:
    assert (len(stored), stored.dim) == real.shape
    pieces = list(stored.blocks())
    assert max(len(block) for _, block in pieces) <= 100
    assert all(np.array_equal(block, real[start : start + len(block)]) for start, block in pieces)
    assert sum(len(block) for _, block in pieces) == len(real)
    wanted = np.random.default_rng(0).integers(0, len(real), 300)
    assert np.array_equal(stored.rows(wanted), real[wanted])
    assert stored.rows(wanted[:0]).shape == (0, 384)


def test_codes_in_pieces_are_the_codes_of_the_whole(stored: StoredVectors, real: Vectors) -> None:
    tokenizer = RQKMeans(levels=[16, 16]).fit(real)
    fitted = np.arange(len(real)) % 2 == 0
    coded = Coded(len(real), 2)
    for block in map(coded.keep, code_blocks(tokenizer, stored.blocks(), fitted)):
        rows = slice(block.start, block.start + len(block.codes))
        assert np.array_equal(block.codes, tokenizer.encode(real[rows]))
    facts = coded.facts(tokenizer, fitted)
    assert facts["duplicate_vectors"] == len(real) - len(np.unique(real, axis=0))
    error = ((real - tokenizer.decode(coded.codes)) ** 2).sum(axis=1)
    found = facts["reconstruction"]
    assert found["fit"]["squared_error"] == pytest.approx(float(error[fitted].mean()), rel=1e-5)
    assert found["held_out"]["squared_error"] == pytest.approx(float(error[~fitted].mean()), rel=1e-5)


def test_columns_of_codes_there_and_back() -> None:
    codes = np.array([[1, 2, -1], [3, 4, 5]], dtype=np.int32)
    column = pa.chunked_array([codes_column(codes)])
    assert column.to_pylist() == [[1, 2], [3, 4, 5]]
    assert np.array_equal(padded_matrix(column, 3, -1), codes)
    assert np.array_equal(padded_matrix(column, 3, 0)[0], [1, 2, 0])
