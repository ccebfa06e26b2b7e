"""Balanced residual k-means: even counts, cheapest assignments, and codes that come back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sid_schemas import DataError
from sid_tokenizers import RQKMeans
from sid_tokenizers.balanced import (
    METHODS,
    balanced_kmeans,
    claim,
    onerec,
    sinkhorn_prices,
    tune_prices,
)
from sid_tokenizers.base import Vectors, content_hashes
from sid_tokenizers.clusters import nearest, squared_distances
from sid_tokenizers.kmeans import kmeans
from sid_tokenizers.rq_kmeans_balanced import RQKMeansBalanced
from sid_tokenizers.transport import cheapest_balanced


def skewed(n: int = 2003, dim: int = 16, groups: int = 60) -> Vectors:
    """Groups of very unequal size and width: plain k-means gives codes of very unequal counts."""
    draw = np.random.default_rng(0)
    share = 1 / np.arange(1, groups + 1) ** 1.2
    group = draw.choice(groups, n, p=share / share.sum())
    width = draw.lognormal(-0.5, 0.8, groups)
    X = draw.normal(size=(groups, dim))[group] + draw.normal(size=(n, dim)) * width[group][:, None]
    return X.astype(np.float32)


def imbalance(codes: np.ndarray, k: int) -> int:
    """Give how many rows lie beyond counts of n // k or one more."""
    counts = np.bincount(codes, minlength=k)
    floor = len(codes) // k
    return int(
        np.maximum(counts - (floor + (len(codes) % k > 0)), 0).sum() + np.maximum(floor - counts, 0).sum()
    )


def error(X: Vectors, centroids: Vectors, codes: np.ndarray) -> float:
    return float(((X - centroids[codes]).astype(np.float64) ** 2).sum())


def fitted(X: Vectors, method: str, k: int = 32) -> tuple[Vectors, np.ndarray]:
    return balanced_kmeans(X, k, method=method, seed=0, n_init=1, max_iter=20, tol=1e-3)


def slow_cheapest(costs: np.ndarray) -> float:
    """Give the least cost of balanced codes: floor(n / k) slots per code that must fill, and one that may."""
    costs = costs.astype(np.float64)
    n, k = costs.shape
    floor, extra = divmod(n, k)
    bonus = 2 * np.abs(costs).sum() + 1
    slots = np.concatenate(
        [np.repeat(costs - bonus, floor, axis=1), costs if extra else costs[:, :0]], axis=1
    )
    rows, columns = linear_sum_assignment(slots)
    return float(slots[rows, columns].sum() + bonus * floor * k)


def slow_onerec(X: Vectors, k: int, seed: int, max_iter: int) -> list[int]:
    """OneRec's Algorithm 1, line by line."""
    centroids = X[np.sort(np.random.default_rng(seed).choice(len(X), k, replace=False))].copy()
    codes: list[int] = []
    for _ in range(max_iter):
        unassigned, new = list(range(len(X))), [-1] * len(X)
        for code in range(k):
            size = len(X) // k + (1 if code < len(X) % k else 0)
            unassigned.sort(key=lambda row: (float(((X[row] - centroids[code]) ** 2).sum()), row))
            taken, unassigned = unassigned[:size], unassigned[size:]
            for row in taken:
                new[row] = code
            centroids[code] = X[taken].mean(axis=0)
        if new == codes:
            break
        codes = new
    return codes


@pytest.mark.parametrize("method", METHODS)
def test_every_level_is_even_on_real_vectors(real: Vectors, method: str) -> None:
    levels = [32, 24, 7]
    codes = RQKMeansBalanced(levels=levels, method=method, max_iter=5).fit(real).encode(real)
    distinct = np.unique(real, axis=0, return_index=True)[1]
    repeated = len(real) - len(distinct)
    assert [imbalance(codes[:, level], k) <= 2 * repeated for level, k in enumerate(levels)] == [True] * 3
    plain = RQKMeans(levels=levels).fit(real).encode(real)
    assert min(imbalance(plain[:, level], k) for level, k in enumerate(levels)) > len(real) / 50


@pytest.mark.parametrize("method", METHODS)
def test_every_level_is_even_on_skewed_vectors(method: str) -> None:
    X = skewed()
    codes = RQKMeansBalanced(levels=[32, 10], method=method, max_iter=5).fit(X).encode(X)
    assert imbalance(codes[:, 0], 32) == imbalance(codes[:, 1], 10) == 0
    forgetful = RQKMeansBalanced(levels=[32, 10], method=method, max_iter=5, remember=False).fit(X)
    assert imbalance(forgetful.encode(X)[:, 0], 32) > 0
    assert imbalance(nearest(X, kmeans(X, 32, seed=0))[0], 32) > len(X) / 10


@settings(max_examples=150)
@given(data=st.data(), n=st.integers(1, 24), spread=st.sampled_from([1, 3, 1000]))
def test_exact_is_the_cheapest(data: st.DataObject, n: int, spread: int) -> None:
    k = data.draw(st.one_of(st.integers(1, n), st.just(n)))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    costs = draw.integers(0, spread + 1, size=(n, k)).astype(np.float32)
    prices = (draw.normal(size=k) * spread * data.draw(st.sampled_from([0, 1, 1e6]))).astype(np.float32)
    codes = cheapest_balanced(costs.copy(), prices)
    assert imbalance(codes, k) == 0
    found = float(costs[np.arange(n), codes].sum())
    assert found == pytest.approx(slow_cheapest(costs), abs=n * spread * 1e-6)


@pytest.mark.parametrize("n", [640, 653])
def test_exact_is_the_cheapest_from_tuned_prices(n: int) -> None:
    X = skewed(n)
    centroids = kmeans(X, 32, seed=0, n_init=1)
    costs = squared_distances(X, centroids)
    codes = cheapest_balanced(costs.copy(), tune_prices(X, centroids, None, enough=0.02))
    assert error(X, centroids, codes) == pytest.approx(slow_cheapest(costs), rel=1e-6)


def test_better_methods_cost_less() -> None:
    X = skewed()
    centroids = kmeans(X, 32, seed=0, n_init=1)
    prices = tune_prices(X, centroids, None, enough=0.02)
    one_turn = [
        error(X, centroids, nearest(X, centroids)[0]),
        error(X, centroids, cheapest_balanced(squared_distances(X, centroids), prices)),
        error(X, centroids, claim(X, centroids, prices)),
        error(X, centroids, claim(X, centroids, np.zeros(32, dtype=np.float32))),
    ]
    assert one_turn == sorted(one_turn)
    assert one_turn[2] < one_turn[1] * 1.02
    assert one_turn[3] > one_turn[1] * 1.05
    whole = {method: error(X, *fitted(X, method)) for method in METHODS}
    assert whole["auto"] == whole["exact"]
    assert whole["exact"] < whole["greedy"] * 1.01
    assert whole["exact"] < whole["sinkhorn"]
    assert whole["greedy"] < whole["sinkhorn"] * 1.01
    assert whole["exact"] * 1.05 < whole["onerec"]


def test_tuned_prices_make_demand_even() -> None:
    X = skewed(6000)
    centroids = kmeans(X, 32, seed=0, n_init=1)
    free, _ = nearest(X, centroids)
    prices = tune_prices(X, centroids, None, enough=0.005)
    tuned = (squared_distances(X, centroids) + prices).argmin(axis=1)
    assert imbalance(free, 32) > len(X) / 4
    assert imbalance(tuned, 32) < len(X) / 30  # what is left, transport.py settles
    far_off = tune_prices(X, centroids, prices * -1000, enough=0.005)
    assert np.array_equal(far_off, prices)


def test_sinkhorn_prices_make_the_plan_even() -> None:
    X = skewed()
    centroids = kmeans(X, 32, seed=0, n_init=1)
    distances = squared_distances(X, centroids).astype(np.float64)
    above = distances - distances.min(axis=1, keepdims=True)
    temperature = 0.1 * np.median(np.percentile(above, 90, axis=1))
    plan = np.exp(-(above + sinkhorn_prices(X, centroids)) / temperature)
    plan /= plan.sum(axis=1, keepdims=True)
    assert np.allclose(plan.sum(axis=0) / (len(X) / 32), 1, atol=0.02)


@pytest.mark.parametrize(("n", "k"), [(60, 5), (61, 7), (9, 9), (10, 1)])
def test_onerec_is_the_slow_one(n: int, k: int) -> None:
    X = skewed(n, 6)
    assert onerec(X, k, seed=3, max_iter=10)[1].tolist() == slow_onerec(X, k, 3, 10)


def test_codebooks_are_the_means_of_balanced_residuals() -> None:
    X = skewed()
    tokenizer = RQKMeansBalanced(levels=[16, 8]).fit(X)
    codes = tokenizer.encode(X)
    residual = X
    for level, k in enumerate([16, 8]):
        means = np.stack([residual[codes[:, level] == code].mean(axis=0) for code in range(k)])
        assert np.allclose(tokenizer.codebooks_[level], means, atol=1e-5)
        residual = residual - tokenizer.codebooks_[level][codes[:, level]]
    assert np.allclose(X - tokenizer.decode(codes), residual, atol=1e-5)


def test_only_fit_rows_are_remembered() -> None:
    X = skewed()
    tokenizer = RQKMeansBalanced(levels=[16, 8]).fit(X[:1500])
    forgetful = RQKMeansBalanced(levels=[16, 8], remember=False).fit(X[:1500])
    codes, near = tokenizer.encode(X), forgetful.encode(X)
    assert np.array_equal(codes[1500:], near[1500:])
    assert not np.array_equal(codes[:1500], near[:1500])
    assert np.array_equal(codes[::-1], tokenizer.encode(X[::-1]))
    assert np.array_equal(codes[7:8], tokenizer.encode(X[7:8]))
    assert tokenizer.encode(X[:0]).shape == (0, 2)
    assert np.array_equal(near[:, 0], tokenizer.distances(X, near[:, :0]).argmin(axis=1))


def test_soft_codes_start_with_the_balanced_one() -> None:
    X = skewed(300)
    tokenizer = RQKMeansBalanced(levels=[8, 4]).fit(X)
    assert np.array_equal(tokenizer.encode_soft(X, 2)[0][..., 0], tokenizer.encode(X))


def test_zero_has_one_sign() -> None:
    X = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    hashes = content_hashes(X)
    assert hashes.dtype == np.uint64
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("remember", [True, False])
def test_save_and_load_keep_everything(tmp_path: Path, remember: bool) -> None:
    X = skewed()
    tokenizer = RQKMeansBalanced(levels=[16, 8], remember=remember).fit(X[:1500])
    tokenizer.save(tmp_path / "t")
    again = RQKMeansBalanced.load(tmp_path / "t")
    assert again.get_params() == tokenizer.get_params()
    assert np.array_equal(again.encode(X), tokenizer.encode(X))
    assert hasattr(again, "fit_codes_") == remember


@pytest.mark.parametrize("method", METHODS)
def test_row_order_does_not_matter(method: str) -> None:
    X = skewed(700)
    X[600:] = X[:100]
    weight = np.random.default_rng(2).random(700)
    order = np.random.default_rng(1).permutation(700)
    tokenizer = RQKMeansBalanced(levels=[12, 5], method=method, max_iter=4)
    codes = tokenizer.fit(X, sample_weight=weight).encode(X)
    shuffled = tokenizer.fit(X[order], sample_weight=weight[order]).encode(X[order])
    assert np.array_equal(shuffled, codes[order])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 7, 60])
def test_equal_rows_are_shared_out(method: str, k: int) -> None:
    constant = np.ones((60, 4), dtype=np.float32)
    few = np.repeat(np.eye(4, dtype=np.float32), 15, axis=0)
    for X in (constant, few, constant * 0):
        tokenizer = RQKMeansBalanced(levels=[k, 3], method=method).fit(X)
        assert imbalance(tokenizer.fit_codes_[:, 0], k) == imbalance(tokenizer.fit_codes_[:, 1], 3) == 0
        codes = tokenizer.encode(X)
        assert len(np.unique(np.c_[X, codes], axis=0)) == len(np.unique(X, axis=0))
        assert np.isfinite(tokenizer.decode(codes)).all()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_does_not_matter(scale: float) -> None:
    X = skewed(500)
    codes = RQKMeansBalanced(levels=[16]).fit(X * np.float32(scale)).fit_codes_
    assert imbalance(codes[:, 0], 16) == 0


def test_weights_pull_the_means_and_not_the_counts() -> None:
    X = np.array([[0.0], [1.0], [10.0], [11.0]], dtype=np.float32)
    tokenizer = RQKMeansBalanced(levels=[2]).fit(X, sample_weight=[1, 3, 0, 0])
    codes = tokenizer.encode(X)[:, 0]
    assert imbalance(codes, 2) == 0
    assert tokenizer.codebooks_[0][codes[0], 0] == pytest.approx(0.75)


def test_a_sample_comes_first_where_there_are_many_rows() -> None:
    X = skewed(5000)
    for method in ("exact", "greedy"):
        centroids, codes = fitted(X, method, 16)
        assert imbalance(codes, 16) == 0
        assert np.allclose(centroids[3], X[codes == 3].mean(axis=0), atol=1e-5)


def test_misuse_is_refused() -> None:
    X = skewed(50)
    with pytest.raises(DataError, match=r"method: expected one of auto, exact, .*, got 'fast'"):
        RQKMeansBalanced(levels=[4], method="fast").fit(X)
    with pytest.raises(
        DataError, match=r"levels\[1\] asks for 51 codes, but there are only 50 items to fit on"
    ):
        RQKMeansBalanced(levels=[4, 51]).fit(X)
    with pytest.raises(DataError, match="max_iter: expected 1 or more, got 0"):
        RQKMeansBalanced(levels=[4], max_iter=0).fit(X)
