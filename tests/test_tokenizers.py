"""One contract for every tokenizer, on vectors whose structure is known and on real ones."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from helpers import Run
from sklearn.base import clone

from sid_pipelines.arrays import read_vectors
from sid_schemas import DataError, RecipeError
from sid_tokenizers import TOKENIZERS, RQKMeans, Tokenizer, load, tokenizer_named
from sid_tokenizers.base import Vectors
from sid_tokenizers.kmeans import cluster_means, kmeans, nearest
from sid_tokenizers.metrics import (
    collision_metrics,
    duplicate_vectors,
    level_metrics,
    neighbour_overlap,
    reconstruction,
)

OTHER_VALUES = {"levels": [5, 3], "seed": 9, "n_init": 2, "max_iter": 7, "tol": 0.5}


def grid(centres: int = 4, offsets: int = 3, copies: int = 5) -> tuple[Vectors, np.ndarray]:
    """Far centres plus near offsets plus a little noise: level 1 must find the former, level 2 the latter."""
    draw = np.random.default_rng(0)
    coarse = draw.normal(size=(centres, 6)) * 100
    fine = draw.normal(size=(offsets, 6)) * 5
    truth = np.array([(c, o) for c in range(centres) for o in range(offsets) for _ in range(copies)])
    X = coarse[truth[:, 0]] + fine[truth[:, 1]] + draw.normal(size=(len(truth), 6)) * 0.01
    return X.astype(np.float32), truth


@pytest.fixture(scope="module")
def real(example: Run) -> Vectors:
    return read_vectors(example.outputs["embed"])


@pytest.fixture(params=sorted(TOKENIZERS))
def scheme(request: pytest.FixtureRequest) -> type[Tokenizer]:
    return TOKENIZERS[request.param]


def make(scheme: type[Tokenizer], levels: list[int]) -> Tokenizer:
    return scheme(levels=levels)  # type: ignore[call-arg]


def test_init_only_stores(scheme: type[Tokenizer]) -> None:
    given = {name: OTHER_VALUES[name] for name in inspect.signature(scheme).parameters}
    tokenizer = scheme(**given)
    assert tokenizer.get_params() == given
    assert not [name for name in vars(tokenizer) if name.endswith("_")]
    assert clone(tokenizer).get_params() == given
    assert tokenizer.set_params(seed=3).get_params()["seed"] == 3
    with pytest.raises(ValueError, match="no parameter 'sead'"):
        tokenizer.set_params(sead=3)


def test_codes_and_shapes(scheme: type[Tokenizer], real: Vectors) -> None:
    tokenizer = make(scheme, [32, 16, 8]).fit(real)
    codes = tokenizer.encode(real)
    assert codes.shape == (len(real), 3)
    assert codes.dtype == np.int32
    assert (codes >= 0).all()
    assert (codes.max(axis=0) < [32, 16, 8]).all()
    decoded = tokenizer.decode(codes)
    assert decoded.shape == real.shape
    assert decoded.dtype == np.float32


def test_known_structure_is_found(scheme: type[Tokenizer]) -> None:
    X, truth = grid()
    codes = make(scheme, [4, 3]).fit(X).encode(X)
    for level in (0, 1):
        known = map(tuple, truth[:, : level + 1].tolist())
        found = map(tuple, codes[:, : level + 1].tolist())
        pairs = set(zip(known, found, strict=True))
        assert len(pairs) == len({t for t, _ in pairs}) == len({c for _, c in pairs})


def test_more_levels_reconstruct_better(scheme: type[Tokenizer], real: Vectors) -> None:
    errors = []
    for levels in ([16], [16, 16], [16, 16, 16]):
        tokenizer = make(scheme, levels).fit(real)
        found = reconstruction(real, tokenizer.decode(tokenizer.encode(real)))
        assert found
        errors.append(found["relative_error"])
    assert errors[0] > errors[1] > errors[2]


def test_same_seed_same_codes_whatever_the_row_order(scheme: type[Tokenizer], real: Vectors) -> None:
    codes = make(scheme, [16, 16]).fit(real).encode(real)
    order = np.random.default_rng(1).permutation(len(real))
    shuffled = make(scheme, [16, 16]).fit(real[order]).encode(real[order])
    assert np.array_equal(shuffled, codes[order])
    other = make(scheme, [16, 16]).set_params(seed=1).fit(real).encode(real)
    assert not np.array_equal(other, codes)


def test_a_second_fit_starts_afresh(scheme: type[Tokenizer], real: Vectors) -> None:
    tokenizer = make(scheme, [8, 8]).fit(grid()[0]).fit(real)
    assert np.array_equal(tokenizer.encode(real), make(scheme, [8, 8]).fit(real).encode(real))


def test_save_and_load_keep_everything(scheme: type[Tokenizer], tmp_path: Path) -> None:
    X, _ = grid()
    given = {name: OTHER_VALUES[name] for name in inspect.signature(scheme).parameters}
    tokenizer = scheme(**given).fit(X)
    tokenizer.save(tmp_path / "t")
    again = load(tmp_path / "t")
    assert type(again) is scheme
    assert again.get_params() == given
    assert np.array_equal(again.encode(X), tokenizer.encode(X))
    assert np.array_equal(again.decode(again.encode(X)), tokenizer.decode(tokenizer.encode(X)))
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "tokenizer.json",
        "tokenizer.safetensors",
    ]


def test_distances_rank_the_own_code_first(scheme: type[Tokenizer], real: Vectors) -> None:
    tokenizer = make(scheme, [16, 8]).fit(real)
    codes = tokenizer.encode(real)
    for level, k in enumerate([16, 8]):
        distances = tokenizer.distances(real, codes[:, :level])
        assert distances.shape == (len(real), k)
        assert np.array_equal(distances.argmin(axis=1), codes[:, level])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: np.where(np.arange(len(X))[:, None] == 7, np.nan, X), "row 7: holds NaN or infinity"),
        (lambda X: np.where(np.arange(len(X))[:, None] == 7, np.inf, X), "row 7: holds NaN or infinity"),
        (lambda X: X[0], "expected a matrix"),
        (lambda X: X[:3], r"levels\[0\] asks for 4 codes, but there are only 3 items to fit on"),
        (lambda X: X[:0], "only 0 items"),
    ],
)
def test_bad_input_is_refused(scheme: type[Tokenizer], spoil: object, message: str) -> None:
    X, _ = grid()
    with pytest.raises(DataError, match=message):
        make(scheme, [4, 2]).fit(spoil(X))  # type: ignore[operator]


def test_misuse_is_refused(scheme: type[Tokenizer], tmp_path: Path) -> None:
    X, _ = grid()
    with pytest.raises(DataError, match="not fitted"):
        make(scheme, [4]).encode(X)
    fitted = make(scheme, [4, 2]).fit(X)
    with pytest.raises(DataError, match="expected 6 columns as in fit, got 5"):
        fitted.encode(X[:, :5])
    with pytest.raises(DataError, match="expected shape"):
        fitted.decode(np.zeros((2, 3), dtype=int))
    with pytest.raises(DataError, match="levels: expected 1 to 26 sizes"):
        make(scheme, []).fit(X)
    with pytest.raises(DataError, match="sample_weight"):
        fitted.fit(X, sample_weight=-np.ones(len(X)))
    fitted.save(tmp_path)
    config = tmp_path / "tokenizer.json"
    config.write_text(config.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(DataError, match="format 2"):
        load(tmp_path)
    with pytest.raises(RecipeError, match="there are: "):
        tokenizer_named("nope")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_taken(scheme: type[Tokenizer], dtype: type) -> None:
    X, _ = grid()
    X = X.astype(dtype)
    same = X.astype(np.float32)
    fitted = make(scheme, [4, 3]).fit(X)
    assert np.array_equal(fitted.encode(X), make(scheme, [4, 3]).fit(same).encode(same))


def test_fewer_distinct_rows_than_codes_leave_codes_unused(scheme: type[Tokenizer]) -> None:
    X = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    codes = make(scheme, [6, 2]).fit(X).encode(X)
    assert len({tuple(row) for row in codes.tolist()}) == 3


def test_weights_pull_the_centroids() -> None:
    X = np.array([[0.0], [1.0]], dtype=np.float32)
    fitted = RQKMeans(levels=[1], n_init=1).fit(X, sample_weight=[1.0, 3.0])
    assert fitted.codebooks_[0][0, 0] == pytest.approx(0.75)


def test_nearest_is_the_slow_one(real: Vectors) -> None:
    centroids = real[:37]
    codes, distances = nearest(real, centroids)
    slow = ((real[:, None] - centroids[None]) ** 2).sum(axis=2)
    assert np.array_equal(codes, slow.argmin(axis=1))
    assert np.allclose(distances, slow.min(axis=1), atol=1e-5)


def test_cluster_means_are_the_slow_ones(real: Vectors) -> None:
    codes, _ = nearest(real, real[:20])
    means, totals = cluster_means(real, codes, 21, None)
    for cluster in range(20):
        assert np.allclose(means[cluster], real[codes == cluster].mean(axis=0), atol=1e-6)
    assert totals[20] == 0


def test_kmeans_is_no_worse_than_scikit_learns(real: Vectors) -> None:
    from sklearn.cluster import KMeans

    ours = nearest(real, kmeans(real, 64, seed=0, n_init=4))[1].sum()
    theirs = KMeans(64, n_init=4, random_state=0).fit(real).inertia_
    assert ours <= theirs * 1.01


def test_no_cluster_stays_empty() -> None:
    X = np.concatenate([np.zeros((50, 2)), np.eye(2) * 9]).astype(np.float32) + np.random.default_rng(
        0
    ).normal(size=(52, 2)).astype(np.float32)
    codes, _ = nearest(X, kmeans(X, 20, seed=0, n_init=1))
    assert len(set(codes.tolist())) == 20


def test_collision_metrics_by_hand() -> None:
    codes = np.array([[0, 1], [0, 1], [0, 1], [2, 0], [3, 3]], dtype=np.int32)
    assert collision_metrics(codes) == {
        "items": 5,
        "distinct_sids": 3,
        "collision_rate": 0.4,
        "collided_items": 3,
        "uniquely_identified": 0.4,
        "max_group": 3,
    }


def test_level_metrics_by_hand() -> None:
    found = level_metrics(np.array([0, 0, 1, 1], dtype=np.int32), 4)
    assert (found["used"], found["dead"], found["min_count"], found["max_count"]) == (2, 2, 0, 2)
    assert found["entropy"] == pytest.approx(np.log(2))
    assert found["perplexity_share"] == pytest.approx(0.5)
    assert found["gini"] == pytest.approx(0.5)
    assert level_metrics(np.arange(4, dtype=np.int32), 4)["gini"] == pytest.approx(0.0)


def test_neighbour_overlap_by_hand() -> None:
    # Two tight groups of three; SIDs that follow them keep all neighbours, SIDs that cross them none.
    X = np.array([[1, 0.01 * i] for i in range(3)] + [[0.01 * i, 1] for i in range(3)], dtype=np.float32)
    along = np.array([[0, i] for i in range(3)] + [[1, i] for i in range(3)], dtype=np.int32)
    assert neighbour_overlap(X, along, top=2) == pytest.approx(1.0)
    same = np.zeros((6, 1), dtype=np.int32)
    assert neighbour_overlap(X, same, top=2) == pytest.approx(2 / 5)  # a random choice among five
    assert neighbour_overlap(X[:1], along[:1]) == 1.0


def test_duplicate_vectors_are_counted() -> None:
    assert duplicate_vectors(np.array([[1, 2], [1, 2], [1, 3], [1, 2]], dtype=np.float32)) == 2
