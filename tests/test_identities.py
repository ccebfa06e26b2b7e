"""What identifies items beside codes, through the chain: paths, numbers, text, soft codes, several SIDs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import Run, quickly, run_chain, small_dump

from sid_flows.execute import execute, finish
from sid_flows.plan import make_plan
from sid_flows.retokenize import plan_retokenize
from sid_pipelines import gates
from sid_pipelines.recheck import recheck
from sid_schemas import GateRefusedError, RecipeError, WarehouseError
from sid_tokenizers import Trie
from sid_warehouse import parquet
from sid_warehouse.stages import StageOutput

Dump = tuple[Path, Path]
CF = '[[embed]]\n[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Dump:
    """A recipe with vectors of text and of behaviour, and its warehouse."""
    folder = tmp_path_factory.mktemp("identities")
    recipe = small_dump(folder, movies=14, users=20)
    recipe.write_text(recipe.read_text().replace("[tokenize]\nlevels = [4, 4]\n", CF))
    return recipe, folder / "w"


@pytest.fixture(scope="module")
def behaviour(dump: Dump) -> Run:
    """A release of two tables of SIDs, soft codes, user SIDs and mixtures."""
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return run_chain(
            *dump,
            "tokenize.vectors=collaborative",
            'tokenize.each=["text"]',
            "tokenize.levels=[4, 4]",
            "tokenize.soft=3",
            "users.levels=[3, 2]",
            "users.mixtures=true",
            'pieces.schemes=["ngram", "prefix-ngram"]',
        )


def test_several_embeddings_have_sids_of_their_own(behaviour: Run) -> None:
    release = behaviour.release
    assert {"sids", "sids_text", "sid_to_items", "sid_to_items_text"} <= set(release.tables)
    text, other = release.table("sids_text"), release.table("sids")
    assert text["item_id"].equals(other["item_id"])
    assert text["sid_key"].to_pylist() != other["sid_key"].to_pylist()
    assert len(set(text["sid_key"].to_pylist())) == len(text)  # each table alone is unique
    for row in text.to_pylist():
        assert release.trie("text").item(row["sid"]) == row["item_index"]
    vectors = np.stack(release.table("embeddings_text")["vector"].to_numpy())
    codes = release.tokenizer("text").encode(vectors)  # type: ignore[attr-defined]
    assert codes.tolist() == text["codes"].to_pylist()
    assert release.metrics["sids"]["text"]["tokenizer"]["vectors"] == "embeddings_text"
    with pytest.raises(WarehouseError, match="has no table sids_image; there are: text"):
        release.trie("image")


def test_soft_codes_are_published_with_their_temperature(behaviour: Run) -> None:
    release = behaviour.release
    soft, facts = release.table("soft_sids"), release.metrics["tokenizer"]["soft"]
    assert facts == {"top": 3, "temperature": 1.0}
    vectors = np.stack(release.table("embeddings_collaborative")["vector"].to_numpy())
    codes, shares = release.tokenizer().encode_soft(vectors, 3)  # type: ignore[attr-defined]
    for level in (1, 2):
        rows = soft.filter(pa.compute.equal(soft["level"], level))
        assert rows["codes"].to_pylist() == codes[:, level - 1].tolist()
        assert np.allclose(np.stack(rows["probabilities"].to_numpy()), shares[:, level - 1])


def test_a_scheme_that_is_soft_in_training_publishes_its_own_temperature(dump: Dump) -> None:
    release = run_chain(
        *dump,
        "tokenize.tokenizer=rq-vae-uniform",
        "tokenize.vectors=collaborative",
        "tokenize.levels=[4, 4]",
        "tokenize.soft=3",
        "tokenize.epochs=2",
        "collisions.policy=suffix-from-zero",
    ).release
    facts = release.metrics["tokenizer"]["soft"]
    assert facts == {"top": 3, "temperature": release.tokenizer().temperature_}  # type: ignore[attr-defined]
    assert facts["temperature"] != 1
    vectors = np.stack(release.table("embeddings_collaborative")["vector"].to_numpy())
    codes, shares = release.tokenizer().encode_soft(vectors, 3)  # type: ignore[attr-defined]
    soft = release.table("soft_sids")
    assert soft["codes"].to_pylist() == codes.reshape(-1, 3).tolist()
    assert np.allclose(np.stack(soft["probabilities"].to_numpy()), shares.reshape(-1, 3))


def test_a_release_with_all_of_it_can_be_measured_again(behaviour: Run) -> None:
    done = recheck(behaviour.release.folder)
    assert (done.findings, done.left_out) == ([], 0)
    names = {one["table"] for one in behaviour.record["gates"]}  # type: ignore[index]
    assert {"sids_text", "sid_to_items_text", "soft_sids", "user_sids", "user_mixtures"} <= names


def tampered(run: Run, role: str, table: str, change: Any) -> dict[str, StageOutput]:
    """Give the outputs of a run with one table changed on its disk; the run's own files stay."""
    outputs = dict(run.outputs)
    copy = run.plan.warehouse / f"tampered-{table}-{id(change)}"
    import shutil

    shutil.copytree(outputs[role].folder, copy)
    rows = parquet.read(copy, table)
    shutil.rmtree(copy / table)
    from sid_schemas.tables import table_named

    parquet.write(copy, table_named(table), change(rows))
    outputs[role] = StageOutput(copy, outputs[role].manifest)
    return outputs


def set_column(name: str, value: Any) -> Any:
    def change(rows: pa.Table) -> pa.Table:
        place = rows.column_names.index(name)
        values = rows[name].to_pylist()
        values[0] = value
        return rows.set_column(place, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))

    return change


SPOILT = [
    ("tokenize", "soft_sids", set_column("probabilities", [0.9, 0.9, 0.9]), "soft_sids.wrong_shares"),
    ("tokenize", "soft_sids", set_column("codes", [9, 1, 2]), "soft_sids.beyond_level"),
    ("tokenize", "soft_sids", lambda rows: rows.slice(1), "soft_sids.rows_missing"),
    ("tokenize", "soft_sids", set_column("codes", [3, 2, 1]), "soft_sids.not_the_code"),
    ("pieces", "sid_pieces", set_column("piece_ids", [0]), "sid_pieces.not_the_sids"),
    ("collisions text", "sids_text", set_column("sid_key", "7-7"), "sids_text.wrong_key"),
    ("collisions text", "sids_text", lambda rows: rows.slice(0, 13), "items.without_sids_text"),
]


@pytest.mark.parametrize(("role", "table", "change", "check"), SPOILT, ids=[one[3] for one in SPOILT])
def test_gates_see_what_is_wrong_beside_sids(
    behaviour: Run, role: str, table: str, change: Any, check: str, tmp_path: Path
) -> None:
    spoilt = tampered(behaviour, role, table, change)
    draft: Any = _Draft(behaviour, tmp_path)
    planned = next(one for one in behaviour.plan.stages if one.label == "gates")
    with pytest.raises(GateRefusedError, match=check.replace(".", r"\.")):
        planned.stage.run(
            gates.Work(planned.params, planned.inputs(spoilt), draft, gates_resources(), _quiet)
        )
    assert (tmp_path / "refused" / "guides" / "key" / "refusal.json").is_file()


class _Draft:
    """A place to spill into and one for failing rows, which is all that gates need to refuse."""

    def __init__(self, run: Run, warehouse: Path) -> None:
        self.spill = run.plan.warehouse / "spill"
        self.store = SimpleNamespace(warehouse=warehouse, dataset="guides")
        self.key = "key"


def gates_resources() -> Any:
    from sid_pipelines.stage import Resources

    return Resources()


def _quiet(done: int, total: int) -> None:
    pass


REFUSED = [
    (("tokenize.tokenizer=prism", "embed.collaborative.name=other", "embed.other.model=hashing",
      "embed.other.modality=text"), "needs vectors of behaviour; add"),
    (("tokenize.cf=text", "tokenize.tokenizer=prism"), "expected an embedding of behaviour"),
    (("tokenize.cf=collaborative", "tokenize.vectors=text"), "reads no vectors of behaviour"),
    (('tokenize.each=["image"]', "tokenize.vectors=text"), "no \\[\\[embed\\]\\] is called 'image'"),
    (("tokenize.vectors=text", "tokenize.soft=2", "tokenize.tokenizer=fsq"), "has no soft codes"),
    (("tokenize.vectors=text", "users.vectors=nothing"), "users.vectors = 'nothing': there are"),
    (("tokenize.vectors=text", "users.tokenizer=prism"), "expected a scheme that gives vectors codes"),
    (("tokenize.tokenizer=prism", 'tokenize.each=["text"]'), "needs more than an embedding"),
    (("tokenize.tokenizer=kmeans-tree", "tokenize.vectors=text", 'tokenize.each=["text"]'),
     "needs more than an"),
    (("tokenize.vectors=text", "tokenize.levels=[4, 4]", "tokenize.soft=5"), "expected at most 4"),
    (("tokenize.tokenizer=prism", "tokenize.vectors=collaborative"), "reads behaviour already"),
    (("tokenize.tokenizer=pq", "tokenize.vectors=text", "tokenize.vocab_size=9",
      "collisions.policy=suffix-on-collision"), "docids have one length"),
    (("tokenize.tokenizer=random", "tokenize.vectors=text", "users.mixtures=true", "users.levels=[2]"),
     "users.mixtures"),
    (("tokenize.tokenizer=title", "tokenize.vectors=text", 'pieces.schemes=["ngram"]'), "SIDs of one length"),
    (("tokenize.tokenizer=sequential", "tokenize.vectors=text", "collisions.policy=suffix"), "choose none"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "problem"), REFUSED, ids=[problem for _, problem in REFUSED])
def test_a_recipe_that_lacks_something_is_refused(dump: Dump, given: tuple[str, ...], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        make_plan(*dump, given)


def test_unique_ids_need_no_policy(dump: Dump) -> None:
    plan = make_plan(*dump, ("tokenize.tokenizer=sequential", "tokenize.vectors=text"))
    assert plan.recipe.collisions.policy == "none"


@pytest.mark.parametrize("name", ["sequential", "kmeans-tree", "title"])
def test_ids_of_one_vocabulary_make_a_release(dump: Dump, name: str) -> None:
    done = run_chain(*dump, f"tokenize.tokenizer={name}", "tokenize.vectors=text")
    release = done.release
    sids, vocabulary, trie = release.table("sids"), release.vocabulary, release.trie()
    assert vocabulary.places
    assert max(len(row) for row in sids["sid"].to_pylist()) == vocabulary.length
    strings = vocabulary.strings()
    for row in sids.to_pylist():
        assert trie.item(row["sid"]) == row["item_index"]
        assert not len(trie.allowed(row["sid"]))  # nothing goes on where an ID ends
        assert [strings[token] for token in row["token_ids"]] == row["tokens"]
    assert release.metrics["collisions"]["length"] == "varies"
    assert recheck(release.folder).findings == []
    sample = release.samples("train", max_history=2)[0]
    assert len(sample["history"]) == 2 * vocabulary.length  # type: ignore[arg-type]


def test_an_id_that_begins_another_is_refused(dump: Dump, monkeypatch: pytest.MonkeyPatch) -> None:
    from sid_tokenizers.indexers.numbered import Independent

    def spoilt(self: Any, X: Any, about: Any, taken: Any) -> Any:
        ids = np.full((len(X), 2), -1, dtype=np.int32)
        ids[:, 0] = np.arange(len(X))
        ids[1] = (0, 5)  # begins with the whole of the first
        return ids

    monkeypatch.setattr(Independent, "index", spoilt)
    given = ("tokenize.tokenizer=independent", "tokenize.vectors=text", "tokenize.first=0", "tokenize.seed=5")
    with pytest.raises(GateRefusedError, match="no SID is the beginning of another"):
        run_chain(*dump, *given)


def test_a_retokenize_renames_soft_codes_too(behaviour: Run, dump: Dump, tmp_path: Path) -> None:
    before = behaviour.release
    recipe = tmp_path / "again.toml"
    recipe.write_text('dataset = "small"\n[tokenize]\nseed = 7\n')
    plan = plan_retokenize(before.ref, recipe, dump[1])
    outputs: dict[str, StageOutput] = {}
    for planned in plan.stages:
        outputs[planned.label] = execute(plan, planned, {**plan.given, **outputs})
    done = Run(plan, outputs, finish(plan, outputs)).release
    assert {"soft_sids", "sids_text", "user_sids", "user_mixtures"} <= set(done.tables)
    vectors = np.stack(done.table("embeddings_collaborative")["vector"].to_numpy())
    codes, _ = done.tokenizer().encode_soft(vectors, 3)  # type: ignore[attr-defined]
    soft = done.table("soft_sids")["codes"].to_pylist()
    assert soft == codes.reshape(-1, 3).tolist()


def test_the_trie_of_paths_is_the_ids() -> None:
    trie = Trie.build([[3, -1], [1, 2], [1, 4]])
    assert trie.item([3]) == 0
    assert trie.allowed([1]).tolist() == [2, 4]
