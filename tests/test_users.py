"""SIDs and cluster mixtures of users: total over users with train events, and made of nothing else."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers import Run, judge_plainly, more_dump, quickly, run_append, run_chain, small_dump, swapped

from sid_pipelines import users
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.gates import measure
from sid_pipelines.recheck import recheck
from sid_pipelines.stage import Resources, Work
from sid_pipelines.user_promises import user_promises
from sid_pipelines.users import UsersParams, last_events, user_mixtures, user_vectors
from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError, Table, WarehouseError
from sid_schemas.checks import checks_of
from sid_schemas.tables import INTERACTIONS, USER_MIXTURES, USER_SIDS
from sid_tokenizers import Vocabulary
from sid_warehouse import parquet
from sid_warehouse.arrays import matrix
from sid_warehouse.db import connect, view
from sid_warehouse.stages import StageOutput, StageStore

BOTH = UsersParams(params={"levels": [4, 4]}, mixtures=True)
REAL = UsersParams(params={"levels": [16, 16, 16]}, mixtures=True)
FLAT = ("tokenize.levels=[4]", "collisions.policy=none", "gates.max_collision_rate=1.0")  # kNN-Embed's


def made(outputs: Mapping[str, StageOutput], folder: Path, params: UsersParams) -> StageOutput:
    """Run the stage alone."""
    read = {name: outputs[name] for name in ("clean", "split", "collisions")}
    inputs = {**read, "vectors": outputs["embed text"]} | {n: outputs[n] for n in ("base",) if n in outputs}
    with StageStore(folder, "d").write("users", "0", {}) as draft:
        outcome = users.run(Work(params, inputs, draft, Resources(), lambda done, total: None))
        return draft.commit(outcome.facts, outcome.summary)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def small_users(small: Run, tmp_path_factory: pytest.TempPathFactory) -> StageOutput:
    return made(small.outputs, tmp_path_factory.mktemp("users"), BOTH)


@pytest.fixture(scope="module")
def real_users(example: Run, tmp_path_factory: pytest.TempPathFactory) -> StageOutput:
    return made(example.outputs, tmp_path_factory.mktemp("users"), REAL)


def train_sets(outputs: Mapping[str, StageOutput]) -> dict[int, set[int]]:
    """Give the items of each user's train events."""
    found: dict[int, set[int]] = {}
    for row in outputs["split"].read("interactions", ["user_index", "item_index", "split"]).to_pylist():
        if row["split"] == "train":
            found.setdefault(row["user_index"], set()).add(row["item_index"])
    return found


def events_of(*pairs: tuple[int, int], users: int = 3, items: int = 4) -> TrainEvents:
    columns = np.array(pairs, dtype=np.int32).T
    return TrainEvents(columns[0], columns[1], users, items)


# --- SIDs


def test_every_user_with_a_train_event_has_a_sid_and_no_other(example: Run, real_users: StageOutput) -> None:
    table = real_users.read("user_sids")
    wanted = train_sets(example.outputs)
    assert table["user_index"].to_pylist() == sorted(wanted)
    people = example.outputs["clean"].read("users")
    by_index = dict(zip(people["user_index"].to_pylist(), people["user_id"].to_pylist(), strict=True))
    assert table["user_id"].to_pylist() == [by_index[index] for index in sorted(wanted)]
    facts = real_users.facts
    assert facts["users"] == len(wanted) == facts["groups"]["items"]
    assert facts["distinct"] == len(set(table["sid_key"].to_pylist()))
    assert facts["levels"][0]["used"] == 16
    assert (facts["fit_scope"], facts["seed"]) == ("users with a train event", 0)


def test_user_tokens_are_their_own_and_spelt_as_items_are(real_users: StageOutput) -> None:
    row = real_users.read("user_sids").slice(0, 1).to_pylist()[0]
    first, second, third = row["sid"]
    assert row["sid_key"] == f"{first}-{second}-{third}"
    assert row["text"] == f"<ua_{first}><ub_{second}><uc_{third}>" == "".join(row["tokens"])
    vocabulary = Vocabulary.load(real_users.folder / "users" / "vocabulary.json")
    assert vocabulary == Vocabulary((16, 16, 16), prefix="u")
    assert [vocabulary.strings()[token] for token in row["token_ids"]] == row["tokens"]
    assert not set(vocabulary.strings()[3:]) & set(Vocabulary((16, 16, 16)).strings())


def test_users_who_share_a_prefix_share_more_items_than_strangers(
    example: Run, real_users: StageOutput
) -> None:
    sets = train_sets(example.outputs)
    codes = matrix(real_users.read("user_sids")["sid"])
    owned = np.zeros((len(codes), len(example.outputs["clean"].read("items_clean", ["item_index"]))))
    for row, index in enumerate(sorted(sets)):
        owned[row, list(sets[index])] = 1
    common, upper = owned @ owned.T, np.triu(np.ones((len(codes), len(codes)), dtype=bool), 1)

    def shared(codes: np.ndarray, length: int) -> float:
        alike = (codes[:, None, :length] == codes[None, :, :length]).all(axis=2) & upper
        return float(common[alike].mean())

    strangers = float(common[upper].mean())
    assert shared(codes, 1) > 1.5 * strangers
    assert shared(codes, 2) > 2 * strangers
    shuffled = codes[np.random.default_rng(0).permutation(len(codes))]  # who has which SID no longer counts
    assert shared(shuffled, 1) < 1.1 * strangers


def test_a_second_run_and_another_seed(small: Run, small_users: StageOutput, tmp_path: Path) -> None:
    again = made(small.outputs, tmp_path / "again", BOTH)
    assert again.read("user_sids").equals(small_users.read("user_sids"))
    assert (
        again.manifest["files"]["users/tokenizer/tokenizer.safetensors"]
        == small_users.manifest["files"]["users/tokenizer/tokenizer.safetensors"]
    )
    other = made(small.outputs, tmp_path / "other", replace(BOTH, params={"levels": [4, 4], "seed": 1}))
    assert other.facts["seed"] == 1


def test_an_append_keeps_the_codebooks(small: Run, small_users: StageOutput, tmp_path: Path) -> None:
    fewer = small.outputs["split"].read("interactions")
    fewer = fewer.filter(pc.less(fewer["user_index"], 6))
    grown = rewritten(small.outputs["split"], INTERACTIONS, fewer, tmp_path / "split")
    outputs = {**small.outputs, "split": grown, "base": small_users}
    table = made(outputs, tmp_path / "w", BOTH).read("user_sids")
    assert table["sid"].equals(small_users.read("user_sids")["sid"].slice(0, 6))
    refitted = made(small.outputs | {"split": grown}, tmp_path / "v", BOTH).read("user_sids")
    assert not table["sid"].equals(refitted["sid"])


# --- train events alone


def let_in(outputs: Mapping[str, StageOutput], folder: Path) -> dict[str, StageOutput]:
    """Give the outputs of a split that calls every event a train event."""
    events = outputs["split"].read("interactions")
    train = pa.array(["train"] * len(events))
    events = events.set_column(
        events.schema.get_field_index("split"), INTERACTIONS.arrow().field("split"), train
    )
    return {**outputs, "split": rewritten(outputs["split"], INTERACTIONS, events, folder)}


def rewritten(output: StageOutput, table: Table, rows: pa.Table, folder: Path) -> StageOutput:
    """Give an output with other rows in one table."""
    shutil.copytree(output.folder, folder)
    shutil.rmtree(folder / table.name)
    parquet.write(folder, table, rows)
    return StageOutput(folder, output.manifest)


def test_held_out_events_change_no_user(tmp_path: Path) -> None:
    dumps = {}
    for name in ("as it was", "altered"):
        recipe = small_dump(tmp_path / name, users=20)
        if name == "altered":
            swapped(recipe)
        hashing = ("embed.model=hashing", "embed.dim=32")
        dumps[name] = run_chain(recipe, tmp_path / name / "w", *hashing, until="collisions").outputs
    before, after = dumps["as it was"], dumps["altered"]
    held_out = [one["split"].read("interactions", ["user_index", "item_index"]) for one in (before, after)]
    assert not held_out[0].equals(held_out[1])
    for table in ("user_sids", "user_mixtures"):
        was = made(before, tmp_path / f"{table} was", BOTH).read(table)
        assert made(after, tmp_path / f"{table} is", BOTH).read(table).equals(was)

    leaky = [let_in(one, tmp_path / f"split {n}") for n, one in enumerate((before, after))]
    leaked = [made(one, tmp_path / f"leaky {n}", BOTH) for n, one in enumerate(leaky)]
    assert not leaked[0].read("user_sids", ["sid"]).equals(leaked[1].read("user_sids", ["sid"]))
    assert not leaked[0].read("user_mixtures").equals(leaked[1].read("user_mixtures"))


def test_users_without_a_train_event_have_no_row(small: Run, tmp_path: Path) -> None:
    events = small.outputs["split"].read("interactions")
    of_others = pc.or_(pc.not_equal(events["split"], "train"), pc.greater(events["user_index"], 0))
    split = rewritten(small.outputs["split"], INTERACTIONS, events.filter(of_others), tmp_path / "split")
    output = made({**small.outputs, "split": split}, tmp_path / "w", BOTH)
    assert output.facts["without_train_event"] == 1
    for table in ("user_sids", "user_mixtures"):
        assert output.read(table)["user_index"].to_pylist() == list(range(1, 12))
    nothing = rewritten(small.outputs["split"], INTERACTIONS, events.slice(0, 0), tmp_path / "none")
    with pytest.raises(DataError, match="no train event"):
        made({**small.outputs, "split": nothing}, tmp_path / "v", BOTH)


# --- vectors of users


def test_a_user_is_the_mean_of_the_items_in_his_events(example: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = StoredVectors.of(example.outputs["embed text"])
    X = vectors.rows(np.arange(4))
    events = events_of((0, 1), (0, 3), (0, 1), (2, 0))
    monkeypatch.setattr(users, "BLOCK", 1)
    people, found = user_vectors(events, vectors)
    assert people.tolist() == [0, 2]
    slow = np.stack([X[[1, 3, 1]].astype(float).mean(axis=0), X[0]])
    assert np.allclose(found, slow, atol=1e-7)


def test_last_keeps_the_latest_events_of_each_user() -> None:
    events = events_of((0, 1), (0, 3), (0, 2), (1, 0), (2, 1), (2, 3))
    kept = last_events(events, 2)
    assert list(zip(kept.users.tolist(), kept.items.tolist(), strict=True)) == [
        (0, 3),
        (0, 2),
        (1, 0),
        (2, 1),
        (2, 3),
    ]
    assert last_events(events, 0) is events


def test_behaviour_vectors_are_asked_for_by_name(example: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vectors = 'cf' with embeddings_text, which is not of behaviour"):
        made(example.outputs, tmp_path, replace(REAL, vectors="cf"))
    manifest = example.outputs["embed text"].manifest | {"stage": "embed_collaborative"}
    of_behaviour = StageOutput(example.outputs["embed text"].folder, manifest)
    output = made(example.outputs | {"embed text": of_behaviour}, tmp_path, replace(REAL, vectors="cf"))
    assert output.facts["of"] == "cf"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"last": -1}, "last = -1, expected 0 or more"),
        ({"sids": False, "mixtures": False}, "neither sids nor mixtures"),
        ({"vectors": "mood"}, "expected 'mean' or 'cf'"),
        ({"params": {"levels": [0]}}, "levels"),
    ],
)
def test_parameters_are_checked(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        replace(BOTH, **wrong).check_params()


def test_too_many_codes_are_refused_by_name(small: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^users, whose vectors .*asks for 64 codes, but there are only 12"):
        made(small.outputs, tmp_path, replace(BOTH, params={"levels": [64]}))


# --- mixtures


def test_mixtures_are_shares_of_train_events_over_flat_clusters(tmp_path: Path) -> None:
    run = run_chain(small_dump(tmp_path), tmp_path / "w", *FLAT)
    output = made(run.outputs, tmp_path / "users", UsersParams(sids=False, mixtures=True))
    assert "user_sids" not in output.manifest["rows"]
    sids = run.release.table("sids", ["item_index", "sid"]).to_pylist()
    assert {len(row["sid"]) for row in sids} == {1}  # exactly one cluster for every item
    cluster = {row["item_index"]: row["sid"][0] for row in sids}
    train = train_sets(run.outputs)  # the dump names no movie twice for a user
    for row in output.read("user_mixtures").to_pylist():
        counts = Counter(cluster[item] for item in train[row["user_index"]])
        expected = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        assert row["clusters"] == [number for number, _ in expected]
        assert row["weights"] == pytest.approx([n / counts.total() for _, n in expected])
        assert sum(row["weights"]) == pytest.approx(1, abs=1e-12)


def test_what_is_had_twice_counts_twice() -> None:
    table = user_mixtures(events_of((0, 1), (0, 1), (0, 3), (2, 0)), np.array([7, 8, 9, 5]))
    assert table.to_pylist() == [
        {"user_index": 0, "clusters": [8, 5], "weights": [2 / 3, 1 / 3]},
        {"user_index": 2, "clusters": [7], "weights": [1.0]},
    ]


# --- the promises


def broken(outputs: Mapping[str, StageOutput], made: StageOutput) -> set[str]:
    """Give the checks of users' tables that do not hold, as gates measures them."""
    tables = {"users": outputs["clean"], "interactions": outputs["split"], "sids": outputs["collisions"]}
    tables |= {"user_sids": made, "user_mixtures": made}
    checks = [*checks_of(USER_SIDS), *checks_of(USER_MIXTURES), *user_promises(made)]
    with connect() as connection:
        for name, output in tables.items():
            view(connection, name, output.parts(name))
        verdicts = judge_plainly(checks, measure(connection, checks))
    return {f"{one.check.table}.{one.check.name}" for one in verdicts if not one.passed}


def test_the_promises_hold(
    small: Run, example: Run, small_users: StageOutput, real_users: StageOutput
) -> None:
    assert broken(small.outputs, small_users) == set()
    assert broken(example.outputs, real_users) == set()


def changed(column: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    """Put a value into the first row of a column."""

    def spoil(table: pa.Table) -> pa.Table:
        place, kind = table.schema.get_field_index(column), table.schema.field(column).type
        return table.set_column(place, column, pa.array([value, *table[column].to_pylist()[1:]], kind))

    return spoil


SPOILT = [
    (USER_SIDS, lambda t: t.slice(1), "users_missing"),
    (USER_MIXTURES, lambda t: t.slice(1), "users_missing"),
    (USER_SIDS, changed("sid_key", "9"), "wrong_key"),
    (USER_SIDS, changed("sid", [7, 0]), "beyond_level"),
    (USER_SIDS, changed("sid", [0]), "uneven_length"),
    (USER_SIDS, changed("token_ids", [0, 0]), "wrong_tokens"),
    (USER_SIDS, changed("tokens", ["<a_0>", "<b_0>"]), "wrong_strings"),
    (USER_SIDS, changed("text", ""), "wrong_text"),
    (USER_SIDS, changed("user_id", "nobody"), "not_the_users"),
    (USER_SIDS, changed("user_index", 99), "without_train_event"),
    (USER_SIDS, changed("slot", 99), "slot_gaps"),
    (USER_MIXTURES, changed("weights", [0.5]), "wrong_sum"),
    (USER_MIXTURES, changed("weights", [1.5, -0.5]), "no_share"),
    (USER_MIXTURES, changed("clusters", [99, 0]), "unknown_cluster"),
    (USER_MIXTURES, changed("clusters", [0, 0]), "repeated"),
    (USER_MIXTURES, changed("weights", [0.9, 0.1]), "not_of_train"),
]


@pytest.mark.parametrize(("table", "spoil", "check"), SPOILT, ids=[f"{c[0].name}.{c[2]}" for c in SPOILT])
def test_a_broken_promise_is_found(
    small: Run,
    small_users: StageOutput,
    tmp_path: Path,
    table: Table,
    spoil: Callable[[pa.Table], pa.Table],
    check: str,
) -> None:
    spoilt = rewritten(small_users, table, spoil(small_users.read(table.name)), tmp_path / "users")
    assert f"{table.name}.{check}" in broken(small.outputs, spoilt)


def test_events_of_other_splits_are_found_in_mixtures(small: Run, tmp_path: Path) -> None:
    leaky = made(let_in(small.outputs, tmp_path / "split"), tmp_path / "w", BOTH)
    assert broken(small.outputs, leaky) == {"user_mixtures.not_of_train"}


# --- the vocabulary


def test_a_prefix_is_kept_and_older_files_have_none(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    Vocabulary((4, 4), prefix="u").save(path)
    assert Vocabulary.load(path) == Vocabulary((4, 4), prefix="u")
    Vocabulary((4, 4)).save(path)
    assert "prefix" not in path.read_text()
    assert Vocabulary.load(path).prefix == ""
    path.write_text(path.read_text().replace('"pad"', '"prefix": 3, "pad"'))
    with pytest.raises(DataError, match="prefix: expected text, got 3"):
        Vocabulary.load(path)


# --- in a release


def test_a_release_has_users_its_promises_hold_and_a_seed_makes_a_version(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    recipe.write_text(f"{recipe.read_text()}[users]\nlevels = [4, 4]\nmixtures = true\n")
    hashing = ("embed.model=hashing", "embed.dim=16")
    first = run_chain(recipe, tmp_path / "w", *hashing)
    assert first.release.user_vocabulary == Vocabulary((4, 4), prefix="u")
    assert {"user_sids", "user_mixtures"} < set(first.release.tables)
    assert first.release.metrics["users"]["users"] == 12
    assert recheck(first.release.folder).findings == []
    second = run_chain(recipe, tmp_path / "w", *hashing, "users.seed=1")
    assert [run.release.ref for run in (first, second)] == ["small@v1", "small@v2"]
    stages = [run.record["stages"] for run in (first, second) if run.record]
    assert stages[0]["users"]["key"] != stages[1]["users"]["key"]
    assert stages[0]["collisions"]["key"] == stages[1]["collisions"]["key"]


def test_an_append_numbers_new_users_by_the_codebooks_of_the_base(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    recipe.write_text(f"{recipe.read_text()}[users]\nlevels = [4, 4]\nmixtures = true\n")
    base = run_chain(recipe, tmp_path / "w", "embed.model=hashing", "embed.dim=16")
    appended = run_append(more_dump(tmp_path / "more"), tmp_path / "w")
    known = base.release.table("users")["user_id"].to_pylist()
    people = appended.release.table("user_sids").to_pylist()
    assert {row["user_id"] for row in people} - set(known) == {"13", "14"}
    assert appended.outputs["users"].facts["fit_scope"] == "none: the base's codebooks"
    book = "users/tokenizer/tokenizer.safetensors"
    assert len({(run.release.folder / book).read_bytes() for run in (base, appended)}) == 1
    assert recheck(appended.release.folder).findings == []


def test_a_release_without_users_says_so(small: Run) -> None:
    with pytest.raises(WarehouseError, match=r"small@v1: users have no SIDs; add \[users\] to the recipe"):
        _ = small.release.user_vocabulary
