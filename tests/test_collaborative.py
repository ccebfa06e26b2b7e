"""Collaborative vectors: one contract for all models, the stage around them, and MovieLens 100K."""

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from helpers import ROOT, run_chain, small_dump, write_dump
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from sid_pipelines import embed_collaborative, missing, probes
from sid_pipelines.collaborative import MODELS, CollaborativeModel, Fitted, TrainEvents, model_named
from sid_pipelines.collaborative.als import weighted
from sid_pipelines.collaborative.base import curve
from sid_pipelines.collaborative.item2vec import keep_chance, skip_grams
from sid_pipelines.collaborative.lightgcn_training import mean_of_layers, normalized_graph
from sid_pipelines.collaborative.ppmi_svd import ppmi
from sid_pipelines.collaborative.sasrec import SASRec
from sid_pipelines.collaborative.sasrec_training import Network, Pieces
from sid_pipelines.collaborative.torch_tools import Draws, unseen
from sid_pipelines.embed_collaborative import CollaborativeEmbedParams
from sid_pipelines.probes import Lists
from sid_pipelines.stage import Outcome, Resources, Work
from sid_pipelines.vectors import StoredVectors, read_vectors
from sid_schemas import DataError, MissingExtraError, RecipeError
from sid_schemas.tables import INTERACTIONS, ITEMS_CLEAN, SPLIT_NAMES
from sid_warehouse.stages import StageDraft, StageOutput, StageStore

REAL = ROOT.parent / "shared" / "data" / "ml-100k"
GROUPS, EACH, USERS = 4, 10, 80
QUICK: dict[str, dict[str, Any]] = {
    "als": {"dim": 8, "regularization": 1.0},
    "bpr": {"dim": 8, "iterations": 60},
    "item2vec": {"dim": 8, "epochs": 20, "batch_size": 256},
    "ppmi-svd": {"dim": 8},
    "lightgcn": {"dim": 8, "epochs": 40, "batch_size": 256},
    "sasrec": {"dim": 8, "epochs": 30, "max_length": 10, "patience": 0, "learning_rate": 0.01},
}


def made(name: str, **options: Any) -> CollaborativeModel:
    return model_named(name)(**(QUICK[name] | options))


def silent(done: int, total: int) -> None: ...


def board(cold: int = 0) -> TrainEvents:
    """Users of a group have 6 of its 10 items each. cold: items and users without events, put between."""
    draw = np.random.default_rng(1)
    users, items = [], []
    for user in range(USERS):
        users += [user] * 6
        items += (draw.permutation(EACH)[:6] + user % GROUPS * EACH).tolist()
    step = cold + 1
    return TrainEvents(
        np.array(users, np.int32) * step, np.array(items, np.int32) * step, USERS * step, GROUPS * EACH * step
    )


@pytest.fixture(params=sorted(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Fitted]:
    return {name: made(name).fit(board(), silent) for name in MODELS}


# --- the contract of every model


def test_vectors_find_the_groups_that_users_have_made(name: str, fitted: dict[str, Fitted]) -> None:
    found = fitted[name]
    assert set(found.vectors) == set(model_named(name).tables)
    for vectors in found.vectors.values():
        assert vectors.shape == (GROUPS * EACH, 8)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
    assert found.present.all()
    labels = np.eye(GROUPS, dtype=bool)[np.arange(GROUPS * EACH) // EACH]
    share, chance = probes.label_agreement(found.vectors[""], labels, top=5)
    assert share > 0.95
    assert chance < 0.5


def test_the_same_call_gives_the_same_bytes_whatever_else_has_been_drawn(
    name: str, fitted: dict[str, Fitted]
) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.random.get_rng_state()
    with threadpool_limits(1):
        again = made(name).fit(board(), silent)
    for suffix, vectors in fitted[name].vectors.items():
        assert vectors.tobytes() == again.vectors[suffix].tobytes()
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_seed_gives_other_vectors(name: str, fitted: dict[str, Fitted]) -> None:
    other = made(name, seed=1).fit(board(), silent).vectors[""]
    assert other.tobytes() != fitted[name].vectors[""].tobytes()


def test_items_and_users_without_events_have_no_vector_and_no_say(
    name: str, fitted: dict[str, Fitted]
) -> None:
    found = made(name).fit(board(cold=1), silent)
    assert found.present.tolist() == [True, False] * (GROUPS * EACH)
    for suffix, vectors in found.vectors.items():
        assert vectors[::2].tobytes() == fitted[name].vectors[suffix].tobytes()
        assert not vectors[1::2].any()


def test_progress_is_told_by_epoch_until_the_end(name: str) -> None:
    told: list[tuple[int, int]] = []
    made(name).fit(board(), lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1] > 0


@pytest.mark.parametrize("dim", [1, 64])
def test_dim_may_be_one_or_more_than_there_are_items(name: str, dim: int) -> None:
    few = TrainEvents(np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 1, 2], np.int32), 2, 3)
    found = made(name, dim=dim).fit(few, silent)
    assert found.vectors[""].shape == (3, dim)
    assert np.isfinite(found.vectors[""]).all()
    one = TrainEvents(np.zeros(1, np.int32), np.zeros(1, np.int32), 1, 1)
    assert np.isfinite(made(name, dim=dim).fit(one, silent).vectors[""]).all()


def test_options_out_of_range_are_named(name: str) -> None:
    bad = {"dim": 0, "seed": -1, "epochs": 0, "iterations": 0, "learning_rate": 0.0, "regularization": -1.0}
    bad |= {
        "window": -1,
        "alpha": 0.0,
        "batch_size": 0,
        "layers": -1,
        "dropout": 1.0,
        "shift": 0.0,
        "heads": 3,
    }
    bad |= {"decay": -1.0, "learning_rate": float("nan")}
    options = set(model_named(name).__dataclass_fields__) & set(bad)
    assert len(options) > 3
    for option in options:
        with pytest.raises(DataError, match=f"{name}: {option} = "):
            made(name, **{option: bad[option]}).check_params()


def test_no_event_is_refused(name: str) -> None:
    none = TrainEvents(np.empty(0, np.int32), np.empty(0, np.int32), 3, 3)
    with pytest.raises(DataError, match="no train event"):
        made(name).fit(none, silent)


def test_a_package_that_is_not_there_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    needs = model_named(name).needs
    if needs is None:
        assert made(name).fit(board(), silent).present.all()
        return
    with pytest.raises(MissingExtraError, match=rf"{needs[0]}.*collaborative"):
        made(name).fit(board(), silent)


def test_every_model_says_whose_it_is(name: str) -> None:
    assert len(model_named(name).source) > 20
    with pytest.raises(RecipeError, match=r"no collaborative model is called 'gru4rec'.*als"):
        model_named("gru4rec")


def test_a_fit_that_diverges_is_refused() -> None:
    with pytest.raises(DataError, match=r"bpr: the fit diverged.*lower learning_rate"):
        made("bpr", learning_rate=1e30).fit(board(), silent)


def test_softmax_over_more_items_than_fit_is_refused() -> None:
    many = replace(board(), n_items=10**6)
    dense = SimpleNamespace(n_items=10**6)
    with pytest.raises(DataError, match=r"sasrec: loss = 'ce' holds 24 GiB.*1,000,000 items.*batch_size"):
        SASRec()._fit(dense, silent)  # type: ignore[arg-type]
    assert made("sasrec").fit(many, silent).vectors[""].shape == (10**6, 8)  # only items with events count


def test_the_order_of_the_dumps_rows_has_no_say(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path / "1")
    ratings = (tmp_path / "1" / "dump" / "ratings.dat").read_text().splitlines()
    movies = (tmp_path / "1" / "dump" / "movies.dat").read_text().splitlines()
    turned = write_dump(tmp_path / "2", ratings[::-1], movies[::-1])
    digests = []
    for one in (recipe, turned):
        done = run_chain(one, one.parent / "w", until="split").outputs
        rows = done["clean"].manifest["rows"]
        events = TrainEvents.of(done["split"].parts("interactions"), rows["users"], rows["items_clean"])
        digests.append((events.digest(), made("sasrec").fit(events, silent).vectors[""].tobytes()))
    assert len(events) > 20
    assert digests[0] == digests[1]


# --- what single models do, against slow and obvious twins


def test_weights_are_counts_or_ones_or_less_where_much_is_had() -> None:
    users = np.array([0, 0, 0, 1, 1, 2, 3, 3], np.int32)
    items = np.array([0, 1, 2, 0, 0, 0, 2, 3], np.int32)
    events = TrainEvents(users, items, 4, 20)
    assert weighted(events.matrix(), "count").toarray()[1, :2].tolist() == [2, 0]
    assert weighted(events.matrix(), "binary").toarray()[1, :2].tolist() == [1, 0]
    bm25 = weighted(events.matrix(), "bm25").toarray()
    assert ((bm25 > 0) == (events.matrix().toarray() > 0)).all()
    assert bm25[0, 1] > bm25[0, 2] > bm25[0, 0]  # had by one, by two, by three
    assert bm25[3, 2] > bm25[0, 2]  # of a user with two items, and with three


def test_skip_grams_are_all_pairs_within_the_window() -> None:
    users = np.array([0, 0, 0, 0, 1, 1], np.int32)
    items = np.array([5, 6, 5, 7, 8, 9], np.int32)
    expected = sorted(
        (int(items[a]), int(items[b]))
        for a in range(6)
        for b in range(6)
        if users[a] == users[b] and 0 < abs(a - b) <= 2 and items[a] != items[b]
    )
    assert sorted(map(tuple, skip_grams(users, items, 2).tolist())) == expected


def test_frequent_items_are_kept_less_often() -> None:
    chance = keep_chance(np.array([1, 10, 1000]), 0.5)
    assert chance.tolist() == [1.0, 1.0, pytest.approx(np.sqrt(0.1685) + 0.1685)]
    assert keep_chance(np.array([7, 7, 7]), 1.0).tolist() == [1.0] * 3  # whatever the number of items
    assert keep_chance(np.array([1, 1000]), 0.0).tolist() == [1.0, 1.0]


def test_ppmi_is_the_formula() -> None:
    from scipy.sparse import csr_matrix

    counts = np.array([[0, 8, 1], [8, 0, 2], [1, 2, 0]], dtype=np.float64)
    context = counts.sum(axis=0) ** 0.75
    expected = counts / counts.sum(axis=1)[:, None] / (context / context.sum())[None]
    expected = np.maximum(np.log(np.maximum(expected, 1e-300)) - np.log(1.5), 0)
    assert ppmi(csr_matrix(counts), 1.5, 0.75).toarray() == pytest.approx(expected)


def test_propagation_is_the_mean_of_powers_of_the_normalized_graph() -> None:
    counts = board().matrix()
    n = sum(counts.shape)
    whole = np.zeros((n, n))
    whole[: counts.shape[0], counts.shape[0] :] = counts.toarray() > 0
    whole += whole.T
    scale = 1 / np.sqrt(whole.sum(axis=1))
    expected = scale[:, None] * whole * scale[None]
    graph = normalized_graph(counts)
    assert graph.toarray() == pytest.approx(expected)
    factors = np.random.default_rng(0).normal(size=(n, 3))
    found = mean_of_layers(torch.from_numpy(factors), torch.from_numpy(expected), 2).numpy()
    assert found == pytest.approx((factors + expected @ factors + expected @ expected @ factors) / 3)


@given(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=5), st.integers(1, 5))
def test_pieces_make_every_event_but_the_first_a_target_once(lists: list[list[int]], length: int) -> None:
    pieces = Pieces.of(Lists.of(lists), length)
    found: dict[int, list[list[tuple[int, int]]]] = {}
    for user, inputs, targets in zip(pieces.users, pieces.inputs, pieces.targets, strict=True):
        own = [(int(a), int(b)) for a, b in zip(inputs, targets, strict=True) if b >= 0]
        assert (targets[: len(own)] >= 0).all()  # filled up at the right
        found.setdefault(int(user), []).insert(0, own)
    for user, items in enumerate(lists):
        joined = [pair for own in found.get(user, []) for pair in own]
        assert joined == list(pairwise(items))


def test_a_prediction_does_not_see_what_comes_later() -> None:
    network = Network(SASRec(dim=8, heads=2, max_length=6), 10, Draws.seeded(0)).eval()
    one, other = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 3, 7, 8, 9]])
    states, others = network(one).detach(), network(other).detach()
    assert torch.equal(states[:, :3], others[:, :3])
    assert not torch.equal(states[:, 3:], others[:, 3:])


def test_training_ends_when_held_back_train_events_get_no_better() -> None:
    found = made("sasrec", patience=2, epochs=200).fit(board(), silent)
    assert found.facts["epochs"] == found.facts["best_epoch"] + 2 < 200
    assert found.facts["loss"][-1] < found.facts["loss"][0]


def test_the_loss_of_the_paper_works_too() -> None:
    bce = made("sasrec", loss="bce", epochs=60).fit(board(), silent)
    labels = np.eye(GROUPS, dtype=bool)[np.arange(GROUPS * EACH) // EACH]
    assert probes.label_agreement(bce.vectors[""], labels, top=5)[0] > 0.8


def test_negatives_are_not_what_the_user_has() -> None:
    pairs = np.sort(np.array([0 * 10 + item for item in range(9)] + [1 * 10 + 3]))
    users = np.repeat([0, 1], 200)
    drawn = unseen(Draws.seeded(0), users, 10, pairs)
    assert (drawn[:200] == 9).mean() > 0.4  # 5 more draws of one item in ten
    assert not (drawn[200:] == 3).any()
    assert set(drawn[200:].tolist()) == set(range(10)) - {3}


def test_curves_are_short() -> None:
    assert len(curve([float(n) for n in range(1000)])) == 20
    assert curve([]) == []


# --- probes and the rules for missing vectors


def slow_recall(vectors: npt.NDArray[Any], histories: Any, targets: Any, top: int, last: int) -> float:
    unit = np.array([v / np.linalg.norm(v) if v.any() else v for v in vectors.astype(np.float64)])
    hits = total = 0
    for history, wanted in zip(histories, targets, strict=True):
        query = sum((unit[i] for i in history[-last:]), np.zeros(unit.shape[1]))
        scores = {i: round(float(unit[i] @ query), 5) for i in range(len(unit)) if unit[i].any()}
        ranked = sorted((i for i in scores if i not in history), key=lambda i: (-scores[i], i))
        hits += sum(target in ranked[:top] for target in wanted)
        total += len(wanted)
    return hits / total


@given(st.integers(0, 1000), st.integers(1, 4))
def test_recall_is_the_obvious_one(seed: int, last: int) -> None:
    draw = np.random.default_rng(seed)
    vectors = draw.integers(-2, 3, size=(12, 3)).astype(np.float32) * np.float32([1, 2, 3])
    histories = [draw.integers(0, 12, size=draw.integers(1, 5)).tolist() for _ in range(4)]
    targets = [draw.integers(0, 12, size=1).tolist() for _ in range(4)]
    vectors += draw.normal(size=vectors.shape).astype(np.float32)
    vectors[3] = 0
    found = probes.recall_at(vectors, Lists.of(histories), Lists.of(targets), top=3, last=last)
    assert found == pytest.approx(slow_recall(vectors, histories, targets, 3, last))


def test_probes_settle_ties_by_the_lower_item() -> None:
    same = np.ones((5, 2), dtype=np.float32)
    histories = Lists.of([[4]])
    recalls = [probes.recall_at(same, histories, Lists.of([[item]]), top=2) for item in range(5)]
    assert recalls == [1.0, 1.0, 0.0, 0.0, 0.0]
    popular = [
        probes.popularity_recall_at([1, 1, 1, 1, 9], histories, Lists.of([[n]]), top=2) for n in range(5)
    ]
    assert popular == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert probes.nearest(same, top=2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    assert probes.cooccurrence_recall_at(same, [[4, 0], [4, 3]], top=2) == 0.5
    assert np.isnan(probes.recall_at(same, histories, Lists.of([[]])))


@dataclass
class Content:
    """Content vectors as StoredVectors gives them."""

    matrix: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]

    @property
    def dim(self) -> int:
        return self.matrix.shape[1]

    def rows(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.matrix[wanted]


def test_a_map_from_content_is_a_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    draw = np.random.default_rng(0)
    X = draw.normal(size=(300, 6)).astype(np.float32) + 3
    Y = (X @ draw.normal(size=(6, 4)) + draw.normal(size=(300, 4)) + 5).astype(np.float32)
    content = Content(X, np.arange(300) != 7)
    there = np.flatnonzero(np.arange(300) % 4 > 0)

    def blocks(cut: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        for rows in (there[:cut], there[cut:]):
            yield rows, Y[rows]

    rule = missing.filler(lambda: blocks(100), "map", content, dim=4)  # type: ignore[arg-type]
    both = there[there != 7]
    centred = X[both] - X[both].mean(axis=0, dtype=np.float64)
    strength = rule.facts["map"]["strength"] * np.square(centred).sum() / 6
    cold = np.setdiff1d(np.arange(300), there)
    expected = Ridge(strength).fit(X[both], Y[both]).predict(X[cold])
    assert rule(cold) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert rule.facts["map"]["items"] == len(both) == 224
    assert 0.7 < rule.facts["map"]["r2_held_out"] < 1
    assert rule(np.array([7]))[0] == pytest.approx(Y[there].mean(axis=0), rel=1e-4)
    other = missing.filler(lambda: blocks(100), "mean", dim=4)
    assert other(np.array([0, 7]))[0] == pytest.approx(Y[there].mean(axis=0), rel=1e-4)
    assert not missing.filler(lambda: blocks(1), "mask", dim=4)(np.array([0, 7])).any()


def test_a_map_of_noise_says_that_it_is_no_better_than_the_mean() -> None:
    draw = np.random.default_rng(0)
    X, Y = (draw.normal(size=(400, 5)).astype(np.float32) for _ in range(2))
    rows = np.arange(400)
    rule = missing.filler(lambda: iter([(rows, Y)]), "map", Content(X, rows >= 0), dim=5)  # type: ignore[arg-type]
    assert abs(rule.facts["map"]["r2_held_out"]) < 0.1
    with pytest.raises(DataError, match="3 items have this vector and the one to map from"):
        missing.filler(
            lambda: iter([(rows, Y)]),
            "map",
            Content(X, rows < 3),
            dim=5,  # type: ignore[arg-type]
        )
    with pytest.raises(DataError, match="map_from"):
        missing.filler(lambda: iter([(rows, Y)]), "map", dim=5)


# --- the stage


@dataclass
class Made:
    """Outputs of clean and split of a few events, and the stage run on them."""

    folder: Path
    events: list[tuple[int, int, str]]  # user, item, split; in the declared order
    n_items: int

    def run(self, params: CollaborativeEmbedParams, **inputs: StageOutput) -> StageOutput:
        def written(name: str, manifest: dict[str, Any], rows: Any) -> StageOutput:
            return self._output(name, lambda draft: (rows(draft), Outcome({}, ""))[1], manifest)

        n_users = max(user for user, _, _ in self.events) + 1
        columns = {"item_index": pa.array(range(self.n_items), pa.int32())}
        columns["item_id"] = pa.array([f"i{n}" for n in range(self.n_items)])
        for column in ITEMS_CLEAN.columns[2:]:
            empty: Any = [] if pa.types.is_list(column.type) else "x" if not column.nullable else None
            columns[column.name] = pa.array([empty] * self.n_items, column.type)
        clean = written("clean", {"rows": {}}, lambda draft: draft.write(ITEMS_CLEAN, pa.table(columns)))
        clean.manifest["rows"]["users"] = n_users
        split = written("split", {}, lambda draft: draft.write(INTERACTIONS, self._interactions()))
        work_inputs = {"clean": clean, "split": split, **inputs}

        def run(draft: StageDraft) -> Outcome:
            return embed_collaborative.STAGE.run(Work(params, work_inputs, draft, Resources(), silent))

        return self._output("embed_collaborative", run, {})

    def _interactions(self) -> pa.Table:
        columns: dict[str, Any] = {
            "user_index": pa.array([user for user, _, _ in self.events], pa.int32()),
            "item_index": pa.array([item for _, item, _ in self.events], pa.int32()),
            "split": pa.array([split for _, _, split in self.events]).dictionary_encode(),
        }
        for column in INTERACTIONS.columns:
            if column.name not in columns:
                value: Any = "view" if column.name == "event_type" else 1
                if pa.types.is_string(column.type) and column.name != "event_type":
                    value = "x"
                filled = None if column.nullable else value
                columns[column.name] = pa.array([filled] * len(self.events), column.type)
        return pa.table({name: columns[name] for name in INTERACTIONS.names})

    def _output(self, stage: str, run: Any, manifest: dict[str, Any]) -> StageOutput:
        number = len(list(self.folder.glob("*")))
        folder = self.folder / f"{stage}-{number}"
        folder.mkdir(parents=True)
        draft = StageDraft(StageStore(self.folder, "made"), stage, "k", {}, folder, {}, 0.0)
        done = run(draft)
        return StageOutput(
            folder, manifest | {"facts": done.facts, "rows": dict(draft.rows), "summary": done.summary}
        )


def events_with_held_out(held: list[tuple[int, str]]) -> list[tuple[int, int, str]]:
    """The board's users, the first of whom have further events."""
    events = board()
    rows = [(int(user), int(item), "train") for user, item in zip(events.users, events.items, strict=True)]
    rows += [(user, item, split) for user, (item, split) in enumerate(held)]
    return sorted(rows, key=lambda row: row[0])


ALS8 = CollaborativeEmbedParams("cf", "als", {"dim": 8, "regularization": 1.0})


@pytest.mark.parametrize("model", ["als", "item2vec", "sasrec"])
def test_only_train_events_shape_anything(model: str, tmp_path: Path) -> None:
    params = CollaborativeEmbedParams("cf", model, QUICK[model] | ({"epochs": 2} if model != "als" else {}))
    one = Made(tmp_path / "1", events_with_held_out([(0, "valid"), (41, "test"), (3, "context")]), 42)
    other = Made(tmp_path / "2", events_with_held_out([(39, "test"), (38, "context"), (40, "valid")]), 42)
    outputs = [one.run(params), other.run(params)]
    vectors = [read_vectors(output) for output in outputs]
    assert vectors[0].tobytes() == vectors[1].tobytes()
    assert outputs[0].facts == outputs[1].facts
    assert set(SPLIT_NAMES) - {"train"} == {"valid", "test", "context"}


def test_facts_say_what_was_fitted_on_what(tmp_path: Path) -> None:
    output = Made(tmp_path, events_with_held_out([(41, "valid")]), 42).run(ALS8)
    facts, events = output.facts, board()
    digest = hashlib.sha256(events.users.astype("<i4").tobytes() + events.items.astype("<i4").tobytes())
    assert facts["fit_sha256"] == digest.hexdigest()
    wanted = {
        "name": "embeddings_cf", "dim": 8, "items": 42, "present": 40, "missing": 2, "model": "als",
        "fit_scope": "train interactions", "events": 480, "users": 80, "items_fitted": 40, "seed": 0,
        "coverage": 0.952381, "missing_rule": "mask", "params": ALS8.options,
    }  # fmt: skip
    assert {name: facts[name] for name in wanted} == wanted
    assert (
        output.manifest["summary"]
        == "als: 40 vectors of 8 numbers from 480 train events; 2 items without one: mask"
    )
    stored = StoredVectors.of(output)
    assert stored.present.tolist() == [True] * 40 + [False] * 2
    assert not stored.rows(np.array([40, 41])).any()


def test_cold_items_get_what_the_rule_says(tmp_path: Path) -> None:
    dump = Made(tmp_path, events_with_held_out([]), 41)
    with pytest.raises(DataError, match="1 item without enough train events, as item 'i40'"):
        dump.run(replace(ALS8, missing="refuse"))
    mean = read_vectors(dump.run(replace(ALS8, missing="mean")))
    assert mean[40] == pytest.approx(mean[:40].mean(axis=0), rel=1e-4, abs=1e-6)
    # Content that is a turned copy of the vectors: the map gives the cold item what its content says.
    plain = dump.run(ALS8)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    content = read_vectors(plain) @ turn.astype(np.float32)
    content[40] = content[5]
    stored = SimpleNamespace(rows=lambda rows: content[rows], present=np.ones(41, bool), dim=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredVectors, "of", lambda output: stored)
        output = dump.run(replace(ALS8, missing="map", map_from="text"), content=plain)
    mapped = read_vectors(output)
    assert mapped[40] == pytest.approx(mapped[5], rel=0.05, abs=0.02 * float(np.abs(mapped).max()))
    assert output.facts["map"]["r2_held_out"] > 0.99
    assert not StoredVectors.of(output).present[40]


def test_item2vec_publishes_vectors_for_both_roles(tmp_path: Path) -> None:
    params = CollaborativeEmbedParams("iv", "item2vec", QUICK["item2vec"], dtype="float16")
    output = Made(tmp_path, events_with_held_out([]), 41).run(params)
    tables = {name for name in output.manifest["rows"] if name.startswith("embeddings_")}
    assert tables == {"embeddings_iv", "embeddings_iv_out"}
    assert output.facts["name"] == "embeddings_iv"
    [further] = output.facts["further"]
    assert (further["name"], further["present"], further["dtype"]) == ("embeddings_iv_out", 40, "float16")
    inner, outer = (output.read(name)["vector"].to_pylist() for name in sorted(tables))
    assert inner != outer
    assert embed_collaborative.needs_of(params) == ("torch", "collaborative")


# --- MovieLens 100K


@dataclass(frozen=True)
class MovieLens:
    """Train events of a leave-one-out split, and the two held-out items of each user."""

    events: TrainEvents
    held_out: Lists


@pytest.fixture(scope="module")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> MovieLens:
    folder = tmp_path_factory.mktemp("ml-100k")
    recipe = folder / "recipe.toml"
    recipe.write_text(f'dataset = "ml"\n[source]\nkind = "movielens"\npath = "{REAL}"\n')
    done = run_chain(recipe, folder / "w", until="split").outputs
    rows = done["clean"].manifest["rows"]
    parts = done["split"].parts("interactions")
    events = TrainEvents.of(parts, rows["users"], rows["items_clean"])
    table = done["split"].read("interactions", ["user_index", "item_index", "split"])
    held = np.isin(table["split"].to_numpy(zero_copy_only=False), ["valid", "test"])
    users, items = (table[name].to_numpy()[held] for name in ("user_index", "item_index"))
    return MovieLens(events, Lists.by_user(users, items, rows["users"]))


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real MovieLens 100K is not at {REAL}")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("als", {}),
        ("bpr", {}),
        ("item2vec", {"epochs": 3}),
        ("ppmi-svd", {}),
        pytest.param("lightgcn", {"epochs": 25}, marks=pytest.mark.proof),
        pytest.param("sasrec", {"epochs": 4, "patience": 0}, marks=pytest.mark.proof),
    ],
)
def test_every_model_beats_popularity_on_movielens(
    name: str, options: dict[str, Any], movielens: MovieLens
) -> None:
    events, held_out = movielens.events, movielens.held_out
    vectors = model_named(name)(dim=32, **options).fit(events, silent).vectors[""]
    histories = events.sequences()
    popular = probes.popularity_recall_at(events.popularity, histories, held_out)
    assert 0.1 < popular < 0.13
    found = probes.recall_at(vectors, histories, held_out, last=3)
    assert found > 1.25 * popular
    # Co-consumption of events that nothing was fitted on, against shuffled vectors.
    pairs = probes.pairs_of(held_out)
    shuffled = vectors[np.random.default_rng(0).permutation(len(vectors))]
    chance = probes.cooccurrence_recall_at(shuffled, pairs)
    assert chance < 0.03
    assert probes.cooccurrence_recall_at(vectors, pairs) > 4 * chance
